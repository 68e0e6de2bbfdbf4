"""Losses against slow computations of their definitions."""

import numpy as np
import pytest
import torch

from fclm_hf.loss_fclm import laplacian_loss, matting_loss, segmentation_loss


def slow_halve(image: np.ndarray) -> np.ndarray:
    taps = np.array([1, 4, 6, 4, 1]) / 16
    padded = np.pad(image, 2, mode="edge")
    height, width = image.shape
    result = np.zeros((-(-height // 2), -(-width // 2)))
    for row in range(0, height, 2):
        for column in range(0, width, 2):
            result[row // 2, column // 2] = (np.outer(taps, taps) * padded[row : row + 5, column : column + 5]).sum()
    return result


def slow_upsample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    def along(size: int, length: int) -> np.ndarray:
        weights = np.zeros((size, length))
        for index in range(size):
            place = min(max((index + 0.5) * length / size - 0.5, 0), length - 1)
            low = min(int(place), length - 1)
            high = min(low + 1, length - 1)
            weights[index, low] += 1 - (place - low)
            weights[index, high] += place - low
        return weights

    return along(height, image.shape[0]) @ image @ along(width, image.shape[1]).T


def test_laplacian_loss():
    rng = np.random.default_rng(0)
    alphas, labels = rng.random((2, 40, 37)), rng.random((2, 40, 37))
    expected = 0.0
    for level in range(5):
        bands, smaller = [], []
        for image in (*alphas, *labels):
            half = slow_halve(image)
            bands.append(image - slow_upsample(half, *image.shape))
            smaller.append(half)
        expected += 2**level * np.mean([np.abs(bands[k] - bands[k + 2]).mean() for k in range(2)]) / 5
        alphas, labels = smaller[:2], smaller[2:]
    rng = np.random.default_rng(0)
    pair = [torch.tensor(rng.random((2, 40, 37)))[None].float() for _ in range(2)]
    assert laplacian_loss(*pair).item() == pytest.approx(expected, rel=1e-5)


def test_segmentation_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 40, 33), (torch.rand(2, 3, 40, 33) > 0.6).float()
    total = []
    for logit, label in zip(logits.flatten(0, 1).double(), labels.flatten(0, 1).double(), strict=True):
        mean = torch.zeros_like(label)
        for row in range(40):
            for column in range(33):
                window = label[max(row - 15, 0) : row + 16, max(column - 15, 0) : column + 16]
                mean[row, column] = window.mean()
        weight = 1 + 5 * (mean - label).abs()
        p = logit.sigmoid()
        bce = -(weight * (label * p.log() + (1 - label) * (1 - p).log())).sum() / weight.sum()
        inter, union = (weight * p * label).sum(), (weight * (p + label - p * label)).sum()
        total.append(bce + 1 - (inter + 1) / (union + 1))
    assert segmentation_loss(logits, labels).item() == pytest.approx(torch.stack(total).mean().item(), rel=1e-4)


@pytest.mark.parametrize("loss", [matting_loss, segmentation_loss])
def test_masked_objects_do_not_count(loss):
    torch.manual_seed(1)
    predictions, labels = torch.rand(1, 2, 48, 48), (torch.rand(1, 2, 48, 48) > 0.5).float()
    mask = torch.tensor([[True, False]])
    first = loss(predictions, labels, mask)
    predictions[0, 1], labels[0, 1] = 0.3, 0.9
    assert loss(predictions, labels, mask) == first
    assert torch.isfinite(loss(predictions, labels, torch.zeros(1, 2)))


def test_a_perfect_matte_costs_nothing():
    labels = torch.rand(1, 1, 64, 64)
    assert matting_loss(labels, labels).item() == 0
    assert matting_loss(1 - labels, labels).item() > 0.5
