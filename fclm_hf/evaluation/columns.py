"""Data sets without a known layout: rows of images, mattes and prompts, in columns that the user names.

A row is an image with one or several objects. If there are several, alpha is a list, and so are text, cls, box, point
and trimap if the row has them.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.sources.image_folders import index_images
from ..data.sources.retry import ResumableReader, RetryPolicy, choose_retry_policy
from ..utils.files import join_inside
from .layouts import Benchmark
from .samples import EvaluationSample, Target


REQUIRED = ("image", "alpha")
OPTIONAL = ("id", "text", "cls", "box", "point", "trimap")
ROLES = (*REQUIRED, *OPTIONAL)
FILES = ("image", "alpha", "trimap")
NUMBERS = {"box": 4, "point": 2}
TABLES = ("metadata.jsonl", "metadata.csv")


def open_rows(data: str, columns: Mapping[str, str], split: str | None, config_name: str | None) -> Benchmark:
    """Open a data set of rows.

    Args:
        data: A Hub id; or a folder with metadata.jsonl or metadata.csv (whose cells hold file names), with Parquet
            files, or with one subfolder of images per role, whose files have matching names.
        columns: Role to column or subfolder. The roles are image, alpha, id, text, cls, box, point and trimap; a role
            that is not given is the column of the same name, if there is one.
        split: Split as `datasets.load_dataset` takes it; "test" by default.
        config_name: Configuration as `datasets.load_dataset` takes it.

    Returns:
        The benchmark, with layout "columns" and protocol "matting".

    Raises:
        ValueError: If the data set cannot be opened, or a column does not exist; the error lists those that do.
    """
    folder = Path(data)
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is not None:
        _check_no_split(data, split, config_name)
        rows: list[dict[str, Any]] = _read_table(table)
        names = dict.fromkeys(name for row in rows for name in row)
        found = _match_columns(columns, names, str(table))
        return Benchmark("columns", "matting", _TableSamples(rows, found, folder), len(rows))
    subfolders = {role: folder / columns.get(role, role) for role in FILES}
    if subfolders["image"].is_dir() and subfolders["alpha"].is_dir():
        _check_no_split(data, split, config_name)
        samples = _read_subfolders(subfolders)
        return Benchmark("columns", "matting", samples, len(samples))
    if folder.is_dir() and not any(folder.glob("**/*.parquet")):
        children = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise ValueError(
            f"data: {data} must contain a known benchmark, {' or '.join(TABLES)}, Parquet files, or folders named"
            f" {subfolders['image'].name!r} for image and {subfolders['alpha'].name!r} for alpha (name others with"
            f" columns). Folders found: {', '.join(children) or 'none'}."
        )
    return _open_stream(data, columns, split, config_name)


def _open_stream(data: str, columns: Mapping[str, str], split: str | None, config_name: str | None) -> Benchmark:
    """Open a data set of the Hub, or Parquet files, for streaming."""
    import datasets

    retry = choose_retry_policy()
    try:
        stream = retry.run(
            lambda: datasets.load_dataset(data, config_name, split=split or "test", streaming=True), f"Opening {data}"
        )
        features = stream.features or retry.run(lambda: next(iter(stream.take(1)), {}), f"Reading {data}")
    except Exception as error:  # the Hub, the network and the loaders raise many types
        raise ValueError(f"data: {data} cannot be opened: {error}") from error
    found = _match_columns(columns, features, data)
    if stream.features:
        stream = stream.decode(False)
    info = stream.info.splits or {}
    length = info[stream.split].num_examples if stream.split in info else None
    return Benchmark("columns", "matting", _TableSamples(_StreamedRows(stream, data, retry), found, None), length)


class _StreamedRows:
    """Rows of a stream in order, each exactly once even if connections are lost; can be iterated several times."""

    def __init__(self, stream: Any, label: str, retry: RetryPolicy) -> None:
        self.stream, self.label, self.retry = stream, label, retry

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(ResumableReader(self.stream, self.label, self.retry).read, None)


class _TableSamples:
    """Samples made from rows while they are read; can be iterated several times."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: dict[str, str], folder: Path | None) -> None:
        self.rows, self.columns, self.folder = rows, columns, folder

    def __iter__(self) -> Iterator[EvaluationSample]:
        for index, row in enumerate(self.rows):
            values = {role: row.get(column) for role, column in self.columns.items()}
            yield make_sample(values, index, self.folder)


def make_sample(values: Mapping[str, Any], index: int, folder: Path | None) -> EvaluationSample:
    """Make the sample of a row.

    Args:
        values: Values of the row by role.
        index: Number of the row.
        folder: Folder to which file names in cells are relative; None if cells hold images.

    Raises:
        ValueError: If a cell is missing or invalid, or lists in the row differ in length.
    """
    name = str(values.get("id") or _find_stem(values["image"]) or f"{index:06d}")
    name = re.sub(r"[/\\:]", "_", name)
    several = isinstance(values["alpha"], list)
    per_object = {role: value for role, value in values.items() if role not in ("image", "id")}
    count = len(values["alpha"]) if several else 1
    for role, value in per_object.items():
        if not several:
            per_object[role] = [value]
        elif value is None:
            per_object[role] = [None] * count
        elif not isinstance(value, list) or len(value) != count:
            raise ValueError(
                f"data: row {index} ({name}): {role} must be a list with one item for each of the {count} mattes,"
                f" got {value!r}."
            )
    targets = []
    for number in range(count):
        fields = {role: _load_cell(role, items[number], folder, f"row {index}") for role, items in per_object.items()}
        targets.append(Target(f"{name}/{number:02d}" if several else name, **fields))
    return EvaluationSample(name, _load_cell("image", values["image"], folder, f"row {index}"), tuple(targets))


def _load_cell(role: str, cell: Any, folder: Path | None, place: str) -> Any:
    """Convert a cell to the value of a sample or target."""
    if cell is None or cell == "":
        if role in REQUIRED:
            raise ValueError(f"data: {place} has no {role}.")
        return None
    if role in FILES:
        is_name = folder is not None and isinstance(cell, str)
        return join_inside(folder, cell, f"data: {place}: {role}") if is_name else cell
    if role in NUMBERS:
        numbers = cell.replace(",", " ").split() if isinstance(cell, str) else cell
        try:
            values = tuple(float(number) for number in numbers)
        except (TypeError, ValueError) as error:
            raise ValueError(f"data: {place}: {role} must be {NUMBERS[role]} finite numbers, got {cell!r}.") from error
        if len(values) != NUMBERS[role] or not all(map(math.isfinite, values)):
            raise ValueError(f"data: {place}: {role} must be {NUMBERS[role]} finite numbers, got {cell!r}.")
        return values
    return str(cell)


def _find_stem(image: Any) -> str | None:
    """Return the name of an image file without suffix, if the cell has one."""
    path = image.get("path") if isinstance(image, Mapping) else image
    return Path(path).stem if isinstance(path, str) else None


def _read_table(path: Path) -> list[dict[str, Any]]:
    """Read the rows of metadata.csv or metadata.jsonl."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
            table = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, filter(str.strip, file))
            rows = list(table)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"data: {path} cannot be read: {error}") from error
    if not rows:
        raise ValueError(f"data: {path} has no rows.")
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"data: {path} must have one JSON object per line, from column to cell.")
    return rows


def _check_no_split(data: str, split: str | None, config_name: str | None) -> None:
    """Raise a ValueError for arguments that only Hub and Parquet data sets have."""
    for name, value in (("split", split), ("config_name", config_name)):
        if value is not None:
            raise ValueError(f"{name} must be None for the folder {data}, got {value!r}.")


def _match_columns(columns: Mapping[str, str], found: Mapping[str, Any], data: str) -> dict[str, str]:
    """Return the column of each role that the data set has."""
    matched = {role: columns.get(role, role) for role in ROLES if role in columns or role in REQUIRED or role in found}
    if missing := [f"{column!r} for {role}" for role, column in matched.items() if column not in found]:
        raise ValueError(
            f"columns: {data} has no column {', '.join(missing)}. Columns found: {', '.join(found) or 'none'}."
        )
    return matched


def _read_subfolders(folders: dict[str, Path]) -> list[EvaluationSample]:
    """Match the images in the subfolders of each role by their names."""
    files = {role: index_images(folder) for role, folder in folders.items()}
    if unmatched := sorted(files["image"].keys() ^ files["alpha"].keys()):
        raise ValueError(
            f"data: {folders['image']} and {folders['alpha']} must have files of the same names, got"
            f" {len(unmatched)} without a match, the first is {unmatched[0]}."
        )
    return [
        EvaluationSample(stem, path, (Target(stem, files["alpha"][stem], trimap=files["trimap"].get(stem)),))
        for stem, path in files["image"].items()
    ]
