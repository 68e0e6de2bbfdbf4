"""Small data sets in the layouts that Hub data sets come in, and image files of awkward and broken kinds."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_cutout(number: int, side: int = 16) -> Image.Image:
    """Return a disc whose color encodes its number, 0 to 65,535."""
    rows, columns = np.mgrid[:side, :side]
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = number % 256, number // 256, 128
    pixels[..., 3] = 255 * (np.hypot(rows - side / 2, columns - side / 2) < side / 2.2)
    return Image.fromarray(pixels)


def make_background(number: int, side: int = 24) -> Image.Image:
    """Return a blurred noise image that depends on its number."""
    noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side))


def write_parquet(folder: Path, rows: list[dict], files: int = 1) -> Path:
    """Write consecutive parts of the rows to Parquet files, in row groups of 7."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.Table.from_pylist([rows[row] for row in part])
        pq.write_table(table, folder / f"train-{index:03d}-of-{files:03d}.parquet", row_group_size=7)
    return folder


def write_webdataset(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """Write a tar file with one entry per sample and extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, fields in samples:
            for extension, data in fields.items():
                entry = tarfile.TarInfo(f"{key}.{extension}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def write_metadata(folder: Path, rows: list[dict]) -> Path:
    """Write metadata.jsonl, which makes a folder of images a data set."""
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def cutout_rows(count: int) -> list[dict]:
    """Return Parquet rows of numbered cut-outs with different names."""
    return [
        {"image": {"bytes": encode(make_cutout(number)), "path": None}, "name": f"object {number}", "id": number}
        for number in range(count)
    ]


def background_rows(count: int) -> list[dict]:
    """Return Parquet rows of numbered backgrounds."""
    return [
        {"image": {"bytes": encode(make_background(number)), "path": None}, "id": number} for number in range(count)
    ]


def make_png(width: int, height: int, content: bytes = b"") -> bytes:
    """Return a PNG file that declares any size, regardless of its content."""

    def chunk(name: bytes, data: bytes) -> bytes:
        """Return a chunk of a PNG file."""
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
