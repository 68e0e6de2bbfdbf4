"""`fclm`: the command line. Heavy imports wait until a command runs."""

import contextlib
import enum
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..utils.files import write_bytes
from .evaluate import evaluate
from .matte_jobs import OPAQUE_FORMATS, TRANSPARENT_FORMATS, Job, plan_jobs


if TYPE_CHECKING:
    from PIL import Image

COORDINATES = {"--box": ("X0", "Y0", "X1", "Y1"), "--point": ("X", "Y"), "--negative-point": ("X", "Y")}

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)


class DType(str, enum.Enum):
    """What a model can compute in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class CoordinateCommand(TyperCommand):
    """Typer has no option that takes several values and may be repeated: `--box 1 2 3 4` becomes `--box="1 2 3 4"`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        joined, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            names = COORDINATES.get(word)
            if names:
                values, rest = rest[: len(names)], rest[len(names) :]
                joined.append(f"{word}={' '.join(values)}")
            else:
                joined.append(word)
            if word == "--":
                joined, rest = joined + rest, []
        return super().parse_args(ctx, joined)


@app.callback()
def fclm() -> None:
    """Cut any object out of a photo by its name, a click or a box."""


@app.command(cls=CoordinateCommand, no_args_is_help=True)
def matte(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders (searched deeply), patterns or URLs.")
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="File for one image, else a folder for <name>.png files.")],
    text: Annotated[list[str] | None, typer.Option(help="What to cut out. Repeat it for several objects.")] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0 Y0 X1 Y1", help="Box in pixels around the object. Repeat it for several objects."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="X Y", help="Click on the object. Repeat it for more clicks.")
    ] = None,
    negative_point: Annotated[
        list[str] | None, typer.Option(metavar="X Y", help="Click on what does not belong to the object.")
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Rough mask, trimap or earlier matte of the object, as large as the image. Repeat it for several.",
        ),
    ] = None,
    alpha: Annotated[bool, typer.Option("--alpha", help="Write the matte instead of the cut-out.")] = False,
    background: Annotated[str | None, typer.Option(help="Colour or image to put the cut-out on.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub repository. Default: the embedded fclm-lite.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:0, mps, ... Default: the first GPU, else cpu.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the model.")] = DType.float32,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out images that are done.")] = False,
) -> None:
    """Cut objects out of images. Without --text, --box, --point or --mask: what stands out."""
    if alpha and background is not None:
        raise typer.BadParameter("--alpha and --background exclude each other.")
    prompts, objects = collect_prompts(text, box, point, negative_point, mask)
    formats = OPAQUE_FORMATS if alpha or background is not None else TRANSPARENT_FORMATS
    jobs = plan_jobs(images, out, objects, formats)
    render = make_renderer(alpha, background)
    waiting = [job for job in jobs if not (skip_existing and all(target.exists() for target in job.targets))]
    failures: dict[str, str] = {}
    if waiting:
        failures = run_jobs(waiting, load_pipeline(model, device, dtype.value), prompts, render, batch_size, not alpha)
    report(jobs, waiting, failures)
    if failures:
        raise typer.Exit(1)


@app.command(no_args_is_help=True)
def export(
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub repository.")],
    folder: Annotated[Path, typer.Argument(help="New or empty.")],
    card: Annotated[Path | None, typer.Option(help="Model card. Default: its own, or a short one.")] = None,
) -> None:
    """Write a checkpoint with its code, so that it loads where fclm_hf is not installed."""
    from ..hub import export_saved_checkpoint

    with reporting_failures():
        typer.echo(export_saved_checkpoint(checkpoint, folder, card))


@app.command(no_args_is_help=True)
def push(
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub repository.")],
    repo_id: Annotated[str, typer.Argument(help="name or namespace/name. Created if it is not there.")],
    card: Annotated[Path | None, typer.Option(help="Model card. Default: its own, or a short one.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Hide a new repository from others.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch. Created if it is not there. Default: main.")] = None,
    message: Annotated[str, typer.Option(help="First line of the commit.")] = "Upload FCLM checkpoint",
) -> None:
    """Upload a checkpoint with its code to the Hub, so that it loads where fclm_hf is not installed."""
    from ..hub import push_checkpoint

    with reporting_failures():
        commit = push_checkpoint(
            checkpoint, repo_id, card=card, private=private or None, revision=revision, commit_message=message
        )
        typer.echo(commit.commit_url)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train from a YAML file and flags that change it: CONFIG.yaml [--field value ...]. --help lists the fields."""
    from .train import main as run

    raise typer.Exit(run(context.args or ["--help"]))


@contextlib.contextmanager
def reporting_failures() -> Iterator[None]:
    """Works without progress bars; what prevents it becomes one red line."""
    from huggingface_hub.utils import httpx
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading the weights
    try:
        yield
    except (OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error


def collect_prompts(
    text: list[str] | None,
    box: list[str] | None,
    point: list[str] | None,
    negative_point: list[str] | None,
    mask: list[str] | None = None,
) -> tuple[dict[str, Any], int]:
    """The pipeline's arguments, and the number of objects they name. All points belong to one object."""
    prompts: dict[str, Any] = {}
    if text:
        prompts["text"] = text
    if box:
        prompts["input_boxes"] = [parse_numbers(each, "--box") for each in box]
    if mask:
        prompts["input_masks"] = mask
    positive = [parse_numbers(each, "--point") for each in point or []]
    negative = [parse_numbers(each, "--negative-point") for each in negative_point or []]
    if positive or negative:
        prompts["input_points"] = [positive + negative]
        prompts["input_labels"] = [[1] * len(positive) + [0] * len(negative)]
    counts = {len(value) for value in prompts.values()}
    if len(counts) > 1:
        raise typer.BadParameter(
            "--text, --box, --mask and --point name different numbers of objects: use --text, --box and --mask equally"
            " often, or once with --point and --negative-point, which all belong to one object."
        )
    return prompts, counts.pop() if counts else 1


def parse_numbers(value: str, option: str) -> list[float]:
    """The numbers that an option takes, separated by spaces or commas."""
    names = COORDINATES[option]
    try:
        numbers = [float(each) for each in value.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != len(names):
        raise typer.BadParameter(f"{option} takes {len(names)} numbers, {' '.join(names)}, got {value!r}.")
    return numbers


def make_renderer(alpha: bool, background: str | None) -> Callable[[dict[str, Any]], "Image.Image"]:
    """What is written of a result of the pipeline: matte, cut-out, or cut-out on a background."""
    if alpha:
        return lambda result: result["alpha"]
    if background is None:
        return lambda result: result["cutout"]
    from PIL import Image, ImageColor, ImageOps

    from ..image_utils_fclm import load_image

    try:
        plate = Image.new("RGB", (1, 1), ImageColor.getrgb(background)[:3])
    except ValueError:
        try:
            plate = load_image(background)
        except ValueError as error:
            raise typer.BadParameter(f"--background is neither a colour nor an image: {error}") from error

    def compose(result: dict[str, Any]) -> Image.Image:
        cutout = result["cutout"]
        picture = Image.alpha_composite(ImageOps.fit(plate, cutout.size).convert("RGBA"), cutout).convert("RGB")
        picture.info = dict(cutout.info)
        return picture

    return compose


def load_pipeline(model: str | None, device: str | None, dtype: str) -> Callable[..., Any]:
    """The pipeline, or one red line that tells why there is none."""
    from transformers import pipeline
    from transformers.utils import logging

    from ..checkpoints import LITE_CHECKPOINT
    from ..pipeline_fclm import ReferringMattingPipeline

    logging.disable_progress_bar()  # of loading the weights: ours counts images
    try:
        # the class is given, because a Hub repository that brings its own code would ask for trust
        return pipeline(
            "referring-matting",
            model=model or LITE_CHECKPOINT,
            device=device,
            dtype=dtype,
            pipeline_class=ReferringMattingPipeline,
        )
    except (OSError, RuntimeError, ValueError) as error:
        typer.secho(f"The model {model or LITE_CHECKPOINT} cannot be loaded: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


def run_jobs(
    jobs: list[Job],
    pipe: Callable[..., Any],
    prompts: dict[str, Any],
    render: Callable[[dict[str, Any]], "Image.Image"],
    batch_size: int,
    cutout: bool,
) -> dict[str, str]:
    """Does every job that can be done; returns what went wrong with the others."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    failures = {}
    with Progress(*columns, console=Console(stderr=True), disable=len(jobs) == 1) as progress:
        task = progress.add_task("Cutting out", total=len(jobs))
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            for job, outcome in zip(batch, predict(batch, pipe, prompts, cutout), strict=True):
                try:
                    if isinstance(outcome, Exception):
                        raise outcome
                    for path, result in zip(job.targets, outcome, strict=True):
                        write_image(render(result), path)
                except Exception as error:  # one bad image must not stop the others
                    failures[str(job.source)] = str(error) or type(error).__name__
            progress.advance(task, len(batch))
    return failures


def predict(
    batch: list[Job], pipe: Callable[..., Any], prompts: dict[str, Any], cutout: bool
) -> list[list[dict[str, Any]] | Exception]:
    """Results of each job, or what prevented them. A batch that fails is repeated one by one to find the culprit."""
    samples: Any = [job.source for job in batch] if len(batch) > 1 else batch[0].source
    try:
        results = pipe(samples, **prompts, cutout=cutout, batch_size=len(batch))
    except Exception as error:
        return [error] if len(batch) == 1 else [predict([job], pipe, prompts, cutout)[0] for job in batch]
    results = results if len(batch) > 1 else [results]
    return [result if isinstance(result, list) else [result] for result in results]


def write_image(image: "Image.Image", path: Path) -> None:
    """The whole file or none, with the image's colour profile."""
    name, options = OPAQUE_FORMATS[path.suffix.lower()]
    if profile := image.info.get("icc_profile"):
        options = {**options, "icc_profile": profile}
    data = BytesIO()
    image.save(data, name, **options)
    write_bytes(path, data.getbuffer())


def report(jobs: list[Job], waiting: list[Job], failures: dict[str, str]) -> None:
    """What failed, in red on standard error; the file that was written, or how many images were done."""
    for source, problem in failures.items():
        typer.secho(f"{source}: {problem}", fg="red", err=True)
    done = [job for job in waiting if str(job.source) not in failures]
    if len(jobs) == 1:
        for path in (path for job in done for path in job.targets):
            typer.echo(path)
    else:
        typer.echo(f"{len(done)} done, {len(jobs) - len(waiting)} skipped, {len(failures)} failed.")


app.command(no_args_is_help=True)(evaluate)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
