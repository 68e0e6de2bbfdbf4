"""Spoiled masks: what they are for training, and that they reach batches."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_tokenizer

from fclm_hf.data import PromptSettings, collate_prompts, sample_prompt
from fclm_hf.data.synthesis.spoiled_masks import blur_alpha, make_random_trimap, spoil_mask


def make_alpha() -> np.ndarray:
    rows, columns = np.mgrid[:80, :100]
    return np.clip((30 - np.hypot(rows - 40, columns - 55)) / 6 + 0.5, 0, 1).astype(np.float32)


def test_what_a_trimap_claims_is_true():
    alpha = make_alpha()
    for seed in range(20):
        trimap = make_random_trimap(alpha, np.random.default_rng(seed))
        assert set(np.unique(trimap)) <= {0, 0.5, 1}
        known = trimap != 0.5
        np.testing.assert_allclose(alpha[known], trimap[known], atol=0.021)


def test_what_is_not_known_is_unknown_in_a_trimap():
    unknown = np.zeros((80, 100), bool)
    unknown[5:10, 5:10] = True
    trimap = make_random_trimap(make_alpha(), np.random.default_rng(0), unknown)
    assert (trimap[unknown] == 0.5).all()
    assert trimap[70, 5] == 0


def test_spoiled_masks_are_near_the_target_and_differ():
    alpha, masks = make_alpha(), []
    for seed in range(40):
        mask = spoil_mask(alpha, np.random.default_rng(seed), trimap_prob=0)
        assert mask.dtype == np.float32
        assert mask.shape == alpha.shape
        assert 0 <= mask.min() <= mask.max() <= 1
        masks.append(mask)
    errors = [np.abs(mask - alpha).mean() for mask in masks]
    assert np.median(errors) < 0.1
    assert len({mask.tobytes() for mask in masks}) > 30


def test_blurred_alphas_are_soft_and_near_the_target():
    alpha = make_alpha()
    masks = [blur_alpha(alpha, np.random.default_rng(seed)) for seed in range(20)]
    assert all(mask.shape == alpha.shape and mask.dtype == np.float32 for mask in masks)
    assert all(0 <= mask.min() <= mask.max() <= 1 for mask in masks)
    errors = [np.abs(mask - alpha).mean() for mask in masks]
    assert np.median(errors) < 0.06
    assert max(errors) < 0.15
    slopes = [np.abs(np.diff(mask, axis=1)).max() for mask in masks]
    assert np.median(slopes) < np.abs(np.diff(alpha, axis=1)).max()
    assert len({mask.tobytes() for mask in masks}) == 20


def test_nothing_cannot_be_spoiled():
    with pytest.raises(ValueError, match="alpha must not be 0 everywhere"):
        spoil_mask(np.zeros((8, 8), np.float32), np.random.default_rng(0))


def test_masks_among_the_prompts():
    alpha, settings = make_alpha(), PromptSettings(mask_prob=0.5)
    prompts = [sample_prompt(alpha, ("cat",), np.random.default_rng(seed), settings) for seed in range(100)]
    with_mask = [prompt for prompt in prompts if "mask" in prompt]
    assert 30 < len(with_mask) < 70
    assert 0 < sum(len(prompt) > 1 for prompt in with_mask) < len(with_mask) / 2
    batch = collate_prompts([with_mask[:2], [{}, with_mask[2]]], tiny_tokenizer())
    assert batch["input_masks"].shape == (2, 2, 80, 100)
    assert (batch["input_masks"][1, 0] == -1).all()
    torch.testing.assert_close(batch["input_masks"][1, 1], torch.from_numpy(with_mask[2]["mask"]))
    assert "input_masks" not in collate_prompts([[{}]], tiny_tokenizer())
