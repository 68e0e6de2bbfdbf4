"""`fclm matte-dataset`: mattes of a whole data set as Parquet."""

import enum
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .console import check_device, exit_on_error, make_progress
from .evaluate import parse_columns
from .matte import DType, collect_prompts


OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in ("batch_size", "rows_per_shard", "workers", "threads", "engine", "address", "actors", "dtype")
} | {"columns": "--column", "out": "--out"}


class Engine(str, enum.Enum):
    """What divides the work."""

    local = "local"
    ray = "ray"


def matte_dataset(
    source: Annotated[
        str, typer.Argument(help="Data set on the Hub, folder (images, Parquet, WebDataset), or a loader: parquet, ...")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for Parquet files. A previous run in it is continued.")
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="Column of a role: image, id, text, input_boxes, input_points, input_labels or input_masks. By default"
            " the column of that name. Repeatable.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    config_name: Annotated[str | None, typer.Option(help="Configuration of the data set on the Hub.")] = None,
    data_files: Annotated[
        list[str] | None, typer.Option(help="File or pattern of the data set. Repeat for several.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the data set on the Hub.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Object to matte in every photo. Repeat for several objects.")
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X0 Y0 X1 Y1", help="Box around the object in every photo, in pixels.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="X Y", help="Click on the object in every photo. Repeatable.")
    ] = None,
    negative_point: Annotated[
        list[str] | None, typer.Option(metavar="X Y", help="Click on the background in every photo. Repeatable.")
    ] = None,
    cutout: Annotated[bool, typer.Option("--cutout", help="Write RGBA cutouts instead of alpha mattes.")] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint: a folder or Hub repository. Defaults to fclm-lite, which is included."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Number of photos encoded at once.")] = 1,
    rows_per_shard: Annotated[int, typer.Option(help="Rows of an output file.")] = 512,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda:0, mps, ... Defaults to the first GPU, or else the CPU.")
    ] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the model.")] = DType.float32,
    workers: Annotated[int, typer.Option(help="Threads that load and encode photos beside the model.")] = 2,
    threads: Annotated[int | None, typer.Option(help="PyTorch threads on a CPU. Defaults to PyTorch's choice.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="local, also for the processes of accelerate launch, or ray for a cluster.")
    ] = Engine.local,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster. Defaults to the one that runs on this machine, or else a new one.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(help="Ray actors, each with a model. Defaults to one per GPU, or else per node.")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub", "--push_to_hub", metavar="REPO_ID", help="Data set on the Hub to upload the mattes to."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new data set on the Hub private.")] = False,
) -> None:
    """Matte a data set: Parquet files with the columns id, mattes (PNG files), seconds and error.

    Prompts come from the columns text, input_boxes, input_points, input_labels and input_masks, or are the same for all
    photos. Without any, the salient object is matted. A run that was interrupted, even killed, is continued by the same
    command.
    """
    prompts, _ = collect_prompts(text, box, point, negative_point)
    check_device(device)
    with exit_on_error(options=OPTIONS):
        from ..bulk import BulkOptions
        from ..bulk import matte_dataset as run
        from ..data import SourceConfig

        options = BulkOptions(
            SourceConfig(
                source,
                "photo",
                columns=parse_columns(column or []),
                split=split,
                config_name=config_name,
                data_files=data_files,
                revision=revision,
            ),
            out,
            model=model,
            prompts=prompts,
            cutout=cutout,
            batch_size=batch_size,
            rows_per_shard=rows_per_shard,
            device=device,
            dtype=dtype.value,
            workers=workers,
            threads=threads,
            engine=engine.value,
            address=address,
            actors=actors,
        )
        if push_to_hub is not None:
            from ..bulk.push import check_repository

            push_to_hub = check_repository(push_to_hub)
        with count_photos(disable=engine is Engine.ray) as report:
            summary = run(options, report)
    if summary is None:
        return
    typer.echo(summary)
    if push_to_hub is not None:
        with exit_on_error():
            from ..bulk.push import push_mattes

            typer.echo(push_mattes(options, summary, push_to_hub, private=private or None).commit_url)
    if summary.rows == summary.errors:
        typer.secho("No photo could be matted: see the column error.", fg="red", err=True)
        raise typer.Exit(1)


@contextmanager
def count_photos(disable: bool) -> Iterator[Callable[[int], None]]:
    """Show the number of photos on standard error; yield a function that adds to it.

    Args:
        disable: Whether to show nothing, as Ray has progress bars of its own. All processes but the first are silent.
    """
    with make_progress(disable=disable or os.environ.get("RANK", "0") != "0") as progress:
        task = progress.add_task("Matting", total=None)
        yield lambda count: progress.advance(task, count)
