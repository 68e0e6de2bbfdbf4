"""`fclm evaluate`: options of the command line to [`EvaluationOptions`], progress and table."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer


if TYPE_CHECKING:
    from ..evaluation.samples import EvaluationSample


def evaluate(
    data: Annotated[str, typer.Argument(help="Folder of a benchmark, or data set on the Hub.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for results. An earlier run in it is continued.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder or Hub repository; repeat it for runs by several seeds. Default: fclm-lite."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="text, point, box or none. Repeat it for several. Default: box.")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="box-as-mask, grabcut or closed-form, from the same boxes.")
    ] = None,
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Folder of mattes of another program, to measure instead of a model.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(help="refmatte-rw100, him2k, dis5k, alphamatting, dev-coco, dev-alphamatting, columns or auto."),
    ] = "auto",
    split: Annotated[str | None, typer.Option(help="natural, DIS-VD, DIS-TE (all four), test, ...")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME", help="Column or subfolder for image, alpha, id, text, cls, box, point, trimap."
        ),
    ] = None,
    config_name: Annotated[str | None, typer.Option(help="Configuration of the Hub data set.")] = None,
    protocol: Annotated[
        str, typer.Option(help="matting, instances, dichotomous, masks, or auto for the benchmark's own.")
    ] = "auto",
    template: Annotated[
        str, typer.Option(help="Text around a class name; expressions of the data set stay as they are.")
    ] = "a photo of {CLS}.",
    point_rule: Annotated[str, typer.Option(help="Derived clicks: center of the box, or farthest inside.")] = "center",
    known_words: Annotated[bool, typer.Option("--known-words", help="Leave out texts with unknown words.")] = False,
    longest_edge: Annotated[int | None, typer.Option(help="Shrink images to it. Default: the processor's own.")] = None,
    encoder_size: Annotated[str | None, typer.Option(help="Override the checkpoint's; a number or none.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many images.")] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Every N-th image; N processes share one -o.")] = "1/1",
    workers: Annotated[int, typer.Option(help="Processes that measure while the model works; 0 for none.")] = 1,
    save_mattes: Annotated[bool, typer.Option("--save-mattes", help="Also write the mattes, 8-bit PNG.")] = False,
    rows: Annotated[str, typer.Option(help="Table of single images: parquet or csv.")] = "parquet",
    device: Annotated[str, typer.Option(help="cpu, cuda:0, mps, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of the model: float32, float16 or bfloat16.")] = "float32",
) -> None:
    """Measure checkpoints, or mattes that other programs made, as the field does.

    -o gets summary.json and, per method and kind of prompt, a table of single images. A stopped run goes on.

    Predictions bear the names of the true mattes (GT01.png; the instances of a photo lie in a folder of its name) and
    are of the photo's size. Missing ones count as empty, missing instances as missed.
    """
    from transformers.utils import logging

    from ..checkpoints import LITE_CHECKPOINT
    from ..evaluation import EvaluationOptions, summary
    from ..evaluation import evaluate as run

    logging.disable_progress_bar()  # of loading the weights: ours counts images
    try:
        options = EvaluationOptions(
            data=data,
            out=out,
            layout=layout,
            split=split,
            columns=parse_columns(column or []),
            config_name=config_name,
            protocol=protocol,
            models=model or ([] if baseline or predictions else [LITE_CHECKPOINT]),
            baselines=baseline or [],
            predictions=predictions or [],
            prompts=prompt or ["box"],
            template=template,
            point=point_rule,
            known_words=known_words,
            longest_edge=longest_edge,
            config_overrides={} if encoder_size is None else {"encoder_size": parse_encoder_size(encoder_size)},
            limit=limit,
            shard=parse_shard(shard),
            workers=workers,
            save_mattes=save_mattes,
            rows=rows,
            device=device,
            dtype=dtype,
        )
        result = run(options, track_with_rich)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    if not result:
        typer.echo("This shard is done; the last one writes the summary.")
        return
    print_table(*summary.make_table(result))
    for line in summary.list_remarks(result):
        typer.secho(line, fg="yellow", err=True)
    typer.echo(options.out / "summary.json")


def parse_columns(pairs: list[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        role, separator, name = pair.partition("=")
        if not (role and separator and name) or role in columns:
            raise ValueError(f"--column takes ROLE=NAME, each role once, got {pair!r}.")
        columns[role] = name
    return columns


def parse_encoder_size(value: str) -> int | None:
    if value.lower() == "none":
        return None
    if not value.isdigit() or not int(value):
        raise ValueError(f"--encoder-size must be a positive number or none, got {value!r}.")
    return int(value)


def parse_shard(value: str) -> tuple[int, int]:
    first, _, of = value.partition("/")
    if not (first.isdigit() and of.isdigit()):
        raise ValueError(f"--shard takes I/N, such as 1/2, got {value!r}.")
    return int(first), int(of)


def track_with_rich(
    samples: Iterable["EvaluationSample"], description: str, total: int | None
) -> Iterator["EvaluationSample"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(samples, total=total, description=description)


def print_table(header: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # not to be folded where it is piped into a file
    console.print(table, soft_wrap=True) if console.is_terminal else Console(width=1000).print(table)
