"""A picture that compares mattes with photo and true alpha: the best, the median and the worst of an evaluation."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..utils.files import write_bytes
from .layouts import Benchmark
from .prompts import PromptRules, prompt_targets
from .protocols import PROTOCOLS
from .results import ResultFolder
from .samples import read_image, read_matte
from .summary import format_value


CELL = (224, 168)  # width, height
CAPTION = 16
GAP = 4
COLUMNS = ("photo and box", "true alpha", "matte")
BACKGROUND = (40, 40, 48)


def choose_examples(scores: dict[str, float], higher_is_better: bool) -> dict[str, str]:
    """Return the names of the best, the median and the worst object, or fewer if there are fewer objects."""
    ranked = sorted(scores, key=lambda name: (-scores[name] if higher_is_better else scores[name], name))
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    chosen: dict[str, str] = {}
    for label, place in places.items():
        if ranked[place] not in chosen.values():
            chosen[label] = ranked[place]
    return chosen


def draw_comparison(benchmark: Benchmark, folder: Path, protocol: str) -> Image.Image:
    """Draw one row for each of [`choose_examples`]: the photo with its box, the true alpha and the matte.

    Args:
        benchmark: The data set that was measured.
        folder: `<out>/<method>/box` of an evaluation with saved mattes, by a protocol that scores single objects.
        protocol: Name of the protocol, whose headline ranks the objects.

    Returns:
        The picture, RGB.

    Raises:
        ValueError: If there are no results or no mattes.
    """
    metric, higher_is_better = PROTOCOLS[protocol].headline
    results = ResultFolder(folder, save_mattes=True)
    scores: dict[str, float] = {}
    for sample in benchmark.samples:
        part = results.read(sample.name)
        for name, row in zip(part["targets"], part["rows"], strict=True) if part else ():
            scores[name] = row[metric]
    if not scores:
        raise ValueError(f"folder must hold results of this benchmark, got {folder}, which has none.")
    chosen = choose_examples(scores, higher_is_better)
    rows = [
        (f"{label}: {name}, {metric} {format_value(scores[name])}", _draw_object(benchmark, results, name))
        for label, name in chosen.items()
    ]
    return _assemble(rows)


def _draw_object(benchmark: Benchmark, results: ResultFolder, name: str) -> list[Image.Image]:
    """Return the pictures of one row."""
    sample = next(sample for sample in benchmark.samples if any(target.name == name for target in sample.targets))
    photo = read_image(sample.image, sample.name)
    size = (photo.height, photo.width)
    mattes = [read_matte(target.alpha, target.name, size) for target in sample.targets]
    prompted, _ = prompt_targets(sample, mattes, "box", PromptRules())
    shown = next(each for each in prompted if each.target.name == name)
    path = results.mattes / f"{name}.png"
    if not path.is_file():
        raise ValueError(f"folder must hold saved mattes, but {path} does not exist.")
    width = max(2, round(max(photo.size) / 150))
    x0, y0, x1, y1 = shown.box
    ImageDraw.Draw(photo).rectangle([x0, y0, x1 - 1, y1 - 1], outline="red", width=width)
    return [photo, *(Image.fromarray(matte).convert("RGB") for matte in (shown.alpha, read_matte(path, name, size)))]


def _assemble(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Arrange rows of pictures with captions on a sheet."""
    height = CAPTION + CELL[1] + GAP
    size = len(COLUMNS) * (CELL[0] + GAP) - GAP, CAPTION + len(rows) * height
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        draw.text((column * (CELL[0] + GAP) + GAP, 2), title, fill="white")
    for row, (caption, pictures) in enumerate(rows):
        top = CAPTION + row * height
        draw.text((GAP, top + 2), caption, fill="white")
        for column, picture in enumerate(pictures):
            picture.thumbnail(CELL)
            sheet.paste(picture, (column * (CELL[0] + GAP), top + CAPTION))
    return sheet


def stack_pictures(pictures: list[Image.Image]) -> Image.Image:
    """Stack pictures vertically."""
    sheet = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), BACKGROUND)
    for top, picture in zip(np.cumsum([0, *(each.height for each in pictures[:-1])]), pictures, strict=True):
        sheet.paste(picture, (0, int(top)))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Save a picture as JPEG, atomically."""
    data = BytesIO()
    picture.save(data, "JPEG", quality=85)
    write_bytes(path, data.getvalue())
