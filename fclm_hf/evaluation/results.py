"""Results on disk. Every file is written atomically, so that an evaluation can be interrupted and resumed."""

import csv
import json
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..utils.files import join_inside, write_bytes, write_json
from ..utils.settings import find_changes


ROW_FORMATS = ("parquet", "csv")
NAMES = "data: the name of a sample or target"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table as Parquet or CSV.

    Args:
        path: File to write; its suffix selects the format.
        rows: Dicts from column to cell, which may lack columns.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".csv":
        text = StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(path, text.getvalue().encode())
        return
    import pyarrow
    from pyarrow import parquet

    data = BytesIO()
    parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), data)
    write_bytes(path, data.getvalue())


class ResultFolder:
    """The results of one method for one kind of prompt: one part per sample, and optionally the mattes.

    The part of a sample is written after its mattes, so a sample with a part has all of them.

    Args:
        path: The folder.
        save_mattes: Whether mattes are saved, so that a part without mattes does not count as done.
    """

    def __init__(self, path: Path, save_mattes: bool) -> None:
        self.path, self.save_mattes = path, save_mattes

    @property
    def mattes(self) -> Path:
        """The folder of the mattes."""
        return self.path / "mattes"

    def has(self, sample: str) -> bool:
        """Return whether the results of a sample are complete."""
        part = self.read(sample)
        return part is not None and (part["mattes_saved"] or not self.save_mattes)

    def read(self, sample: str) -> dict[str, Any] | None:
        """Return the part of a sample, or None if there is none."""
        try:
            return json.loads(self._find_part(sample).read_text())
        except FileNotFoundError:
            return None

    def write(self, sample: str, part: dict[str, Any]) -> None:
        """Write the part of a sample."""
        write_json(self._find_part(sample), {**part, "mattes_saved": self.save_mattes})

    def write_matte(self, name: str, matte: np.ndarray) -> None:
        """Write a matte (uint8 of shape `(height, width)`) as PNG."""
        data = BytesIO()
        Image.fromarray(matte).save(data, "PNG")
        write_bytes(join_inside(self.mattes, f"{name}.png", NAMES), data.getvalue())

    def _find_part(self, sample: str) -> Path:
        """Return the path of the part of a sample."""
        return join_inside(self.path / "parts", f"{sample}.json", NAMES)


def check_settings(path: Path, settings: dict[str, Any], remedy: str) -> None:
    """Write the settings of new results, or check that existing results have the same settings.

    Args:
        path: File of the settings.
        settings: The settings, as values that JSON can represent.
        remedy: Advice at the end of the error.

    Raises:
        ValueError: If existing results have other settings; the error lists the differences.
    """
    if not path.is_file():
        write_json(path, settings)
        return
    before = json.loads(path.read_text())
    now = json.loads(json.dumps(settings))
    if changes := list(find_changes(before, now)):
        raise ValueError(f"{path.parent} holds results of other settings: {'; '.join(changes)}. {remedy}")
