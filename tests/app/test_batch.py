"""Many photos at once: the archive, and photos that cannot be read."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from app_photos import save_checkpoint, save_photos
from PIL import Image

from fclm_hf.app.batch import MAX_FILES, write_batch
from fclm_hf.app.engine import Engine
from fclm_hf.app.pictures import Style


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine([str(save_checkpoint(tmp_path_factory.mktemp("checkpoint")))], device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return save_photos(tmp_path)


def read_archive(path: Path) -> dict[str, Image.Image]:
    with zipfile.ZipFile(path) as archive:
        return {name: Image.open(BytesIO(archive.read(name))) for name in archive.namelist()}


def test_each_photo_gives_a_file(engine: Engine, photos: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again" / "first.jpg"
    again.parent.mkdir()
    Image.open(photos[0]).save(again)
    seen = []
    failures = write_batch(
        engine, [*photos, again], tmp_path / "out.zip", {"text": "cat"}, Style(), report=lambda *each: seen.append(each)
    )
    assert failures == {}
    assert seen == [(0, 3), (1, 3), (2, 3)]
    pictures = read_archive(tmp_path / "out.zip")
    assert list(pictures) == ["first_cutout.png", "second_cutout.png", "first_cutout-2.png"]
    for photo, picture in zip(photos, pictures.values(), strict=False):
        expected = engine.matte(photo, {"text": "cat"})[0]["cutout"]
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


def test_a_bad_photo_does_not_stop_the_others(engine: Engine, photos: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    failures = write_batch(engine, [bad, *photos], tmp_path / "out.zip", {}, Style("Matte"))
    assert list(failures) == ["bad.jpg"]
    assert failures["bad.jpg"].startswith("bad.jpg is not an image that PIL can read")
    assert {picture.mode for picture in read_archive(tmp_path / "out.zip").values()} == {"L"}
    with pytest.raises(ValueError, match=r"None of 1 photos could be matted\. bad\.jpg: .*bad\.jpg is not an image"):
        write_batch(engine, [bad], tmp_path / "out.zip", {}, Style())


def test_the_number_of_photos_is_limited(engine: Engine, photos: list[Path], tmp_path: Path) -> None:
    for given in ([], [photos[0]] * (MAX_FILES + 1)):
        with pytest.raises(ValueError, match=f"A batch must have 1 to {MAX_FILES} photos, got {len(given)}"):
            write_batch(engine, given, tmp_path / "out.zip", {}, Style())
