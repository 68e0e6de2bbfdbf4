"""Results on disk. Every file appears whole or not at all, so that a run can stop anywhere and go on later."""

import csv
import json
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..utils.files import write_bytes, write_json
from ..utils.settings import find_changes


ROW_FORMATS = ("parquet", "csv")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table as Parquet or CSV, by the suffix of `path`. Rows may lack columns."""
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
    """What one method gave for one kind of prompt: a part per sample, the mattes that were asked for, rows and summary.

    A part is written last: where there is one, its mattes are whole.
    """

    def __init__(self, path: Path, save_mattes: bool) -> None:
        self.path, self.save_mattes = path, save_mattes

    @property
    def mattes(self) -> Path:
        return self.path / "mattes"

    def has(self, sample: str) -> bool:
        part = self.read(sample)
        return part is not None and (part["mattes_saved"] or not self.save_mattes)

    def read(self, sample: str) -> dict[str, Any] | None:
        try:
            return json.loads(self._find_part(sample).read_text())
        except FileNotFoundError:
            return None

    def write(self, sample: str, part: dict[str, Any]) -> None:
        write_json(self._find_part(sample), {**part, "mattes_saved": self.save_mattes})

    def write_matte(self, name: str, matte: np.ndarray) -> None:
        data = BytesIO()
        Image.fromarray(matte).save(data, "PNG")
        write_bytes(self.mattes / f"{name}.png", data.getvalue())

    def _find_part(self, sample: str) -> Path:
        return self.path / "parts" / f"{sample}.json"


def check_settings(path: Path, settings: dict[str, Any], remedy: str) -> None:
    """Keeps the settings that results were made with, and compares them when a run goes on.

    Raises:
        ValueError: results of other settings are there; names the differences and ends with `remedy`.
    """
    if not path.is_file():
        write_json(path, settings)
        return
    before = json.loads(path.read_text())
    now = json.loads(json.dumps(settings))
    if changes := list(find_changes(before, now)):
        raise ValueError(f"{path.parent} holds results of other settings: {'; '.join(changes)}. {remedy}")
