"""Pictures like the paper's Fig. 4 and 5: photos, true mattes and those of runs side by side, an object per line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..evaluation.layouts import open_folder
from ..evaluation.predictors import CheckpointPredictor
from ..evaluation.prompts import PromptRules, prompt_targets
from ..evaluation.samples import EvaluationSample, read_image, read_matte
from ..utils.files import write_atomically


CELL = (320, 240)  # width, height in pixels
GAP, HEADER = 6, 26


@dataclass(frozen=True)
class Method:
    """A checkpoint that is shown.

    Attributes:
        title: Heading of its column.
        checkpoint: Its folder.
        prompt: Kind of prompt.
    """

    title: str
    checkpoint: Path
    prompt: str


def choose_samples(samples: Sequence[EvaluationSample], names: Sequence[str], count: int) -> list[EvaluationSample]:
    """Return the samples with these names, or `count` at even distances if none is named.

    Args:
        samples: All samples of a data set.
        names: Names of samples; those of other data sets are left out.
        count: Number of samples without names.
    """
    if names:
        return [sample for sample in samples if sample.name in names]
    steps = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[index] for index in steps]


def compare(
    folder: Path,
    layout: str,
    split: str | None,
    methods: Sequence[Method],
    names: Sequence[str] = (),
    count: int = 4,
    device: str = "cpu",
    dtype: str = "float32",
) -> list[Image.Image]:
    """Return the lines of a comparison: the headings, then one line per object.

    Args:
        folder: Folder of a data set.
        layout: Name of its layout.
        split: Its split.
        methods: What is compared.
        names: Names of images to show.
        count: Number of images to show if none is named.
        device: Device of the models.
        dtype: Precision of the models.
    """
    samples = choose_samples(list(open_folder(folder, layout, split).samples), names, count)
    lines: dict[str, list[Image.Image]] = {}
    for sample in samples:
        photo = read_image(sample.image, sample.name)
        for target in sample.targets:
            matte = read_matte(target.alpha, target.name, (photo.height, photo.width))
            lines[target.name] = [photo, Image.fromarray(matte)]
    for number, method in enumerate(methods, start=2):
        predictor = CheckpointPredictor(str(method.checkpoint), device=device, dtype=dtype)
        for sample in samples:
            for name, matte in _predict(predictor, sample, method.prompt).items():
                lines[name].append(Image.fromarray(matte))
        for line in lines.values():  # objects without a prompt of this kind
            line += [Image.new("L", (1, 1))] * (number + 1 - len(line))
    heading = _join([_write(title) for title in ("photo", "true matte", *(method.title for method in methods))])
    return [heading, *(_join([_fit(each) for each in line]) for line in lines.values())] if lines else []


def save_comparison(lines: Sequence[Image.Image], path: Path) -> None:
    """Save lines below each other as PNG, atomically.

    Args:
        lines: Pictures of any width.
        path: The file.
    """
    picture = Image.new(
        "RGB", (max(line.width for line in lines), sum(line.height + GAP for line in lines) - GAP), "white"
    )
    top = 0
    for line in lines:
        picture.paste(line, (0, top))
        top += line.height + GAP
    with write_atomically(path) as temporary:
        picture.save(temporary, "PNG")


def _predict(predictor: CheckpointPredictor, sample: EvaluationSample, prompt: str) -> dict[str, np.ndarray]:
    """Return the mattes of the objects of a photo that have a prompt, uint8, by their names."""
    photo = read_image(sample.image, sample.name)
    mattes = [read_matte(target.alpha, target.name, (photo.height, photo.width)) for target in sample.targets]
    prompted, _ = prompt_targets(sample, mattes, prompt, PromptRules())
    ((_, alphas),) = predictor.predict(sample, photo, {prompt: prompted})
    pairs = zip(prompted, alphas, strict=True)
    return {each.target.name: np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8) for each, alpha in pairs}


def _fit(picture: Image.Image) -> Image.Image:
    """Return a picture scaled into a cell."""
    return ImageOps.pad(picture.convert("RGB"), CELL, color="white")


def _write(text: str) -> Image.Image:
    """Return a heading of the width of a cell."""
    picture = Image.new("RGB", (CELL[0], HEADER), "white")
    ImageDraw.Draw(picture).text((4, 4), text, fill="black", font=ImageFont.load_default(16))
    return picture


def _join(cells: Sequence[Image.Image]) -> Image.Image:
    """Return pictures of one height beside each other."""
    width = sum(cell.width + GAP for cell in cells) - GAP
    line = Image.new("RGB", (width, cells[0].height), "white")
    left = 0
    for cell in cells:
        line.paste(cell, (left, 0))
        left += cell.width + GAP
    return line
