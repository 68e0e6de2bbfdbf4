"""`fclm matte`: objects cut out of any number of images."""

import enum
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..utils.files import write_bytes
from .console import exit_on_error, make_progress
from .matte_jobs import OPAQUE_FORMATS, TRANSPARENT_FORMATS, Job, plan_jobs


if TYPE_CHECKING:
    from PIL import Image

COORDINATES = {"--box": ("X0", "Y0", "X1", "Y1"), "--point": ("X", "Y"), "--negative-point": ("X", "Y")}


class DType(str, enum.Enum):
    """Precisions of the model."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class MatteCommand(TyperCommand):
    """Command whose coordinate options take several values and may be repeated, which Typer does not support."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Join the values of coordinate options before parsing: `--box 1 2 3 4` becomes `--box="1 2 3 4"`."""
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


def matte(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders (searched recursively), patterns or URLs.")
    ],
    out: Annotated[
        str, typer.Option("-o", "--out", help="Output file for a single image, or a folder for <name>.png files.")
    ],
    text: Annotated[list[str] | None, typer.Option(help="Object to matte. Repeat for several objects.")] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0 Y0 X1 Y1", help="Box around the object, in pixels. Repeat for several objects."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="X Y", help="Click on the object. Repeat for more clicks.")
    ] = None,
    negative_point: Annotated[
        list[str] | None, typer.Option(metavar="X Y", help="Click on the background. Repeat for more clicks.")
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Rough mask, trimap or earlier matte, of the size of the image. Repeat for several objects.",
        ),
    ] = None,
    alpha: Annotated[bool, typer.Option("--alpha", help="Write the alpha matte instead of the cutout.")] = False,
    background: Annotated[str | None, typer.Option(help="Color or image to put behind the cutout.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint: a folder or Hub repository. Defaults to fclm-lite, which is included."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of images encoded at once.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda:0, mps, ... Defaults to the first GPU, or else the CPU.")
    ] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the model.")] = DType.float32,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip images whose output files exist.")
    ] = False,
) -> None:
    """Cut objects out of images.

    Without --text, --box, --point or --mask, the salient object is cut out.
    """
    if alpha and background is not None:
        raise typer.BadParameter("--alpha and --background are mutually exclusive.")
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


def collect_prompts(
    text: list[str] | None,
    box: list[str] | None,
    point: list[str] | None,
    negative_point: list[str] | None,
    mask: list[str] | None = None,
) -> tuple[dict[str, Any], int]:
    """Return the prompts as arguments of the pipeline, and the number of objects they name; all points name one."""
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
            " often, or once with --point and --negative-point, which all name a single object."
        )
    return prompts, counts.pop() if counts else 1


def parse_numbers(value: str, option: str) -> list[float]:
    """Parse the numbers of a coordinate option, separated by spaces or commas."""
    names = COORDINATES[option]
    try:
        numbers = [float(each) for each in value.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != len(names):
        raise typer.BadParameter(f"{option} takes {len(names)} numbers, {' '.join(names)}, got {value!r}.")
    return numbers


def make_renderer(alpha: bool, background: str | None) -> Callable[[dict[str, Any]], "Image.Image"]:
    """Return a function that turns a result of the pipeline into the image to write: alpha, cutout or composite."""
    if alpha:
        return lambda result: result["alpha"]
    if background is None:
        return lambda result: result["cutout"]
    from PIL import Image, ImageColor, ImageOps

    from ..image_utils_fclm import load_image

    try:
        backdrop = Image.new("RGB", (1, 1), ImageColor.getrgb(background)[:3])
    except ValueError:
        try:
            backdrop = load_image(background)
        except ValueError as error:
            raise typer.BadParameter(f"--background must be a color or an image: {error}") from error

    def compose(result: dict[str, Any]) -> Image.Image:
        cutout = result["cutout"]
        picture = Image.alpha_composite(ImageOps.fit(backdrop, cutout.size).convert("RGBA"), cutout).convert("RGB")
        picture.info = dict(cutout.info)
        return picture

    return compose


def load_pipeline(model: str | None, device: str | None, dtype: str) -> Callable[..., Any]:
    """Load the pipeline, or exit with an error."""
    with exit_on_error(f"The model {model or 'fclm-lite'} cannot be loaded: "):
        from transformers import pipeline

        from ..checkpoints import LITE_CHECKPOINT
        from ..pipeline_fclm import ReferringMattingPipeline

        # the class is given, because a Hub repository with code of its own would require trust_remote_code
        return pipeline(
            "referring-matting",
            model=model or LITE_CHECKPOINT,
            device=device,
            dtype=dtype,
            pipeline_class=ReferringMattingPipeline,
        )


def run_jobs(
    jobs: list[Job],
    pipe: Callable[..., Any],
    prompts: dict[str, Any],
    render: Callable[[dict[str, Any]], "Image.Image"],
    batch_size: int,
    cutout: bool,
) -> dict[str, str]:
    """Run all jobs that can be done and return the error messages of the others by source."""
    failures = {}
    with make_progress(disable=len(jobs) == 1) as progress:
        task = progress.add_task("Matting", total=len(jobs))
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            for job, outcome in zip(batch, predict(batch, pipe, prompts, cutout), strict=True):
                if error := write_results(job, outcome, render):
                    failures[str(job.source)] = str(error) or type(error).__name__
            progress.advance(task, len(batch))
    return failures


def write_results(
    job: Job, outcome: list[dict[str, Any]] | Exception, render: Callable[[dict[str, Any]], "Image.Image"]
) -> Exception | None:
    """Write the results of a job and return the error if it failed, as one bad image must not stop the others."""
    if isinstance(outcome, Exception):
        return outcome
    try:
        for path, result in zip(job.targets, outcome, strict=True):
            write_image(render(result), path)
    except Exception as error:
        return error
    return None


def predict(
    batch: list[Job], pipe: Callable[..., Any], prompts: dict[str, Any], cutout: bool
) -> list[list[dict[str, Any]] | Exception]:
    """Return the results or the error of each job; a batch that fails is repeated one by one to find the culprit."""
    samples: Any = [job.source for job in batch] if len(batch) > 1 else batch[0].source
    try:
        results = pipe(samples, **prompts, cutout=cutout, batch_size=len(batch))
    except Exception as error:
        return [error] if len(batch) == 1 else [predict([job], pipe, prompts, cutout)[0] for job in batch]
    results = results if len(batch) > 1 else [results]
    return [result if isinstance(result, list) else [result] for result in results]


def write_image(image: "Image.Image", path: Path) -> None:
    """Write an image atomically, with its color profile."""
    name, options = OPAQUE_FORMATS[path.suffix.lower()]
    if profile := image.info.get("icc_profile"):
        options = {**options, "icc_profile": profile}
    data = BytesIO()
    image.save(data, name, **options)
    write_bytes(path, data.getbuffer())


def report(jobs: list[Job], waiting: list[Job], failures: dict[str, str]) -> None:
    """Print errors in red on standard error, then the files that were written or, for many images, their number."""
    for source, problem in failures.items():
        typer.secho(f"{source}: {problem}", fg="red", err=True)
    done = [job for job in waiting if str(job.source) not in failures]
    if len(jobs) == 1:
        for path in (path for job in done for path in job.targets):
            typer.echo(path)
    else:
        typer.echo(f"{len(done)} done, {len(jobs) - len(waiting)} skipped, {len(failures)} failed.")
