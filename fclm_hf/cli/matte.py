"""`fclm matte`: objects cut out of any number of images."""

import enum
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..utils.files import remove_unfinished_files, write_bytes
from .console import check_device, exit_on_error, fail, make_progress
from .matte_jobs import OPAQUE_FORMATS, STANDARD_STREAM, TRANSPARENT_FORMATS, Job, is_device, is_url, plan_jobs
from .streams import read_standard_input, write_standard_output


if TYPE_CHECKING:
    from PIL import Image

_OUT_OF_MEMORY = re.compile(r"out of memory|(allocate|not enough|insufficient) memory", re.IGNORECASE)
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
            name, _, value = word.partition("=")
            if name in COORDINATES:
                values, rest = take_numbers([value, *rest] if "=" in word else rest, len(COORDINATES[name]))
                joined.append(f"{name}={' '.join(values)}")
            else:
                joined.append(word)
            if word == "--":
                joined, rest = joined + rest, []
        return super().parse_args(ctx, joined)


def take_numbers(words: list[str], count: int) -> tuple[list[str], list[str]]:
    """Return the words that are the values of a coordinate option, separated by spaces or commas, and those after it.

    Too many numbers are taken, too, unless they are files, so that the error can name them.
    """
    taken: list[str] = []
    rest = list(words)
    while rest and is_numeric(rest[0]):
        if len(split_numbers(" ".join(taken))) >= count and Path(rest[0]).exists():
            break
        taken.append(rest.pop(0))
    if not taken and rest and not rest[0].startswith("-"):
        taken.append(rest.pop(0))  # not a number: the error will name it
    return taken, rest


def split_numbers(value: str) -> list[str]:
    """Split the numbers of a coordinate option at spaces and commas."""
    return value.replace(",", " ").split()


def is_numeric(word: str) -> bool:
    """Return whether a word consists of numbers."""
    try:
        return bool([float(each) for each in split_numbers(word)])
    except ValueError:
        return False


def matte(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Files, folders (searched recursively), patterns or URLs; - reads standard input."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            help="Output file for a single image, - for a PNG on standard output, or a folder for <name>.png files.",
        ),
    ],
    text: Annotated[list[str] | None, typer.Option(help="Object to matte. Repeat for several objects.")] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X0 Y0 X1 Y1",
            help="Box around the object, in pixels; also X0,Y0,X1,Y1. Repeat for several objects.",
        ),
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
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest number of pixels of an image. Defaults to 256 * 1024 * 1024.")
    ] = None,
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
    try:
        jobs = plan_jobs(images, out, objects, formats)
    except OSError as error:  # of a name that is too long, or in a folder that must not be read
        name = str(error.filename)
        raise typer.BadParameter(f"{name if len(name) < 80 else f'{name[:77]}...'}: {error.strerror}.") from error
    render = make_renderer(alpha, background)
    waiting = [job for job in jobs if not (skip_existing and job.is_done())]
    waiting = [replace(job, data=read_stream(job.source)) if job.is_stream() else job for job in waiting]
    failures: dict[str, str] = {}
    if waiting:
        remove_unfinished_files(path for job in waiting for path in job.targets if path is not None)
        check_device(device)
        pipe = load_pipeline(model, device, dtype.value)
        typer.echo(f"{model or 'fclm-lite'} on {pipe.device}", err=True)
        failures = run_jobs(waiting, partial(pipe, max_pixels=max_pixels), prompts, render, batch_size, not alpha)
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
        if not all(each.strip() for each in text):
            raise typer.BadParameter("--text must not be empty.")
        prompts["text"] = text
    if box:
        prompts["input_boxes"] = [parse_box(each) for each in box]
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
    names, words = COORDINATES[option], split_numbers(value)
    if len(words) == len(names) and is_numeric(value):
        numbers = [float(word) for word in words]
        if all(map(math.isfinite, numbers)):
            return numbers
        raise typer.BadParameter(f"{option} takes finite numbers, got {value}.")
    told = (f"{len(words)}: {value}" if is_numeric(value) else repr(value)) if words else "none"
    raise typer.BadParameter(f"{option} takes {len(names)} numbers, {' '.join(names)}, got {told}.")


def parse_box(value: str) -> list[float]:
    """Parse the numbers of a box, which must have an area."""
    x0, y0, x1, y1 = parse_numbers(value, "--box")
    if x1 <= x0 or y1 <= y0:
        raise typer.BadParameter(f"--box is empty: X0 < X1 and Y0 < Y1 must hold, got {value}.")
    return [x0, y0, x1, y1]


def make_renderer(alpha: bool, background: str | None) -> Callable[[dict[str, Any]], "Image.Image"]:
    """Return a function that turns a result of the pipeline into the image to write: alpha, cutout or composite."""
    if alpha:
        return lambda result: result["alpha"]
    if background is None:
        return lambda result: result["cutout"]
    from ..utils.pictures import place_on_background

    backdrop = load_background(background)
    return lambda result: place_on_background(result["cutout"], backdrop)


def load_background(background: str) -> "Image.Image":
    """Return the image behind `--background`; a color becomes an image of one pixel."""
    import difflib

    from PIL import Image, ImageColor

    from ..image_utils_fclm import load_image

    try:
        *color, opacity = (*ImageColor.getrgb(background), 255)[:4]
    except ValueError:
        color = []
    if color:
        if opacity < 255:
            raise typer.BadParameter(f"--background must be opaque, got the transparent color {background!r}.")
        return Image.new("RGB", (1, 1), tuple(color))
    if not is_url(background) and not (Path(background).exists() and not Path(background).is_dir()):
        meant = difflib.get_close_matches(background.lower(), ImageColor.colormap, n=1)
        hint = f" Did you mean {meant[0]}?" if meant else ""
        raise typer.BadParameter(f"--background: no such color or file: {background!r}.{hint}")
    try:
        return load_image(background if is_url(background) else Path(background))
    except ValueError as error:
        raise typer.BadParameter(f"--background: {error}") from error


def load_pipeline(model: str | None, device: str | None, dtype: str) -> Callable[..., Any]:
    """Load the pipeline, or exit with an error."""
    with exit_on_error(f"The model {model or 'fclm-lite'} cannot be loaded: ", name=model, errors=(Exception,)):
        from transformers import pipeline

        from ..checkpoints import LITE_CHECKPOINT
        from ..onnx import has_only_graphs
        from ..pipeline_fclm import ReferringMattingPipeline

        if model is not None and has_only_graphs(model):
            return load_onnx_pipeline(model, dtype)

        # the class is given, because a Hub repository with code of its own would require trust_remote_code
        return pipeline(
            "referring-matting",
            model=model or LITE_CHECKPOINT,
            device=device,
            dtype=dtype,
            pipeline_class=ReferringMattingPipeline,
            model_kwargs={"use_safetensors": True},  # never unpickle what others made
        )


def load_onnx_pipeline(folder: str, dtype: str) -> Callable[..., Any]:
    """Load the pipeline of a folder with ONNX graphs."""
    from ..onnx import OnnxFCLMForImageMatting
    from ..pipeline_fclm import ReferringMattingPipeline
    from ..processing_fclm import FCLMProcessor

    if dtype != DType.float32.value:
        raise ValueError(f"--dtype must be float32 for ONNX graphs, got {dtype}.")
    graphs = OnnxFCLMForImageMatting.from_pretrained(folder)
    processor = FCLMProcessor.from_pretrained(folder)
    return ReferringMattingPipeline(graphs, processor=processor, task="referring-matting")


def read_stream(source: str | Path) -> bytes:
    """Return what can be read once only: standard input, or a named pipe."""
    if source == STANDARD_STREAM:
        return read_standard_input()
    with exit_on_error(f"{source} cannot be read: "):
        return Path(source).read_bytes()


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
                    failures[job.name] = name_options(describe(error), prompts)
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
            data = encode_image(render(result), path)
            try:
                write_output(path, data)
            except OSError as error:  # which names a temporary file, or none
                target = "Standard output" if path is None else path
                return OSError(f"{target} cannot be written: {error.strerror or error}.")
    except Exception as error:
        return error
    return None


def write_output(path: Path | None, data: memoryview) -> None:
    """Write to a file, all or nothing, to a device, or to standard output."""
    if path is None:
        write_standard_output(data)
    elif is_device(path):
        path.write_bytes(data)
    else:
        write_bytes(path, data)


def describe(error: Exception) -> str:
    """Return the message of an error; each library has one of its own, or none, where memory runs out."""
    message = str(error) or type(error).__name__
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
        return "out of memory."
    return message


def predict(
    batch: list[Job], pipe: Callable[..., Any], prompts: dict[str, Any], cutout: bool
) -> list[list[dict[str, Any]] | Exception]:
    """Return the results or the error of each job; a batch that fails is repeated one by one to find the culprit."""
    try:
        samples = [{"image": job.source if job.data is None else job.data, **prompts} for job in batch]
        results = pipe(samples if len(samples) > 1 else samples[0], cutout=cutout, batch_size=len(batch))
    except Exception as error:
        return [error] if len(batch) == 1 else [predict([job], pipe, prompts, cutout)[0] for job in batch]
    results = results if len(batch) > 1 else [results]
    return [result if isinstance(result, list) else [result] for result in results]


def encode_image(image: "Image.Image", path: Path | None) -> memoryview:
    """Return an image, with its color profile and resolution, in the format of a file, or as PNG if there is none."""
    name, options = OPAQUE_FORMATS.get("" if path is None else path.suffix.lower(), OPAQUE_FORMATS[".png"])
    options = options | {key: image.info[key] for key in ("icc_profile", "dpi") if key in image.info}
    data = BytesIO()
    image.save(data, name, **options)
    return data.getbuffer()


def name_options(message: str, prompts: dict[str, Any]) -> str:
    """Replace the arguments of the pipeline in an error message by options of the command line."""

    def name_option(match: re.Match[str]) -> str:
        argument, index, point = match["argument"], int(match["object"]), match["point"]
        if argument in ("input_points", "input_labels"):
            number = int(point or 0)
            labels = prompts["input_labels"][0]
            option = "--point" if labels[number] else "--negative-point"
            values = [prompts["input_points"][0][number]]
        else:
            option = {"text": "--text", "input_boxes": "--box", "input_masks": "--mask"}[argument]
            values = [prompts[argument][index]]
        shown = " ".join(f"{each:g}" if isinstance(each, float) else repr(each) for each in flatten(values))
        return f"{option} {shown}"

    message = message.replace("max_pixels, or PIL.Image.MAX_IMAGE_PIXELS,", "--max-pixels")
    return re.sub(
        r"(?P<argument>text|input_(?:points|labels|boxes|masks))\[\d+\]\[(?P<object>\d+)\] \(image \d+, object \d+\)"
        r"(?:, point (?P<point>\d+),)?",
        name_option,
        message,
    )


def flatten(value: Any) -> list[Any]:
    """Return the leaves of nested lists."""
    return [leaf for each in value for leaf in flatten(each)] if isinstance(value, list) else [value]


def report(jobs: list[Job], waiting: list[Job], failures: dict[str, str]) -> None:
    """Print errors in red on standard error, then the files that were written or, for many images, their number."""
    try:
        print_report(jobs, waiting, failures)
    except BrokenPipeError:
        raise
    except OSError as error:  # the files have been written, but the list of them has no place
        fail(f"Standard output cannot be written: {error.strerror}.")


def print_report(jobs: list[Job], waiting: list[Job], failures: dict[str, str]) -> None:
    """Print what [`report`] reports."""
    for name, problem in failures.items():
        is_named = name in problem or repr(name)[1:-1] in problem  # the latter has backslashes and quotes escaped
        typer.secho(problem if is_named else f"{name}: {problem}", fg="red", err=True)
    done = [job for job in waiting if job.name not in failures]
    if len(jobs) == len(waiting) == 1:
        for path in (path for job in done for path in job.targets if path is not None):
            typer.echo(path)
    else:
        typer.echo(f"{len(done)} done, {len(jobs) - len(waiting)} skipped, {len(failures)} failed.")
