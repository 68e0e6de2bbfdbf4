"""The pipeline: what it takes and gives, and that batches, chunks and precision do not change the result."""

import copy
import json
import logging
import pickle
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from mattes import BOX, OTHER_BOX, TOLERANCE, assert_close, list_objects
from photo_files import make_photo, write_truncated
from PIL import Image
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import output_capturing
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from fclm_hf import (
    LITE_CHECKPOINT,
    ReferringMattingPipeline,
    pipeline_fclm,
)


@pytest.fixture(scope="module")
def checkpoint(pipe: ReferringMattingPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    pipe.save_pretrained(folder)
    return folder


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


def test_containers(pipe: ReferringMattingPipeline) -> None:
    photos = [make_photo(seed=seed) for seed in range(3)]
    expected = [result["alpha"].tobytes() for result in pipe(photos, cutout=False, batch_size=2)]

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: int) -> Image.Image:
            return photos[index]

    for images in (tuple(photos), iter(photos), map(Image.Image.copy, photos), Photos(), np.stack(photos)):
        assert [result["alpha"].tobytes() for result in pipe(images, cutout=False, batch_size=2)] == expected
    assert pipe([]) == []
    assert len(pipe([photos[0]])) == 1  # a list in, a list out


def test_file_object(pipe: ReferringMattingPipeline) -> None:
    photo = make_photo()
    file = BytesIO()
    photo.save(file, "PNG")
    file.seek(0)
    expected = pipe(photo, cutout=False)["alpha"]
    assert pipe(file, cutout=False)["alpha"].tobytes() == expected.tobytes()  # one image, though it is iterable


def test_preset_arguments(pipe: ReferringMattingPipeline, checkpoint: Path) -> None:
    photo = make_photo()
    preset = pipeline("referring-matting", model=str(checkpoint), text="cat", cutout=False)
    assert preset(photo)["alpha"].tobytes() == pipe(photo, text="cat")["alpha"].tobytes()


def test_next(pipe: ReferringMattingPipeline) -> None:
    photos = [make_photo(seed=seed) for seed in range(3)]
    expected = [result["alpha"].tobytes() for result in pipe(photos, cutout=False)]
    for images in (iter(photos), (photo for photo in photos), Dataset.from_list([{"image": p} for p in photos])):
        results = pipe(images, cutout=False)
        assert next(results)["alpha"].tobytes() == expected[0]
        assert [result["alpha"].tobytes() for result in results] == expected[1:]  # goes on
        assert next(results, None) is None
    taken = []
    next(pipe((taken.append(photo) or photo for photo in photos), cutout=False))
    assert len(taken) == 1  # no more than what was asked for


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


def test_only_pixels_are_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline("referring-matting", model=tiny_model().bfloat16(), processor=tiny_processor(), device="cpu")
    forward, seen = pipe.model.forward, {}
    monkeypatch.setattr(pipe.model, "forward", lambda **kwargs: seen.update(kwargs) or forward(**kwargs))
    result = pipe(make_photo(600, 400), input_points=[[301.0, 257.0]])
    assert seen["input_points"].tolist() == [[[[301.0, 257.0]]]]  # bfloat16 would make 300 and 256 of it
    assert seen["image_embeddings"].coarse_map.dtype == torch.bfloat16
    assert result["predicted_alpha"].dtype == torch.float32


def test_errors_name_the_culprit(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    write_truncated(tmp_path / "broken.jpg")
    photo = make_photo()
    for images, prompts, problem in [
        (tmp_path / "broken.jpg", {}, r"broken\.jpg"),
        ([photo, str(tmp_path / "broken.jpg")], {}, r"^inputs\[1\]: .*broken\.jpg"),
        (
            [photo, {"image": photo, "input_boxes": [[50, 0, 99, 9]]}],
            {},
            r"^inputs\[1\]: input_boxes.* does not overlap the image",
        ),
        ({"image": photo, "input_box": [BOX]}, {}, r"Unknown key 'input_box' .* did you mean 'input_boxes'\?"),
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


def test_the_default_model_comes_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is part of the package: no other model can take its place some day."""
    logger, messages = logging.getLogger("transformers.pipelines"), []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: messages.append(record.getMessage()))
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.manager._clear_cache()
    logger.addHandler(handler)
    try:
        pipeline("referring-matting", device="cpu")
        logger.warning("No model was supplied, defaulted to somebody/else and revision main.")
    finally:
        logger.removeHandler(handler)
        logger.manager._clear_cache()
    assert messages == ["No model was supplied, defaulted to somebody/else and revision main."]


@pytest.mark.skipif(not Path(LITE_CHECKPOINT, "config.json").exists(), reason="the embedded checkpoint is not there")
def test_embedded_checkpoint() -> None:
    pipe = pipeline("referring-matting", device="cpu")
    assert pipe.model.dtype == torch.float32  # fp16 weights on disk must not make a CPU compute in fp16
    disc = pipe(make_photo(320, 240), input_boxes=[46, 60, 167, 180])["predicted_alpha"]
    assert disc[120, 106] > 0.9
    assert disc[20, 300] < 0.1


def test_unknown_foreground(pipe: ReferringMattingPipeline) -> None:
    with pytest.raises(ValueError, match="foreground must be one of"):
        pipe(make_photo(), foreground="knn")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": "2"}, "batch_size must be an integer of at least 1, got '2'"),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1"),
        ({"cutout": "no"}, "cutout must be True or False, got 'no'"),
    ],
)
def test_settings_are_checked_for_single_images_too(
    pipe: ReferringMattingPipeline, arguments: dict[str, Any], problem: str
) -> None:
    for images in (make_photo(), [make_photo()] * 2):
        with pytest.raises(ValueError, match=problem):
            pipe(images, **arguments)


def test_a_missing_gpu_is_not_replaced_silently(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: False)
    with pytest.raises(ValueError, match=r'device must be -1 or "cpu", as torch finds no GPU here, got 0\.'):
        pipeline("referring-matting", model=str(checkpoint), device=0)
    for device in (-1, "cpu", None):
        assert pipeline("referring-matting", model=str(checkpoint), device=device).device.type == "cpu"


def test_pickled_copies_give_the_same_mattes(pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that has built no model, of whose parts transformers does not know what they record."""
    expected = pipe(make_photo(), text="low")["predicted_alpha"]
    monkeypatch.setattr("transformers.utils.output_capturing._CAN_RECORD_REGISTRY", type(_CAN_RECORD_REGISTRY)())
    monkeypatch.setattr("fclm_hf.modeling_fclm._CAN_RECORD_REGISTRY", output_capturing._CAN_RECORD_REGISTRY)
    for copied in (pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe)):
        assert torch.equal(copied(make_photo(), text="low")["predicted_alpha"], expected)
    assert torch.equal(pipe(make_photo(), text="low")["predicted_alpha"], expected)


def test_a_model_in_training_computes_as_in_evaluation(pipe: ReferringMattingPipeline) -> None:
    photo = make_photo()
    expected = pipe(photo, cutout=False)
    model = pipe.model.train()
    frozen = next(each for each in model.modules() if each is not model).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [each.training for each in model.modules()]
    try:
        assert_close(pipe(photo, cutout=False), expected)
        assert not frozen.training
        assert [each.training for each in model.modules()] == modes
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    finally:
        model.eval()


def test_tokens_that_the_model_does_not_know(pipe: ReferringMattingPipeline) -> None:
    inputs = pipe.processor(make_photo(), text=[["low"]])
    with torch.no_grad():
        embeddings = pipe.model.get_image_embeddings(inputs["pixel_values"], inputs["pixel_mask"])
    inputs["input_ids"][0, 0, 1] = pipe.model.config.text_config.vocab_size
    with pytest.raises(ValueError, match=r"input_ids must be in \[0, \d+\], got \d+ to \d+: the tokenizer does not"):
        pipeline_fclm.decode_alphas(pipe.model, embeddings, inputs)


def test_mistyped_names_of_files(pipe: ReferringMattingPipeline) -> None:
    for name in ("catt", "photos/catt", "cat.jpg", "abcd1234", "~/cat.png", "ftp://host/cat.png", ""):
        with pytest.raises(
            ValueError, match=f"^image: there is no file {re.escape(repr(name))}, and it is neither a URL"
        ):
            pipe(name)
    with pytest.raises(ValueError, match=r"^inputs\[1\]: image: there is no file 'catt', and"):
        pipe([make_photo(), "catt"])
    with pytest.raises(ValueError, match=r"there is no file 'mask', and"):
        pipe(make_photo(), input_masks="mask")
    with pytest.raises(ValueError, match=r'The "image" of a dict must be an image, got None'):
        pipe({"image": None})
    with pytest.raises(TypeError, match="Unknown argument 'image': did you mean 'images'"):
        pipe(image=make_photo())
