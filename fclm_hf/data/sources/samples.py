"""Rows of a source as decoded samples: cut-out objects, photos with their alphas, backgrounds."""

import zlib
from typing import Any

from ..types import Foreground, Photo, Sample
from .decoding import decode_alpha, decode_cutout, decode_photo, read_bytes
from .invalid_samples import InvalidReason, InvalidSampleError
from .retry import RetryPolicy
from .source import Source


def find_identity(source: Source, values: dict[str, Any]) -> str | None:
    """Return the id of a row, or else the path of its image relative to the source; None if it has neither."""
    image = values.get("image")
    identity = values.get("id")
    if identity is None and isinstance(image, dict):
        identity = image.get("path")
    if identity is None and isinstance(image, str):
        identity = image
    return None if identity is None else str(identity).removeprefix(f"{source.base}/")


def name_row(source: Source, values: dict[str, Any]) -> str:
    """Return the key of a row in reports: the source, and the row's id, image path or image checksum."""
    identity = find_identity(source, values)
    if identity is None:
        image = values.get("image")
        data = image.get("bytes") if isinstance(image, dict) else image
        identity = f"checksum {zlib.crc32(data or b''):08x}"
    return f"{source.config.label}:{identity}"


def list_cutout_names(source: Source, values: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the cut-out object in a row of kind "rgba", without decoding it."""
    return _list_names(source, values.get("name"), values.get("cls"))


def decode_row(source: Source, values: dict[str, Any], epoch: int, retry: RetryPolicy) -> Sample:
    """Read and decode the images of a row.

    Args:
        source: The source of the row.
        values: Cells by role.
        epoch: Epoch of the row.
        retry: Policy for lost connections.

    Raises:
        InvalidSampleError: If an image or alpha cannot be used.
        LostConnectionError: If the connection stays down.
    """
    data = read_bytes(values["image"], source.base, retry)
    kind = source.config.kind
    if kind == "background":
        content = decode_photo(data)
    elif kind == "rgba":
        content = _make_foreground(source, values, data)
    else:
        content = _make_photo(source, values, data, retry)
    return Sample(content, name_row(source, values), epoch, zlib.crc32(data), source.config.learns_edges)


def _make_foreground(source: Source, values: dict[str, Any], data: bytes) -> Foreground:
    """Return the cut-out object of a row of kind "rgba"."""
    colors, alpha = decode_cutout(data)
    names = list_cutout_names(source, values)
    cut_sides = tuple(map(bool, values.get("cut_sides") or (False,) * 4))
    return Foreground(colors, alpha, names, cut_sides, _list_strings(values.get("text")))


def _make_photo(source: Source, values: dict[str, Any], data: bytes, retry: RetryPolicy) -> Photo:
    """Return the photo of a row with one or several alphas."""
    image = decode_photo(data)
    if source.config.kind == "image_alpha":
        cells, names, texts = [values["alpha"]], [values.get("name")], [values.get("text")]
    else:
        cells = values["alphas"] or []
        names = values.get("names") or [None] * len(cells)
        texts = values.get("texts") or [None] * len(cells)
    if not cells:
        raise InvalidSampleError(InvalidReason.MISSING, "the row has no alpha")
    instance, unique = values.get("instance"), values.get("unique") or [True] * len(cells)
    columns = {"alphas": cells, "names": names, "texts": texts, "unique": unique, "instance": instance or cells}
    if len(set(map(len, columns.values()))) > 1:
        counts = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise InvalidSampleError(InvalidReason.COUNT_MISMATCH, counts)
    is_coarse = source.config.mask_quality == "coarse"
    alphas = [decode_alpha(read_bytes(cell, source.base, retry), image.shape[:2], is_coarse) for cell in cells]
    all_names = [_list_names(source, name) for name in names]
    is_complete = values.get("complete") is not False
    return Photo(
        image,
        alphas,
        names=[own if is_unique else () for own, is_unique in zip(all_names, unique, strict=True)],
        texts=[_list_strings(text) for text in texts],
        is_coarse=is_coarse,
        instance=[bool(each) for each in instance] if instance else None,
        is_complete=is_complete,
        absent_names=_list_absent(source, all_names) if is_complete else (),
        region_names=all_names,
    )


def _list_absent(source: Source, names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names that a photo lacks; none shares a word with one that it has, as "bear" and "teddy bear" do."""
    words = {word for own in names for name in own for word in name.split()}
    return tuple(name for name in source.config.absent_names if not words.intersection(name.split()))


def _list_names(source: Source, written: str | list[str] | None, cls: str | None = None) -> tuple[str, ...]:
    """Return the names in a cell and the general names of the object, each once."""
    names = _list_strings(written)
    general = (each for key in (*names, cls) for each in source.config.general_names.get(key, ()))
    return tuple(dict.fromkeys((*names, *general)))


def _list_strings(value: str | list[str] | None) -> tuple[str, ...]:
    """Return the non-empty strings in a cell."""
    values = [value] if isinstance(value, str) else value or []
    return tuple(text.strip() for text in values if text and text.strip())
