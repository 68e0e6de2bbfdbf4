"""`fclm evaluate`: checkpoints, or mattes of other programs, measured on a benchmark."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import check_device, exit_on_error, make_progress


if TYPE_CHECKING:
    from ..evaluation.samples import EvaluationSample


# by the fields of EvaluationOptions, whose errors name them
OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "layout",
        "split",
        "protocol",
        "template",
        "longest_edge",
        "limit",
        "shard",
        "workers",
        "clicks",
        "rows",
        "device",
        "dtype",
    )
} | {
    "point": "--point-rule",
    "prompts": "--prompt",
    "baselines": "--baseline",
    "predictions": "--predictions",
    "columns": "--column",
    "models": "--model",
    "out": "--out",
}


def evaluate(
    data: Annotated[str, typer.Argument(help="Benchmark: a folder or a data set on the Hub.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder. A previous run in it is continued.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint: a folder or Hub repository. Repeat for runs with different seeds. Defaults to fclm-lite."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="text, point, box, mask, trimap or none. Repeat for several kinds. Defaults to box."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="box-as-mask, grabcut or closed-form, with the same boxes. Repeat for several."),
    ] = None,
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Folder of mattes of another program to evaluate instead of a model.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="refmatte-rw100, him2k, dis5k, p3m-10k, alphamatting, dev-coco, dev-alphamatting, columns or auto."
        ),
    ] = "auto",
    split: Annotated[
        str | None, typer.Option(help="Split of the benchmark: natural, DIS-VD, DIS-TE (all four), test, ...")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="Column or subfolder of a role: image, alpha, id, text, cls, box, point or trimap. Repeatable.",
        ),
    ] = None,
    config_name: Annotated[str | None, typer.Option(help="Configuration of the data set on the Hub.")] = None,
    protocol: Annotated[
        str, typer.Option(help="matting, instances, dichotomous, masks, or auto for that of the benchmark.")
    ] = "auto",
    template: Annotated[
        str, typer.Option(help="Text around a class name; expressions in the data set are used as they are.")
    ] = "a photo of {CLS}.",
    point_rule: Annotated[
        str, typer.Option(help="Clicks derived from the true mattes: center of the box, or farthest inside.")
    ] = "center",
    clicks: Annotated[
        int,
        typer.Option(
            help="Clicks in a row with --prompt point, each in the largest error. Adds the IoU after each click and "
            "the number of clicks to IoU 0.85 and 0.90."
        ),
    ] = 1,
    known_words: Annotated[
        bool, typer.Option("--known-words", help="Skip texts with words that are not single tokens.")
    ] = False,
    longest_edge: Annotated[
        int | None,
        typer.Option(help="Longer side in pixels to shrink images to. Defaults to that of the processor."),
    ] = None,
    encoder_size: Annotated[
        str | None, typer.Option(help="Override the checkpoint's encoder_size: a number of pixels or none.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of images.")] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Evaluate every N-th image only; N processes share the output folder.")
    ] = "1/1",
    workers: Annotated[int, typer.Option(help="Processes that compute metrics while the model runs; 0 for none.")] = 1,
    save_mattes: Annotated[bool, typer.Option("--save-mattes", help="Also write the mattes as 8-bit PNG.")] = False,
    rows: Annotated[str, typer.Option(help="Format of the table of single images: parquet or csv.")] = "parquet",
    device: Annotated[str, typer.Option(help="Device of the model: cpu, cuda:0, mps, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of the model: float32, float16 or bfloat16.")] = "float32",
) -> None:
    """Evaluate checkpoints, or mattes of other programs, with the metrics of a benchmark.

    The output folder receives summary.json and a table of single images for each method and kind of prompt. An
    interrupted run continues where it stopped.

    Predictions have the names of the true mattes (GT01.png; the instances of a photo are in a folder of its name) and
    the size of the photo. A missing matte counts as empty, a missing instance as missed.
    """
    check_device(device)
    with exit_on_error(options=OPTIONS):
        from ..checkpoints import LITE_CHECKPOINT
        from ..evaluation import EvaluationOptions, summary
        from ..evaluation import evaluate as run

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
            clicks=clicks,
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
    if not result:
        typer.echo("This shard is done; the last one to finish writes the summary.")
        return
    print_table(*summary.make_table(result))
    for line in summary.list_remarks(result):
        typer.secho(line, fg="yellow", err=True)
    typer.echo(options.out / "summary.json")


def parse_columns(pairs: list[str]) -> dict[str, str]:
    """Parse ROLE=NAME pairs."""
    columns = {}
    for pair in pairs:
        role, separator, name = pair.partition("=")
        if not (role and separator and name) or role in columns:
            raise ValueError(f"--column must be ROLE=NAME, each role once, got {pair!r}.")
        columns[role] = name
    return columns


def parse_encoder_size(value: str) -> int | None:
    """Parse a number of pixels or none."""
    if value.lower() == "none":
        return None
    if not value.isdigit() or not int(value):
        raise ValueError(f"--encoder-size must be a positive number or none, got {value!r}.")
    return int(value)


def parse_shard(value: str) -> tuple[int, int]:
    """Parse I/N."""
    first, _, of = value.partition("/")
    if not (first.isdigit() and of.isdigit()):
        raise ValueError(f"--shard must be I/N, such as 1/2, got {value!r}.")
    return int(first), int(of)


def track_with_rich(
    samples: Iterable["EvaluationSample"], description: str, total: int | None
) -> Iterator["EvaluationSample"]:
    """Yield samples and show their progress on standard error."""
    with make_progress() as progress:
        yield from progress.track(samples, total=total, description=description)


def print_table(header: list[str], rows: list[list[Any]]) -> None:
    """Print a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # a table that is piped into a file is not wrapped to the width of the terminal
    console.print(table, soft_wrap=True) if console.is_terminal else Console(width=1000).print(table)
