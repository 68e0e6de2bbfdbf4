"""Rows of a source as decoded samples: cut-out objects, photos with their alphas, backgrounds."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from .decoding import decode_alpha, decode_cutout, decode_photo, read_bytes
from .folders import Foreground
from .invalid_samples import FaultReason, FaultySampleError
from .retry import Backoff
from .source import Source


@dataclass
class Photo:
    """A photo (H, W, 3) uint8 with the visible alpha (H, W) uint8, the names and the expressions of each object.

    Attributes:
        coarse: the alphas are masks: 255 is the object, 0 is not, 128 is unknown.
        instance: per object, whether its alpha is that of one object; None if all are.
        complete: all objects are annotated.
        absent: names of what is not in the photo.
    """

    image: np.ndarray
    alphas: list[np.ndarray]
    names: list[tuple[str, ...]]
    texts: list[tuple[str, ...]]
    coarse: bool = False
    instance: list[bool] | None = None
    complete: bool = True
    absent: tuple[str, ...] = ()


@dataclass
class Sample:
    """What a row holds: [`Foreground`], [`Photo`] or a background (H, W, 3) uint8.

    Attributes:
        key: source and id of the row, for reports.
        checksum: of the encoded image; with the epoch and the run's seed it seeds what is drawn for the sample.
    """

    content: Foreground | Photo | np.ndarray
    key: str
    epoch: int
    checksum: int


def name_row(source: Source, values: dict[str, Any]) -> str:
    """How reports call a row: source and the row's id, the path of its image, or the image's checksum."""
    image = values.get("image")
    identity = values.get("id")
    if identity is None and isinstance(image, dict):
        identity = image.get("path")
    if identity is None and isinstance(image, str):
        identity = image
    if identity is None:
        data = image.get("bytes") if isinstance(image, dict) else image
        identity = f"checksum {zlib.crc32(data or b''):08x}"
    return f"{source.config.label}:{str(identity).removeprefix(source.base + '/')}"


def decode_row(source: Source, values: dict[str, Any], epoch: int, backoff: Backoff) -> Sample:
    """Reads and decodes the images of a row.

    Raises:
        FaultySampleError: an image or alpha cannot be used.
        LostConnectionError: the connection stays down.
    """
    data = read_bytes(values["image"], source.base, backoff)
    kind = source.config.kind
    if kind == "background":
        content = decode_photo(data)
    elif kind == "rgba":
        content = _make_foreground(source, values, data)
    else:
        content = _make_photo(source, values, data, backoff)
    return Sample(content, name_row(source, values), epoch, zlib.crc32(data))


def _make_foreground(source: Source, values: dict[str, Any], data: bytes) -> Foreground:
    colours, alpha = decode_cutout(data)
    names = _list_names(source, values.get("name"), values.get("cls"))
    cut_sides = tuple(map(bool, values.get("cut_sides") or (False,) * 4))
    return Foreground(colours, alpha, names, cut_sides, _list_strings(values.get("text")))


def _make_photo(source: Source, values: dict[str, Any], data: bytes, backoff: Backoff) -> Photo:
    image = decode_photo(data)
    if source.config.kind == "image_alpha":
        cells, names, texts = [values["alpha"]], [values.get("name")], [values.get("text")]
    else:
        cells = values["alphas"] or []
        names = values.get("names") or [None] * len(cells)
        texts = values.get("texts") or [None] * len(cells)
    if not cells:
        raise FaultySampleError(FaultReason.MISSING, "the row holds no alpha")
    instance = values.get("instance")
    unique = values.get("unique") or [True] * len(cells)
    columns = {"alphas": cells, "names": names, "texts": texts, "unique": unique, "instance": instance or cells}
    if len({len(values) for values in columns.values()}) > 1:
        counts = ", ".join(f"{len(values)} {name}" for name, values in columns.items())
        raise FaultySampleError(FaultReason.COUNT_MISMATCH, counts)
    coarse = source.config.mask_quality == "coarse"
    alphas = [decode_alpha(read_bytes(cell, source.base, backoff), image.shape[:2], coarse) for cell in cells]
    own = [_list_names(source, name) for name in names]
    complete = values.get("complete") is not False
    absent = tuple(name for name in source.config.absent_names if not any(name in names for names in own))
    return Photo(
        image,
        alphas,
        [found if alone else () for found, alone in zip(own, unique, strict=True)],
        [_list_strings(text) for text in texts],
        coarse,
        [bool(each) for each in instance] if instance else None,
        complete,
        absent if complete else (),
    )


def _list_names(source: Source, written: str | list[str] | None, cls: str | None = None) -> tuple[str, ...]:
    """The names in a cell and the general ones that go with them, each once."""
    names = _list_strings(written)
    general = (each for key in (*names, cls) for each in source.config.general_names.get(key, ()))
    return tuple(dict.fromkeys((*names, *general)))


def _list_strings(value: str | list[str] | None) -> tuple[str, ...]:
    """What is written in a cell; empty strings do not count."""
    values = [value] if isinstance(value, str) else value or []
    return tuple(text.strip() for text in values if text and text.strip())
