"""Depth-Aware Distillation (Eq. 1-3) against loops in float64, and the teacher's run."""

import math

import numpy as np
import pytest
import torch
from tiny_model import tiny_teacher

from fclm_hf.training.objective.distillation import (
    DepthAwareDistillation,
    channel_divergence,
    depth_weights,
    normalize_depth,
)
from fclm_hf.training.objective.teacher import DepthTeacher


def slow_weights(depth: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 2, pixel by pixel."""
    near, far = np.zeros_like(depth), np.zeros_like(depth)
    for index, value in np.ndenumerate(depth):
        if value > delta:
            near[index] = value / depth.max()
        else:
            far[index] = (delta - value) / delta
    return near, far


def slow_divergence(student: np.ndarray, target: np.ndarray) -> float:
    """KL(softmax(target) || softmax(student)) of two vectors."""
    p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (target, student))
    return sum(p[k] * (math.log(p[k]) - math.log(q[k])) for k in range(len(p)))


def slow_projection(net: torch.nn.Module, token: torch.Tensor) -> np.ndarray:
    """W2 relu(W1 (token + context) + b1) + b2."""
    first, _, second = net.layers
    token = token.double().numpy() + (0 if net.context is None else net.context.detach().double().numpy())
    weights = [x.detach().double().numpy() for x in (first.weight, first.bias, second.weight, second.bias)]
    return weights[2] @ np.maximum(weights[0] @ token + weights[1], 0) + weights[3]


def make_features(teacher_grid: tuple[int, int] = (3, 4)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    depth = torch.rand(2, 3, 4) * torch.tensor([40.0, 0.3])[:, None, None] + 5
    return torch.randn(2, 6, 3, 4), torch.randn(2, 9, *teacher_grid), depth


@pytest.mark.parametrize("mode", ["vanilla", "foreground", "full"])
def test_loss_is_equation_3(mode):
    student, teacher, depth = make_features()
    distillation = DepthAwareDistillation(6, 9, mode, threshold=0.25)
    total = 0.0
    for image in range(2):
        near, far = np.ones((3, 4)), np.zeros((3, 4))
        if mode != "vanilla":
            plain = depth[image].double().numpy()
            near, far = slow_weights((plain - plain.min()) / (plain.max() - plain.min()), 0.25)
        for row, column in np.ndindex(3, 4):
            token, target = student[image, :, row, column], teacher[image, :, row, column]
            net = distillation.projection if mode == "vanilla" else distillation.foreground
            terms = [(near[row, column], net), (far[row, column], distillation.background)]
            for weight, net in terms[: 2 if mode == "full" else 1]:
                total += slow_divergence(weight * token.double().numpy(), weight * slow_projection(net, target))
    assert distillation(student, teacher, depth).item() == pytest.approx(total / 24, rel=1e-5)


def test_weights_are_equation_2():
    depth = torch.rand(3, 5, 7)
    depth[2] *= 0.2
    near, far = depth_weights(depth, 0.25)
    for image in range(3):
        expected = slow_weights(depth[image].double().numpy(), 0.25)
        np.testing.assert_allclose(near[image], expected[0], rtol=1e-5)
        np.testing.assert_allclose(far[image], expected[1], atol=1e-6)
    assert near[2].max() == 0
    assert ((near > 0) & (far > 0)).sum() == 0


def test_depth_is_normalized_per_image_and_over_the_image_alone():
    depth = torch.tensor([[[2.0, 4.0], [10.0, 99.0]], [[5.0, 5.0], [5.0, 0.0]]])
    valid = torch.tensor([[[True, True], [True, False]]] * 2)
    expected = torch.tensor([[[0.0, 0.25], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(normalize_depth(depth, valid), expected)


def test_tokens_without_weight_cost_nothing():
    assert channel_divergence(torch.zeros(5, 8), torch.zeros(5, 8)).abs().max() == 0
    student, teacher, _ = make_features()
    flat = DepthAwareDistillation(6, 9, "foreground")(student, teacher, torch.full((2, 3, 4), 7.0))
    assert flat.item() == 0  # without any depth nothing is near


def test_grids_of_other_sizes_line_up():
    """The same smooth picture seen by the teacher on a finer grid, and its depth on a still finer one."""
    student, phases = torch.randn(1, 6, 6, 8), torch.rand(9)[None, :, None, None]

    def draw(height: int, width: int, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        y, x = (torch.arange(size).add(0.5) / size + shift for size in (height, width))
        features = torch.sin(3 * y[:, None] + 2 * x + 6 * phases)
        return 3 * features, (4 * torch.sin(2 * y[:, None] + x + 1))[None]

    distillation = DepthAwareDistillation(6, 9)
    expected = distillation(student, *draw(6, 8))
    aligned = distillation(student, draw(9, 12)[0], draw(48, 64)[1])
    one_token_off = distillation(student, draw(9, 12, shift=1 / 8)[0], draw(48, 64, shift=1 / 8)[1])
    assert abs(aligned - expected) < 0.2 * abs(one_token_off - expected)


def test_padding_does_not_count():
    student, teacher, depth = make_features()
    distillation = DepthAwareDistillation(6, 9)
    expected = distillation(student[..., :3], teacher[..., :3], depth[..., :3])
    valid = torch.ones(2, 1, 3, 4, dtype=torch.bool)
    valid[..., 3] = False
    depth[..., 3] = 1e4
    torch.testing.assert_close(distillation(student, teacher, depth, valid), expected)


@torch.no_grad()
def test_teacher_gives_features_and_depth_of_imagenet_pixels_in_one_run():
    model = tiny_teacher()
    mean, std = (0.2, 0.5, 0.6), (0.5, 0.4, 0.3)
    teacher = DepthTeacher(model, mean, std)
    runs = []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    photo = torch.rand(2, 3, 56, 70)
    student_pixels = (photo - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    features, depth = teacher(student_pixels)
    assert len(runs) == 1
    assert features.shape == (2, 48, 4, 5)
    assert depth.shape == (2, 56, 70)
    imagenet = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    output = model((photo - imagenet[0]) / imagenet[1], output_hidden_states=True)
    torch.testing.assert_close(depth, output.predicted_depth, rtol=1e-4, atol=1e-3)
    expected = model.backbone.layernorm(output.hidden_states[-1])[:, 1:].transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("given", "size", "expected"), [(64, None, (5, 5)), (56, None, (4, 4)), (64, 84, (6, 6))])
def test_teacher_input_is_a_multiple_of_its_patch(given, size, expected):
    teacher = DepthTeacher(tiny_teacher(), (0.5,) * 3, (0.5,) * 3, size)
    features, depth = teacher(torch.zeros(1, 3, given, given))
    assert features.shape[-2:] == expected
    assert depth.shape[-1] == 14 * expected[1]
    assert not teacher.train().training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_bad_arguments():
    with pytest.raises(ValueError, match="mode must be one of"):
        DepthAwareDistillation(6, 9, "none")
    with pytest.raises(ValueError, match="threshold"):
        DepthAwareDistillation(6, 9, threshold=1.0)
    with pytest.raises(ValueError, match="teacher_size must be a positive multiple of 14"):
        DepthTeacher(tiny_teacher(), (0.5,) * 3, (0.5,) * 3, 1024)
