"""`fclm export-onnx`: a checkpoint for runtimes other than PyTorch."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from .console import exit_on_error


class Format(str, enum.Enum):
    """Formats of an export."""

    onnx = "onnx"
    pt2 = "pt2"


class Quantization(str, enum.Enum):
    """Types that weights are stored as."""

    int8 = "int8"
    uint8 = "uint8"
    fp16 = "fp16"


def export_onnx(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint: a folder or Hub repository.")],
    folder: Annotated[Path, typer.Argument(help="Output folder, new or empty.")],
    quantize: Annotated[
        Quantization | None,
        typer.Option(
            help="Type that weights are stored as: a quarter or half of the size. int8 is also faster. ONNX only."
        ),
    ] = None,
    export_format: Annotated[
        Format, typer.Option("--format", help="ONNX graphs, or programs of torch.export.")
    ] = Format.onnx,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the programs for this machine with AOTInductor. pt2 only.")
    ] = False,
) -> None:
    """Export a checkpoint to ONNX, with all sizes dynamic: one graph each for images, texts and prompts."""
    if export_format is Format.onnx and compiled:
        raise typer.BadParameter("--compile requires --format pt2.")
    if export_format is Format.pt2 and quantize is not None:
        raise typer.BadParameter("--quantize requires --format onnx.")
    with exit_on_error(options={"quantize": "--quantize"}):
        from ..exporters import export_onnx as write_graphs
        from ..exporters import export_programs

        if export_format is Format.pt2:
            typer.echo(export_programs(checkpoint, folder, compiled))
        else:
            typer.echo(write_graphs(checkpoint, folder, quantize and quantize.value))
