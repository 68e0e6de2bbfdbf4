"""The pipeline: what it takes and gives, and that batches, chunks and precision do not change the result."""

import json
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_files import make_photo, serve, write_awkward_photos, write_truncated
from PIL import Image
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from fclm_hf import LITE_CHECKPOINT, ReferringMattingPipeline, image_utils_fclm, pipeline_fclm


TOLERANCE = 3e-6  # float32 rounding: sums over other shapes run in another order
BOX, OTHER_BOX = [5, 5, 30, 35], [20.5, 0, 50, 40]


@pytest.fixture(scope="module")
def pipe() -> ReferringMattingPipeline:
    return pipeline("referring-matting", model=tiny_model(), processor=tiny_processor(), device="cpu")


@pytest.fixture(scope="module")
def checkpoint(pipe: ReferringMattingPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    pipe.save_pretrained(folder)
    return folder


def predict_directly(pipe: ReferringMattingPipeline, image: Image.Image, **prompts: Any) -> torch.Tensor:
    inputs = pipe.processor(images=image, **prompts)
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        return pipe.processor.post_process_image_matting(pipe.model(**inputs), sizes)[0]["alpha"]


def list_objects(result: Any) -> list[dict[str, Any]]:
    return [result] if isinstance(result, dict) else result


@pytest.mark.parametrize(
    ("prompts", "nested"),
    [
        ({}, {}),
        ({"text": "a cat"}, {"text": [["a cat"]]}),
        ({"text": ["a cat"]}, {"text": [["a cat"]]}),
        ({"text": ["a cat", "dog"]}, {"text": [["a cat", "dog"]]}),
        ({"input_boxes": BOX}, {"input_boxes": [[BOX]]}),
        ({"input_boxes": [BOX]}, {"input_boxes": [[BOX]]}),
        ({"input_boxes": np.array([BOX, OTHER_BOX])}, {"input_boxes": [[BOX, OTHER_BOX]]}),
        ({"input_boxes": torch.tensor([[BOX]])}, {"input_boxes": [[BOX]]}),
        ({"input_points": [9, 8]}, {"input_points": [[[[9, 8]]]]}),
        (
            {"input_points": [[9, 8], [40, 30]], "input_labels": [1, 0]},
            {"input_points": [[[[9, 8], [40, 30]]]], "input_labels": [[[1, 0]]]},
        ),
        (
            {"input_points": [[[9, 8]], [[40, 30]]], "input_labels": [[1], [0]]},
            {"input_points": [[[[9, 8]], [[40, 30]]]], "input_labels": [[[1], [0]]]},
        ),
        (
            {"text": ["a cat", None], "input_boxes": [None, BOX]},
            {"text": [["a cat", None]], "input_boxes": [[None, BOX]]},
        ),
    ],
)
def test_prompts(pipe: ReferringMattingPipeline, prompts: dict[str, Any], nested: dict[str, Any]) -> None:
    """One object gives a dict, several give a list; each is what processor and model give."""
    expected = predict_directly(pipe, make_photo(), **nested)
    result = pipe(make_photo(), **prompts)
    assert isinstance(result, dict if len(expected) == 1 else list)
    for one, alpha in zip(list_objects(result), expected, strict=True):
        assert set(one) == {"alpha", "predicted_alpha", "cutout"}
        assert one["predicted_alpha"].shape == (40, 50)
        assert one["predicted_alpha"].dtype == torch.float32
        torch.testing.assert_close(one["predicted_alpha"], alpha, atol=TOLERANCE, rtol=0)
        assert (one["alpha"].mode, one["alpha"].size) == ("L", (50, 40))
        np.testing.assert_array_equal(np.asarray(one["alpha"]), (one["predicted_alpha"] * 255).round().numpy())
        assert (one["cutout"].mode, one["cutout"].size) == ("RGBA", (50, 40))
        np.testing.assert_array_equal(np.asarray(one["cutout"])[..., 3], np.asarray(one["alpha"]))
    assert set(pipe(make_photo(), cutout=False)) == {"alpha", "predicted_alpha"}


def make_samples() -> list[Any]:
    samples: list[Any] = [{"image": make_photo(30 + i % 3 * 40, 40, i), "input_points": [[1, 2]] * i} for i in (1, 2)]
    samples += [make_photo(70, 40, 3), {"image": make_photo(70, 40, 4), "text": ["low", "lower owl"]}]
    samples += [{"image": make_photo(70, 40, 5 + i), "input_boxes": [[1, 2, 20, 30]] * (i + 1)} for i in range(3)]
    samples += [{"image": make_photo(70, 40, 8), "text": "er", "input_points": [3, 4], "input_labels": 0}]
    return [*samples, make_photo(33, 90), {"image": make_photo(20, 20), "input_boxes": [0, 0, 20, 20], "text": None}]


@pytest.fixture(scope="module")
def alone(pipe: ReferringMattingPipeline) -> list[Any]:
    return [pipe(sample, cutout=False) for sample in make_samples()]


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_batches_equal_one_by_one(pipe: ReferringMattingPipeline, alone: list[Any], batch_size: int) -> None:
    batched = list(pipe((sample for sample in make_samples()), batch_size=batch_size, cutout=False))
    assert len(batched) == len(alone) == 10
    for result, expected in zip(batched, alone, strict=True):
        assert type(result) is type(expected)
        for one, other in zip(list_objects(result), list_objects(expected), strict=True):
            torch.testing.assert_close(one["predicted_alpha"], other["predicted_alpha"], atol=TOLERANCE, rtol=0)


def test_containers(pipe: ReferringMattingPipeline, checkpoint: Path) -> None:
    photos = [make_photo(seed=seed) for seed in range(3)]
    expected = [result["alpha"].tobytes() for result in pipe(photos, cutout=False)]

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: int) -> Image.Image:
            return photos[index]

    for images in (tuple(photos), iter(photos), map(Image.Image.copy, photos), Photos(), np.stack(photos)):
        assert [result["alpha"].tobytes() for result in pipe(images, cutout=False, batch_size=2)] == expected
    file = BytesIO()
    photos[0].save(file, "PNG")
    file.seek(0)
    assert pipe(file, cutout=False)["alpha"].tobytes() == expected[0]  # one image, though it is iterable
    assert pipe([]) == []
    assert len(pipe([photos[0]])) == 1  # a list in, a list out
    preset = pipeline("referring-matting", model=str(checkpoint), text="cat", cutout=False)
    assert preset(photos[0])["alpha"].tobytes() == pipe(photos[0], text="cat")["alpha"].tobytes()


def test_own_prompts_come_before_those_of_the_call(pipe: ReferringMattingPipeline) -> None:
    mine, theirs = pipe([{"image": make_photo(), "input_boxes": BOX}, make_photo()], input_boxes=[OTHER_BOX])
    torch.testing.assert_close(mine["predicted_alpha"], pipe(make_photo(), input_boxes=BOX)["predicted_alpha"])
    assert not torch.equal(mine["predicted_alpha"], theirs["predicted_alpha"])
    torch.testing.assert_close(theirs["predicted_alpha"], pipe(make_photo(), input_boxes=OTHER_BOX)["predicted_alpha"])


def test_objects_share_one_encoding(pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, forward = pipe.model.get_image_embeddings, pipe.model.forward
    calls: list[str] = []
    monkeypatch.setattr(pipe.model, "get_image_embeddings", lambda *a, **k: calls.append("encode") or encode(*a, **k))
    monkeypatch.setattr(pipe.model, "forward", lambda *a, **k: calls.append("decode") or forward(*a, **k))
    boxes = [[i, i, i + 20, i + 15] for i in range(7)]
    together = pipe(make_photo(), input_boxes=boxes)
    assert calls == ["encode", "decode"]
    calls.clear()
    by_three = pipe(make_photo(), input_boxes=boxes, objects_per_pass=3)
    assert calls == ["encode", *["decode"] * 3]
    for one, other in zip(together, by_three, strict=True):
        torch.testing.assert_close(one["predicted_alpha"], other["predicted_alpha"], atol=TOLERANCE, rtol=0)


def test_a_photo_is_opened_and_converted_once(
    pipe: ReferringMattingPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("_decode", "_simplify_mode"):
        function = getattr(image_utils_fclm, name)
        monkeypatch.setattr(
            image_utils_fclm, name, lambda *args, n=name, function=function: calls.append(n) or function(*args)
        )
    make_photo().convert("RGBA").save(tmp_path / "photo.png")
    pipe(tmp_path / "photo.png", input_boxes=BOX)
    assert calls == ["_decode", "_simplify_mode"]


def test_only_pixels_are_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline("referring-matting", model=tiny_model().bfloat16(), processor=tiny_processor(), device="cpu")
    forward, seen = pipe.model.forward, {}
    monkeypatch.setattr(pipe.model, "forward", lambda **kwargs: seen.update(kwargs) or forward(**kwargs))
    result = pipe(make_photo(600, 400), input_points=[[301.0, 257.0]])
    assert seen["input_points"].tolist() == [[[[301.0, 257.0]]]]  # bfloat16 would make 300 and 256 of it
    assert seen["image_embeddings"].coarse_map.dtype == torch.bfloat16
    assert result["predicted_alpha"].dtype == torch.float32


def test_awkward_files(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    sizes = write_awkward_photos(tmp_path)
    results = pipe([str(tmp_path / name) for name in sizes], batch_size=4)
    for (name, size), result in zip(sizes.items(), results, strict=True):
        assert result["alpha"].size == result["cutout"].size == size, name
        assert torch.isfinite(result["predicted_alpha"]).all()
    upright = make_photo().rotate(-90, expand=True)
    rotated = pipe(tmp_path / "rotated.jpg", text="low")["predicted_alpha"]
    assert (rotated - pipe(upright, text="low")["predicted_alpha"]).abs().mean() < 0.05  # JPEG noise
    kept = {name for name, result in zip(sizes, results, strict=True) if "icc_profile" in result["cutout"].info}
    assert kept == {"profile.png"}


def test_urls(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    for name in ("photo.png", "slow.png"):
        make_photo().save(tmp_path / name)
    with serve(tmp_path) as address:
        expected = pipe(make_photo())["predicted_alpha"]
        for options in ({}, {"timeout": 5}):
            assert torch.equal(pipe(f"{address}/photo.png", **options)["predicted_alpha"], expected)
        with pytest.raises(ValueError, match=r"slow\.png cannot be downloaded"):
            pipe(f"{address}/slow.png", timeout=0.2)
        with pytest.raises(ValueError, match=r"none\.png cannot be downloaded.*404"):
            pipe(f"{address}/none.png", timeout=5)


def test_errors_name_the_culprit(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    write_truncated(tmp_path / "broken.jpg")
    photo = make_photo()
    for images, prompts, problem in [
        (tmp_path / "broken.jpg", {}, r"broken\.jpg"),
        ([photo, str(tmp_path / "broken.jpg")], {}, r"^inputs\[1\]: .*broken\.jpg"),
        (
            [photo, {"image": photo, "input_boxes": [[0, 0, 99, 9]]}],
            {},
            r"^inputs\[1\]: input_boxes.* outside the image",
        ),
        ({"image": photo, "boxes": [BOX]}, {}, r"Unknown keys \['boxes'\]"),
        ({"text": "cat"}, {}, 'must have the key "image"'),
        (photo, {"input_labels": [1]}, "input_labels must come with input_points"),
        (photo, {"text": ["a", "b"], "input_boxes": [BOX]}, "different numbers of objects"),
        (photo, {"input_boxes": [[[[BOX]]]]}, "must be 4 numbers"),
        (photo, {"text": ""}, "must not be empty"),
        (photo, {"objects_per_pass": 0}, "objects_per_pass must be at least 1"),
        (photo, {"objects_per_pass": "2"}, "objects_per_pass must be at least 1, got '2'"),
    ]:
        with pytest.raises(ValueError, match=problem):
            pipe(images, **prompts)
    for images, prompts, problem in [
        (None, {}, "images must be an image"),
        (photo, {"boxes": [BOX]}, r"Unknown arguments \['boxes'\]"),
        ([photo, object()], {}, r"^inputs\[1\]: image must be"),
    ]:
        with pytest.raises(TypeError, match=problem):
            pipe(images, **prompts)


def test_round_trip(pipe: ReferringMattingPipeline, checkpoint: Path, tmp_path: Path) -> None:
    """Weights are bit-exact, and without `custom_pipelines` in the config: that would ask for trust in remote code."""
    assert "custom_pipelines" not in json.loads((checkpoint / "config.json").read_text())
    first = pipeline("referring-matting", model=str(checkpoint), device="cpu")
    assert isinstance(first, ReferringMattingPipeline)
    first.save_pretrained(tmp_path)
    second = pipeline("referring-matting", model=str(tmp_path), device="cpu")
    states = [each.model.state_dict() for each in (pipe, first, second)]
    assert all(torch.equal(value, state[name]) for state in states[1:] for name, value in states[0].items())
    # the image processor of `pipe` is PIL's, which rounds differently
    original = pipeline("referring-matting", model=pipe.model, processor=first.processor, device="cpu")
    for prompts in ({}, {"text": "lower owl"}, {"input_boxes": [BOX, OTHER_BOX]}):
        results = [list_objects(each(make_photo(), **prompts, cutout=False)) for each in (original, first, second)]
        for objects in zip(*results, strict=True):
            alphas = [each["predicted_alpha"] for each in objects]
            assert all(torch.equal(alphas[0], alpha) for alpha in alphas[1:])


def test_default_model_is_local(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = PIPELINE_REGISTRY.supported_tasks["referring-matting"]
    assert task["default"]["model"][0] == LITE_CHECKPOINT
    monkeypatch.setitem(task, "default", {"model": (str(checkpoint), "main")})
    assert pipeline("referring-matting", local_files_only=True)(make_photo())["alpha"].size == (50, 40)


@pytest.mark.skipif(not Path(LITE_CHECKPOINT, "config.json").exists(), reason="the embedded checkpoint is not there")
def test_embedded_checkpoint() -> None:
    pipe = pipeline("referring-matting", device="cpu")
    assert pipe.model.dtype == torch.float32  # fp16 weights on disk must not make a CPU compute in fp16
    disc = pipe(make_photo(320, 240), input_boxes=[46, 60, 167, 180])["predicted_alpha"]
    assert disc[120, 106] > 0.9
    assert disc[20, 300] < 0.1


def test_results_of_several_objects_are_made_on_access(
    pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = pipeline_fclm.make_cutout
    monkeypatch.setattr(pipeline_fclm, "make_cutout", lambda *args: calls.append(1) or original(*args))
    results = pipe(make_photo(), input_boxes=[BOX, OTHER_BOX])
    assert isinstance(results, list)
    assert len(results) == 2
    assert not calls
    first, second = results
    assert len(calls) == 2
    alone = pipe(make_photo(), input_boxes=OTHER_BOX)
    for same in (second, results[1], results[-1], next(reversed(results)), results[1:][0], results.copy()[1]):
        torch.testing.assert_close(same["predicted_alpha"], alone["predicted_alpha"], rtol=0, atol=TOLERANCE)
    copies = pickle.loads(pickle.dumps(results))
    assert copies[0]["alpha"].tobytes() == first["alpha"].tobytes()
    assert results.pop(0)["alpha"].tobytes() == first["alpha"].tobytes()
    assert len(results) == 1


def test_unknown_foreground(pipe: ReferringMattingPipeline) -> None:
    with pytest.raises(ValueError, match="foreground must be one of"):
        pipe(make_photo(), foreground="knn")
