"""Simulated prompts: they fit their object, say what the data set says, and are padded as the processor pads."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_processor, tiny_tokenizer

from fclm_hf.data import PromptSettings, collate_prompts, sample_prompt, sample_prompts


def test_prompts_fit_the_object():
    alpha = np.zeros((60, 80), np.float32)
    alpha[10:30, 20:60] = 1
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        prompt = sample_prompt(alpha, ("cat",), rng, PromptSettings())
        kinds.add("+".join(sorted(prompt)))
        if "box" in prompt:
            x0, y0, x1, y1 = prompt["box"]
            assert 0 <= x0 < x1 <= 80
            assert 0 <= y0 < y1 <= 60
            assert abs(x0 - 20) < 8
            assert abs(y1 - 30) < 6
        for (x, y), label in zip(prompt.get("points", ()), prompt.get("labels", ()), strict=True):
            assert (alpha[int(y), int(x)] > 0.5) == bool(label)
        assert "cat" in prompt.get("text", "cat")
    assert len(kinds) == 6
    assert all("text" not in sample_prompt(alpha, (), rng, PromptSettings()) for _ in range(30))
    with pytest.raises(ValueError, match="alpha must not be 0 everywhere"):
        sample_prompt(np.zeros((9, 9), np.float32), (), rng, PromptSettings(kinds={"box": 1}))


def test_expressions_of_the_data_set_are_used_as_they_are():
    alpha = np.zeros((40, 40), np.float32)
    alpha[5:30, 10:30] = 1
    rng = np.random.default_rng(0)
    settings = PromptSettings(kinds={"text": 1}, templates=("a photo of {}.",))
    texts = {sample_prompt(alpha, ("cat",), rng, settings, ("what sits left",))["text"] for _ in range(60)}
    assert texts == {"a photo of cat.", "what sits left"}
    assert sample_prompt(alpha, (), rng, settings, ("what sits left",)) == {"text": "what sits left"}


def test_prompts_of_an_image_are_shared_out_among_its_objects():
    alphas = np.zeros((2, 40, 40), np.float32)
    alphas[0, :20], alphas[1, 20:] = 1, 1
    foreground = np.ones((40, 40), np.float32)
    rng = np.random.default_rng(0)
    settings = PromptSettings()
    empty = 0
    for _ in range(100):
        prompts, targets = sample_prompts(
            alphas, [("a",), ("b",)], rng, settings, count=3, empty_prompt_prob=0.3, foreground=foreground
        )
        assert len(prompts) == len(targets) == 3
        for prompt, target in zip(prompts, targets, strict=True):
            expected = [foreground] if not prompt else alphas
            assert any((target == each).all() for each in expected)
            empty += not prompt
        if all(prompts[:2]):
            assert (targets[0] != targets[1]).any()
    assert 60 < empty < 120


def test_prompts_are_padded_as_the_processor_pads_them():
    prompts = [
        [{"box": [1.0, 2.0, 30.0, 20.0], "text": "low"}, {"points": [[3.0, 4.0], [9.0, 5.0]], "labels": [1, 0]}],
        [{}, {"points": [[7.0, 8.0]], "labels": [1]}],
    ]
    batch = collate_prompts(prompts, tiny_tokenizer())
    expected = tiny_processor(size_divisor=1)(
        images=[np.zeros((32, 32, 3), np.uint8)] * 2,
        input_boxes=[[[1, 2, 30, 20], None], [None, None]],
        input_points=[[None, [[3, 4], [9, 5]]], [None, [[7, 8]]]],
        input_labels=[[None, [1, 0]], [None, [1]]],
        text=[["low", None], [None, None]],
    )
    for name in ("input_points", "input_labels", "input_boxes", "attention_mask"):
        assert torch.equal(batch[name], expected[name]), name
    assert torch.equal(batch["input_ids"][0, 0], expected["input_ids"][0, 0])


def test_objects_that_no_kind_can_mean_are_left_out():
    alphas = np.zeros((3, 40, 40), np.float32)
    alphas[0, :10], alphas[1, 10:20], alphas[2, 20:30] = 1, 1, 1
    names, instance = [(), ("cat",), ("dogs",)], [True, True, False]

    def draw(kinds, **fields):
        settings = PromptSettings(kinds=kinds)
        prompts, targets = sample_prompts(alphas, names, np.random.default_rng(1), settings, 30, 0.0, **fields)
        found = {int(np.abs(alphas - target).sum((1, 2)).argmin()) for target in targets}
        return prompts, targets, found

    prompts, _, found = draw({"text": 1, "box": 0, "point": 0}, instance=instance)
    assert found == {1, 2}
    assert all(prompt.keys() == {"text"} for prompt in prompts)
    prompts, _, found = draw({"text": 0, "box": 1}, instance=instance)
    assert found == {0, 1}
    assert all(prompt.keys() == {"box"} for prompt in prompts)
    names = [(), (), ()]
    prompts, targets, _ = draw({"text": 1}, instance=[True] * 3)
    assert not any(prompts)
    assert (targets == alphas.max(0)).all()
