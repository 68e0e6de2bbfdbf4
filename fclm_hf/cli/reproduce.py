"""`fclm reproduce`: a table of the paper, trained, tested and written by one command."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .console import check_device, exit_on_error
from .evaluate import track_with_rich


OPTIONS = {name: f"--{name}" for name in ("rows", "seeds", "steps", "limit", "dtype")} | {
    "table": "TABLE",
    "data": "--data",
    "tests": "--test",
}


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table4, table5 or table6.")],
    data: Annotated[
        Path, typer.Option(help="Folder of the data sets: P3M-10k, BG-20k, RefMatte, RefMatte_RW_100, HIM2K, DIS5K.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for runs, results, tables and figures. It is continued.")
    ],
    rows: Annotated[
        list[str] | None,
        typer.Option(help="Runs of the table, such as adversarial,full; or all. Repeatable. Defaults to all."),
    ] = None,
    seeds: Annotated[list[str] | None, typer.Option(help="Seeds, such as 0,1,2, the default. Repeatable.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of each run. Defaults to those of the configuration.")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="YAML file of another model and other data, which replaces what the rows start from."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder below --data to test on instead of the paper's, as fclm evaluate reads it. Repeatable."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of images to test on.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Name of an image in the figure of table2 or table3. Repeatable.")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figure that belongs to the table.")] = True,
    workers: Annotated[int, typer.Option(help="Processes that compute metrics; 0 for none.")] = 1,
    launcher: Annotated[
        str, typer.Option(help='Command that trains each run, such as "accelerate launch --num_processes 4".')
    ] = "",
    device: Annotated[str, typer.Option(help="Device for tests: cpu, cuda:0, mps, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of tests: float32, float16 or bfloat16.")] = "float32",
) -> None:
    """Reproduce a table of the paper: train its runs, test them, and write the table with the paper's figures beside.

    Other options are those of fclm train and win over the configurations. Runs, tests and the table continue where they
    stopped.
    """
    check_device(device)
    from ..data import StreamError
    from ..training.checkpointing import SaveError
    from ..training.optimization import NonFiniteLossError

    text, stop = "", 0
    with exit_on_error(options=OPTIONS, errors=(NonFiniteLossError, SaveError, StreamError)):
        from ..reproduction import ReproductionOptions
        from ..reproduction import reproduce as run
        from ..reproduction.run import StoppedError

        chosen = split_list(rows)
        options = ReproductionOptions(
            table=table,
            data=data,
            out=out,
            rows=None if chosen in ([], ["all"]) else chosen,
            **({"seeds": parse_seeds(split_list(seeds))} if seeds else {}),
            steps=steps,
            base=base,
            tests=test or [],
            limit=limit,
            images=image or [],
            figures=figures,
            device=device,
            dtype=dtype,
            workers=workers,
            launcher=shlex.split(launcher),
            flags=context.args,
        )
        try:
            text = run(options, lambda line: typer.echo(line, err=True), track_with_rich)
        except StoppedError as error:
            typer.echo(error, err=True)
            stop = error.signal
    if stop:
        raise typer.Exit(128 + stop)
    typer.echo(text)
    typer.echo(out / f"{table}.md")


def split_list(values: list[str] | None) -> list[str]:
    """Return the parts of options that may be repeated and hold several values with commas between them."""
    return [part.strip() for value in values or [] for part in value.split(",") if part.strip()]


def parse_seeds(values: list[str]) -> list[int]:
    """Parse numbers."""
    if wrong := [value for value in values if not value.isdigit()]:
        raise ValueError(f"seeds must be numbers, such as 0,1,2, got {wrong[0]!r}.")
    return [int(value) for value in values]
