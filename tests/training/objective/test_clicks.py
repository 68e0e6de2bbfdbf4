"""Clicks in the largest error: where they fall, and what a learner makes of them."""

import pytest
import torch
from tiny_learner import make_batch, make_learner

from fclm_hf.training import TrainingSettings
from fclm_hf.training.objective.clicks import add_clicks, find_error_centers, measure_depth


def test_depth_counts_from_the_border_and_the_edge():
    region = torch.zeros(1, 7, 9)
    region[0, :5, 2:7] = 1
    assert measure_depth(region)[0, 2].tolist() == [0, 0, 1, 2, 3, 2, 1, 0, 0]
    assert measure_depth(region)[0, :, 4].tolist() == [1, 2, 3, 2, 1, 0, 0]


def test_the_larger_error_is_clicked():
    labels, alphas = torch.zeros(1, 2, 96, 96), torch.zeros(1, 2, 96, 96)
    labels[0, 0, 8:40, 8:40] = 1  # missing
    alphas[0, 0, 60:72, 60:72] = 1  # smaller, superfluous
    alphas[0, 1, 40:80, 50:90] = 1
    points, point_labels = find_error_centers(alphas, labels, torch.ones_like(labels, dtype=torch.bool))
    assert point_labels.tolist() == [[1, 0]]
    assert (points[0] - torch.tensor([[24.0, 24.0], [70.0, 60.0]])).abs().max() <= 6


def test_no_click_without_a_known_error():
    labels = torch.zeros(1, 1, 64, 64)
    labels[..., 16:48, 16:48] = 1
    known = torch.ones_like(labels, dtype=torch.bool)
    assert find_error_centers(labels, labels, known)[1].item() == -10
    assert find_error_centers(1 - labels, labels, ~known)[1].item() == -10


def test_added_clicks_come_with_the_last_matte():
    learner, batch = make_learner(distillation="none", alignment="none"), make_batch()
    student = learner.student.eval()
    embeddings = student.get_image_embeddings(batch["pixel_values_a"], batch["pixel_mask"])
    inputs = {name: value for name, value in batch.items() if not name.startswith("pixel_values")}
    inputs["input_labels"][0, 1], inputs["input_boxes"][0, 1] = -10, -10  # asked for by its name alone
    inputs["input_masks"][0, 1] = 0.3
    clicked = add_clicks(student, embeddings, inputs, rounds=2)
    assert clicked["input_points"].shape == (2, 2, 3, 2)
    assert (clicked["input_labels"][0, 1] == -10).all()
    assert (clicked["input_masks"][0, 1] == 0.3).all()
    assert (clicked["input_labels"][1, :, 1:] >= 0).all()
    assert (clicked["input_masks"][1] >= 0).all()
    assert not clicked["input_masks"].requires_grad
    assert inputs["input_points"].shape == (2, 2, 1, 2)


def test_a_learner_clicks_in_training_only():
    learner, batch = make_learner(distillation="none", alignment="none", click_rounds=2), make_batch()
    counts = []
    learner.student.register_forward_pre_hook(
        lambda _, args, kwargs: counts.append(kwargs["input_points"].shape[2]), with_kwargs=True
    )
    for seed in range(6):
        torch.manual_seed(seed)
        learner(batch)["loss"].backward()
    assert set(counts) == {1, 2, 3}
    counts.clear()
    learner.eval()
    learner(batch)
    assert counts == [1]


def test_refused_rounds():
    with pytest.raises(ValueError, match="click_rounds must be at least 0, got -1"):
        TrainingSettings(click_rounds=-1)
    with pytest.raises(ValueError, match="click_rounds requires prompts \"all\", got 'box'"):
        TrainingSettings(click_rounds=1, prompts="box")
