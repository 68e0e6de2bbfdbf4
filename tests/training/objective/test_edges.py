"""Edges: the loss on gradients of mattes, and images that the layers which draw edges do not learn from."""

import pytest
import torch
from tiny_learner import make_batch, make_learner

from fclm_hf.training import gradient_loss


PLAIN = {"distillation": "none", "alignment": "none"}


def test_gradients_count_along_edges_only():
    labels = torch.zeros(1, 1, 6, 8)
    labels[..., 4:] = 1
    assert gradient_loss(labels, labels) == 0
    ramp = torch.linspace(0, 1, 8).expand_as(labels)
    torch.testing.assert_close(gradient_loss(ramp, labels), torch.tensor(1 - 1 / 7))
    assert gradient_loss(ramp, torch.zeros_like(labels)) == 0
    mask = torch.ones_like(labels, dtype=torch.bool)
    mask[..., 4] = False  # one of the two pixels of each difference
    assert gradient_loss(ramp, labels, mask) == 0


def test_edges_of_the_predicted_matte_count_on_request():
    flat, step = torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8)
    step[..., 4:] = 0.5
    step[..., 6:] = 0.51  # a smaller difference than asked for
    assert gradient_loss(step, flat) == 0
    step.requires_grad_()
    loss = gradient_loss(step, flat, min_predicted_difference=0.02)
    torch.testing.assert_close(loss, torch.tensor(0.5))
    loss.backward()
    assert step.grad[..., 3].lt(0).all()
    assert step.grad[..., 4].gt(0).all()
    assert gradient_loss(step, flat, torch.zeros_like(flat), min_predicted_difference=0.02) == 0


def test_the_gradient_loss_of_a_learner():
    learner, batch = make_learner(**PLAIN, gradient_weight=0.3).eval(), make_batch()
    losses = learner(batch)
    torch.testing.assert_close(losses["loss"], losses["loss_head"] + 0.3 * losses["loss_gradient"])
    outside = {**batch, "labels": batch["labels"].clone()}
    outside["labels"][1, :, :, 52:56] = 1  # in the padding
    assert torch.equal(learner(outside)["loss_gradient"], losses["loss_gradient"])
    unknown = {**batch, "label_mask": torch.zeros_like(batch["labels"], dtype=torch.bool)}
    assert learner(unknown)["loss_gradient"] == 0


def edge_gradients(**extra: torch.Tensor) -> list[float]:
    """Return the largest gradient of the detail path, of the slopes, and of what predicts their input."""
    torch.manual_seed(0)
    learner = make_learner(**PLAIN)
    learner({**make_batch(), **extra})["loss"].backward()
    student = learner.student
    parts = student.model.detail_path, student.head.coefficients, student.model.decoder.upsamplers
    return [max(p.grad.abs().max().item() for p in part.parameters()) for part in parts]


def test_images_without_true_edges_do_not_teach_the_layers_that_draw_them():
    detail, slopes, below = edge_gradients(learns_edges=torch.tensor([False, False]))
    assert detail == slopes == 0
    assert below > 0
    for chosen in ([True, True], [True, False]):
        assert min(edge_gradients(learns_edges=torch.tensor(chosen))) > 0
    assert edge_gradients(learns_edges=torch.tensor([True, True])) == pytest.approx(edge_gradients())


def test_losses_do_not_depend_on_what_learns():
    learner, batch = make_learner(**PLAIN).eval(), make_batch()
    held = learner({**batch, "learns_edges": torch.tensor([False, True])})
    assert torch.equal(held["loss"], learner(batch)["loss"])
    assert not learner.student.head.coefficients._forward_hooks
