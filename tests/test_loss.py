"""Head losses against slow computations of their definitions, in float64 and with loops."""

import numpy as np
import pytest
import torch

from fclm_hf.loss_fclm import (
    coarse_mask_loss,
    laplacian_loss,
    matting_loss,
    mean_over_count,
    reduce_counts,
    segmentation_loss,
)


def slow_blur(image: np.ndarray) -> np.ndarray:
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    padded = np.pad(image, 2, mode="reflect")
    result = np.zeros(image.shape)
    for row, column in np.ndindex(image.shape):
        result[row, column] = (kernel * padded[row : row + 5, column : column + 5]).sum()
    return result


def slow_laplacian_loss(alphas: np.ndarray, labels: np.ndarray) -> float:
    """ViTMatte's, on images (count, height, width)."""
    total = 0.0
    for level in range(5):
        height, width = (size - size % 2 for size in alphas.shape[-2:])
        bands, smaller = [], []
        for image in (*alphas[:, :height, :width], *labels[:, :height, :width]):
            half = slow_blur(image)[::2, ::2]
            doubled = np.zeros(image.shape)
            doubled[::2, ::2] = 4 * half
            bands.append(image - slow_blur(doubled))
            smaller.append(half)
        count = len(alphas)
        total += 2**level * np.abs(np.stack(bands[:count]) - np.stack(bands[count:])).mean() / 5
        alphas, labels = np.stack(smaller[:count]), np.stack(smaller[count:])
    return total


def slow_l1(alphas: np.ndarray, labels: np.ndarray) -> float:
    """Mean error of known pixels plus that of unknown ones; cells of 2 x 2 pixels are known or unknown."""
    errors = {True: [], False: []}
    for alpha, label in zip(alphas, labels, strict=True):
        for row, column in np.ndindex(label.shape):
            top, left = 2 * (row // 2 - 3), 2 * (column // 2 - 3)
            around = label[max(top, 0) : top + 14, max(left, 0) : left + 14]
            unknown = around.max() > 0.02 and (1 - around).max() > 0.02
            errors[bool(unknown)].append(abs(alpha[row, column] - label[row, column]))
    return np.mean(errors[True]) + np.mean(errors[False])


def draw_labels(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Soft-edged discs."""
    rows, columns = np.mgrid[:height, :width]
    centers = rng.random((count, 2)) * [height, width]
    distance = np.stack([np.hypot(rows - y, columns - x) for y, x in centers])
    return np.clip((14 - distance) / 4, 0, 1)


@pytest.mark.parametrize("size", [(64, 64), (75, 70)])
def test_laplacian_loss(size):
    rng = np.random.default_rng(0)
    alphas, labels = rng.random((2, *size)), rng.random((2, *size))
    result = laplacian_loss(torch.tensor(alphas)[None], torch.tensor(labels)[None])
    assert result.item() == pytest.approx(slow_laplacian_loss(alphas, labels), rel=1e-5)


@pytest.mark.parametrize("size", [(2, 3), (5, 33), (48, 48)])
def test_laplacian_loss_of_small_images(size):
    labels = torch.rand(1, 2, *size)
    assert laplacian_loss(labels, labels).item() == 0
    assert 0 < laplacian_loss(1 - labels, labels).item() < 5


def test_matting_loss():
    rng = np.random.default_rng(1)
    labels, alphas = draw_labels(rng, 2, 64, 66), rng.random((2, 64, 66))
    expected = slow_l1(alphas, labels) + slow_laplacian_loss(alphas, labels)
    result = matting_loss(torch.tensor(alphas)[None], torch.tensor(labels)[None])
    assert result.item() == pytest.approx(expected, rel=1e-5)


def test_segmentation_loss():
    rng = np.random.default_rng(2)
    labels, logits = (draw_labels(rng, 3, 40, 33) > 0.5).astype(float), rng.standard_normal((3, 40, 33))
    total = []
    for logit, label in zip(logits, labels, strict=True):
        padded, mean = np.pad(label, 15), np.zeros_like(label)
        for row, column in np.ndindex(label.shape):
            mean[row, column] = padded[row : row + 31, column : column + 31].mean()
        weight = 1 + 5 * np.abs(mean - label)
        p = 1 / (1 + np.exp(-logit))
        bce = -(weight * (label * np.log(p) + (1 - label) * np.log(1 - p))).sum() / weight.sum()
        inter, union = (weight * p * label).sum(), (weight * (p + label)).sum()
        total.append(bce + 1 - (inter + 1) / (union - inter + 1))
    result = segmentation_loss(torch.tensor(logits)[None], torch.tensor(labels)[None])
    assert result.item() == pytest.approx(np.mean(total), rel=1e-5)


@pytest.mark.parametrize("loss", [matting_loss, segmentation_loss])
def test_masked_objects_do_not_count(loss):
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


def test_the_laplacian_is_a_mean_over_objects_that_count():
    alphas, labels = torch.rand(1, 2, 48, 48), torch.rand(1, 2, 48, 48)
    masked = matting_loss(alphas, labels, torch.tensor([[True, False]]))
    assert masked.item() == pytest.approx(matting_loss(alphas[:, :1], labels[:, :1]).item(), rel=1e-5)


def test_an_object_of_one_of_two_processes_counts_in_full():
    for count in (0.0, 1.0):  # the object of the other process, and of this one
        with reduce_counts(lambda own, count=count: (own + 1 - count) / 2):
            loss = mean_over_count(torch.tensor(3.0 * count), torch.tensor(count))
        assert loss == 6 * count  # twice, as the mean over the processes is taken then
    with reduce_counts(lambda own: own):
        assert mean_over_count(torch.zeros(()), torch.zeros(())) == 0
    with reduce_counts(None):
        assert mean_over_count(torch.tensor(3.0), torch.tensor(0.5)) == 3


def test_a_coarse_mask_counts_where_it_is_known():
    labels = torch.zeros(1, 1, 8, 8)
    labels[..., :4] = 1
    known = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    known[..., 3:5] = False
    logits = torch.where(labels > 0.5, 20.0, -20.0)
    wrong_edge = logits.clone()
    wrong_edge[..., 3:5] *= -1
    assert coarse_mask_loss(wrong_edge, labels, known) == coarse_mask_loss(logits, labels, known) < 1e-3
    assert coarse_mask_loss(-logits, labels, known) > 1
    assert coarse_mask_loss(logits, labels, torch.zeros_like(known)) == 0


def test_objects_without_known_pixels_do_not_count_in_coarse_masks():
    logits, labels = torch.randn(1, 2, 16, 16), (torch.rand(1, 2, 16, 16) > 0.5).float()
    known = torch.tensor([True, False])[None, :, None, None].expand(1, 2, 16, 16)
    alone = coarse_mask_loss(logits[:, :1], labels[:, :1], known[:, :1])
    assert coarse_mask_loss(logits, labels, known).item() == pytest.approx(alone.item())
