"""Inference of the app: the pipeline's mattes, from photos that are encoded once, within limits."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from app_photos import save_checkpoint, save_photos
from PIL import Image
from transformers import pipeline

import fclm_hf
from fclm_hf.app import engine as module
from fclm_hf.app.engine import Engine, RecentlyUsed, explain
from fclm_hf.refinement_fclm import settle


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> Engine:
    return Engine([str(checkpoint)], device="cpu")


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """A trimap whose left part is the object."""
    columns = np.indices((40, 50))[1]
    path = tmp_path / "mask.png"
    Image.fromarray(np.select([columns < 10, columns < 20], [255, 128], 0).astype(np.uint8)).save(path)
    return path


def count_encodings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that grows with each photo that is encoded."""
    sizes, model = [], engine.load().model
    encode = model.get_image_embeddings

    def record(pixel_values: torch.Tensor, *args: object, **kwargs: object) -> object:
        sizes.append(tuple(pixel_values.shape))
        return encode(pixel_values, *args, **kwargs)

    monkeypatch.setattr(model, "get_image_embeddings", record)
    return sizes


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"text": "a cat"},
        {"text": ["a cat", None], "input_boxes": [None, [5, 5, 30, 30]]},
        {"input_points": [[[10, 20], [30, 5]], [[3, 4]]], "input_labels": [[1, 0], [1]]},
        {"input_points": [[10, 20]], "input_boxes": [[0, 0, 50, 40]]},
        {"text": []},
    ],
)
def test_mattes_are_those_of_the_pipeline(loaded: Engine, checkpoint: Path, photos: list[Path], prompts: dict) -> None:
    results = loaded.matte(photos[0], prompts)
    expected = pipeline("referring-matting", model=str(checkpoint), device="cpu")(photos[0], **prompts)
    expected = [expected] if isinstance(expected, dict) else expected
    assert len(results) == len(expected)
    for mine, other in zip(results, expected, strict=True):
        assert torch.equal(mine["predicted_alpha"], other["predicted_alpha"])
        np.testing.assert_array_equal(np.asarray(mine["cutout"]), np.asarray(other["cutout"]))


def test_a_mask_is_a_prompt(loaded: Engine, checkpoint: Path, photos: list[Path], mask: Path) -> None:
    result = loaded.matte(photos[0], {"input_masks": [mask]})[0]
    assert (result["predicted_alpha"][:, :10] == 1).all()
    assert (result["predicted_alpha"][:, 20:] == 0).all()
    expected = pipeline("referring-matting", model=str(checkpoint), device="cpu")(photos[0], input_masks=mask)
    assert torch.equal(result["predicted_alpha"], expected["predicted_alpha"])
    with pytest.raises(ValueError, match=r"The mask must have the size of the photo, 40 x 25 pixels, got 50 x 40\."):
        loaded.matte(photos[1], {"input_masks": [mask]})


def test_the_second_look_is_that_of_the_pipeline(
    checkpoint: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine([str(checkpoint)], device="cpu")
    pipe = engine.load()
    monkeypatch.setattr(pipe.model.config, "encoder_size", 28)  # the photos are larger
    monkeypatch.setattr(pipe.model.config, "refinement_size", 84)
    prompts = {"input_boxes": [[5, 5, 30, 30], [0, 0, 50, 20]]}
    first_look, second_look = pipe(photos[0], **prompts, refine=False), pipe(photos[0], **prompts)
    for mine, other, first in zip(engine.matte(photos[0], prompts), second_look, first_look, strict=True):
        assert torch.equal(mine["predicted_alpha"], other["predicted_alpha"])
        assert not torch.allclose(mine["predicted_alpha"], settle(first["predicted_alpha"]))


def test_a_photo_is_encoded_once(
    checkpoint: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine([str(checkpoint)], device="cpu")
    sizes = count_encodings(engine, monkeypatch)
    for text in ("cat", "dog"):
        engine.matte(photos[0], {"text": text})
    engine.matte(shutil.copy(photos[0], tmp_path / "again.png"), {})
    assert len(sizes) == engine.num_encoded == 1
    engine.matte(photos[1], {})
    assert len(sizes) == engine.num_encoded == 2


def test_memory_for_photos_is_bounded(checkpoint: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([str(checkpoint)], device="cpu", cache_bytes=1)
    sizes = count_encodings(engine, monkeypatch)
    for photo in (photos[0], photos[0], photos[1], photos[0]):
        engine.matte(photo, {})
        assert engine.num_encoded == 1
    assert len(sizes) == 3


def test_photos_that_nobody_uses_are_dropped(
    checkpoint: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    engine = Engine([str(checkpoint)], device="cpu", max_idle=10)
    for now, photo, kept in ((0, 0, 1), (8, 1, 2), (9, 0, 2), (18.5, 0, 1), (28, 0, 1)):
        clock[0] = now
        engine.encode(photos[photo])
        assert engine.num_encoded == kept
    clock[0] = 38.5
    engine.drop_idle()
    assert engine.num_encoded == 0


def test_the_size_of_an_encoded_photo_counts_its_pixels_and_embeddings(loaded: Engine, photos: list[Path]) -> None:
    encoded = loaded.encode(photos[0])
    assert encoded.num_bytes > 50 * 40 * 3 + encoded.embeddings.detail_basis.nbytes


def test_recently_used_values_stay() -> None:
    cache: RecentlyUsed[str] = RecentlyUsed(max_size=3, max_idle=100)
    for key, size in (("a", 1), ("b", 1), ("c", 1)):
        cache.put(key, key.upper(), size)
    cache.get("a")
    cache.put("d", "D", 2)
    assert [cache.get(key) for key in "abcd"] == ["A", None, None, "D"]
    assert cache.size == 3
    cache.put("e", "E", 9)  # larger than all that may be kept, and in use
    assert (len(cache), cache.get("e")) == (1, "E")


def test_limits_on_files_and_pixels(checkpoint: Path, photos: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"^first.png is too large: 0 MB exceed the limit of 0 MB\.$"):
        Engine([str(checkpoint)], device="cpu", max_bytes=100).matte(photos[0], {})
    with pytest.raises(ValueError, match="too many pixels: 50 x 40 exceeds the limit of 1999"):
        Engine([str(checkpoint)], device="cpu", max_pixels=1999).matte(photos[0], {})


def test_files_that_are_no_photos(loaded: Engine, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:300])
    with pytest.raises(ValueError, match="is not an image that PIL can read") as caught:
        loaded.matte(broken, {})
    assert str(tmp_path) not in explain(caught.value, broken)
    assert "broken.png" in explain(caught.value, broken)
    with pytest.raises(ValueError, match="no longer here: upload it again"):
        loaded.matte(tmp_path / "gone.png", {})


def test_unknown_prompts(loaded: Engine, photos: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"prompts must have no other keys than text, .*, got box"):
        loaded.matte(photos[0], {"box": [1, 2, 3, 4]})


def test_models_are_offered_or_named(checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="models must name at least one checkpoint"):
        Engine([])
    closed = Engine([str(checkpoint)], device="cpu")
    with pytest.raises(ValueError, match=f"model must be one of {checkpoint}, got 'fclm-lite'"):
        closed.matte(photos[0], {}, model="fclm-lite")
    other = save_checkpoint(tmp_path / "other")
    opened = Engine([str(checkpoint)], allow_other_models=True, device="cpu")
    assert opened.load(str(other)) is not opened.load()
    assert opened.load(f" {other} ") is opened.load(str(other))
    with pytest.raises(ValueError, match=r"must contain config.json"):
        opened.load(str(tmp_path))


@pytest.mark.skipif(not Path(fclm_hf.LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there")
def test_the_embedded_checkpoint_has_a_name() -> None:
    assert Engine(device="cpu").load("fclm-lite").model.config.encoder_size == 256


def test_pickled_weights_are_not_loaded(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"must contain model\.safetensors"):
        Engine([str(folder)], device="cpu").load()


def test_only_a_few_models_stay_in_memory(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    engine = Engine([str(number) for number in range(5)], device="cpu")
    monkeypatch.setattr(engine, "_load", lambda name: loads.append(name) or object())
    for name in ("0", "1", "2", "0", "3", "0", "1"):
        engine.load(name)
    assert loads == ["0", "1", "2", "3", "1"]
