"""Contact sheets of mattes next to the photo and the true alpha, worst first; used by evaluate_real_photos.py."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fclm_hf.evaluation.prompts import PromptedTarget


ROWS_PER_SHEET = 12
CELL = (224, 168)  # width, height
CAPTION = 14
GAP = 4
BACKGROUND = (64, 64, 96)


@dataclass
class Row:
    """Mattes of one object: thumbnails by column, and scores by kind of prompt or baseline."""

    name: str
    has_box: bool
    thumbnails: dict[str, Image.Image]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def badness(self) -> float:
        """The mean SAD, or the mean negative IoU."""
        values = [score["sad"] if "sad" in score else -score["iou"] for score in self.scores.values()]
        return sum(values) / len(values)


class ContactSheets:
    """Collects mattes and writes them as `<stem>_01.png`, `<stem>_02.png`, ...

    Objects without a box or click (all objects of a photo as one) are on separate sheets, `<stem>_automatic_01.png`,
    with a single column of mattes.

    Args:
        folder: Folder of the sheets.
        stem: Prefix of the file names.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem
        self.rows: dict[str, Row] = {}

    def add(
        self, image: Image.Image, prompted: PromptedTarget, column: str, alpha: np.ndarray, scores: dict[str, float]
    ) -> None:
        """Add the matte that a kind of prompt or a baseline gave: float (height, width) in [0, 1]."""
        target = prompted.target
        if target.name not in self.rows:
            thumbnails = {
                "photo": shrink(draw_prompts(image, target.box, target.point)),
                "truth": shrink(Image.fromarray(prompted.alpha)),
            }
            name = f"{target.name} {target.cls or ''}".strip()
            self.rows[target.name] = Row(name, target.box is not None, thumbnails)
        row = self.rows[target.name]
        row.thumbnails[column] = shrink(Image.fromarray(np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)))
        row.scores[column] = scores

    def write(self, columns: list[str]) -> list[Path]:
        """Write all sheets, with those of the columns that any object has; return their paths."""
        paths = []
        for stem, has_box in ((self.stem, True), (f"{self.stem}_automatic", False)):
            rows = sorted(
                (row for row in self.rows.values() if row.has_box == has_box), key=lambda row: row.badness, reverse=True
            )
            used = [column for column in columns if any(column in row.scores for row in rows)]
            for page, start in enumerate(range(0, len(rows), ROWS_PER_SHEET), 1):
                self.folder.mkdir(parents=True, exist_ok=True)
                paths.append(self.folder / f"{stem}_{page:02d}.png")
                draw_sheet(rows[start : start + ROWS_PER_SHEET], used).save(paths[-1])
        return paths


def draw_sheet(rows: list[Row], columns: list[str]) -> Image.Image:
    """Return a sheet with a row per object: photo, true alpha and one matte per column."""
    width, height = CELL[0] + GAP, CELL[1] + CAPTION + GAP
    sheet = Image.new("RGB", ((2 + len(columns)) * width, len(rows) * height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        captions = {"photo": row.name, "truth": "truth"}
        for column, scores in row.scores.items():
            captions[column] = f"{column}  " + "  ".join(f"{key} {value:.4g}" for key, value in scores.items())
        for index, column in enumerate(["photo", "truth", *columns]):
            if column in row.thumbnails:
                left, top = index * width, number * height
                draw.text((left, top), captions[column], fill="white")
                sheet.paste(row.thumbnails[column], (left, top + CAPTION))
    return sheet


def draw_prompts(
    image: Image.Image, box: tuple[float, ...] | None = None, point: tuple[float, ...] | None = None
) -> Image.Image:
    """Return a copy of the photo with the box (x0, y0, x1, y1) in red and the click (x, y) in green."""
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    width = max(2, round(max(image.size) / 200))
    if box is not None:
        draw.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline="red", width=width)
    if point is not None:
        draw.circle(point, 2 * width, fill="lime", outline="black")
    return copy


def shrink(image: Image.Image) -> Image.Image:
    """Return a copy that fits into a cell."""
    copy = image.copy()
    copy.thumbnail(CELL)
    return copy
