"""A picture of mattes beside photo and true alpha: the best, the median and the worst of an evaluation."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..utils.files import write_bytes
from .layouts import Benchmark
from .prompts import PromptRules, ask
from .protocols import PROTOCOLS
from .results import ResultFolder
from .samples import read_image, read_matte
from .summary import format_figure


CELL = (224, 168)  # width, height
CAPTION = 16
GAP = 4
COLUMNS = ("photo and box", "true alpha", "matte")
BACKGROUND = (40, 40, 48)


def choose_examples(scores: dict[str, float], higher_is_better: bool) -> dict[str, str]:
    """Names of the best, the median and the worst object; fewer if there are fewer objects."""
    ranked = sorted(scores, key=lambda name: (-scores[name] if higher_is_better else scores[name], name))
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    chosen: dict[str, str] = {}
    for label, place in places.items():
        if ranked[place] not in chosen.values():
            chosen[label] = ranked[place]
    return chosen


def draw_comparison(benchmark: Benchmark, folder: Path, protocol: str) -> Image.Image:
    """One row per example of [`choose_examples`]: the photo with its box, the true alpha and the matte.

    Args:
        benchmark: what was measured.
        folder: `<out>/<method>/box` of an evaluation with saved mattes, by a protocol that measures single objects.
        protocol: its name; ranks by the protocol's headline.

    Raises:
        ValueError: there are no results, or no mattes.
    """
    measure, higher_is_better = PROTOCOLS[protocol].headline
    results = ResultFolder(folder, save_mattes=True)
    scores: dict[str, float] = {}
    for sample in benchmark.samples:
        part = results.read(sample.name)
        for name, row in zip(part["targets"], part["rows"], strict=True) if part else ():
            scores[name] = row[measure]
    if not scores:
        raise ValueError(f"{folder} holds no results of this benchmark.")
    chosen = choose_examples(scores, higher_is_better)
    rows = [
        (f"{label}: {name}, {measure} {format_figure(scores[name])}", _draw_object(benchmark, results, name))
        for label, name in chosen.items()
    ]
    return _assemble(rows)


def _draw_object(benchmark: Benchmark, results: ResultFolder, name: str) -> list[Image.Image]:
    sample = next(sample for sample in benchmark.samples if any(target.name == name for target in sample.targets))
    photo = read_image(sample.image, sample.name)
    size = (photo.height, photo.width)
    mattes = [read_matte(target.alpha, target.name, size) for target in sample.targets]
    asked = next(each for each in ask(sample, mattes, "box", PromptRules())[0] if each.target.name == name)
    path = results.mattes / f"{name}.png"
    if not path.is_file():
        raise ValueError(f"{path} is not there: evaluate with saved mattes.")
    width = max(2, round(max(photo.size) / 150))
    x0, y0, x1, y1 = asked.box
    ImageDraw.Draw(photo).rectangle([x0, y0, x1 - 1, y1 - 1], outline="red", width=width)
    return [photo, *(Image.fromarray(matte).convert("RGB") for matte in (asked.alpha, read_matte(path, name, size)))]


def _assemble(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
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
    """One below the other."""
    sheet = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), BACKGROUND)
    for top, picture in zip(np.cumsum([0, *(each.height for each in pictures[:-1])]), pictures, strict=True):
        sheet.paste(picture, (0, int(top)))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    data = BytesIO()
    picture.save(data, "JPEG", quality=85)
    write_bytes(path, data.getvalue())
