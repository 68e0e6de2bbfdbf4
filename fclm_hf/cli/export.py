"""`fclm export`: a checkpoint with its code."""

from pathlib import Path
from typing import Annotated

import typer

from .console import exit_on_error


def export(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint: a folder or Hub repository.")],
    folder: Annotated[Path, typer.Argument(help="Output folder, new or empty.")],
    card: Annotated[
        Path | None,
        typer.Option(help="Model card. Defaults to that of the checkpoint, or else a short one.", show_default=False),
    ] = None,
) -> None:
    """Write a checkpoint with its code, so that it loads without fclm_hf."""
    with exit_on_error(options={"card": "--card"}):
        from ..hub import export_saved_checkpoint

        typer.echo(export_saved_checkpoint(checkpoint, folder, card))
