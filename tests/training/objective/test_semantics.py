"""Contrast of names, the semantic map that is held, and what of the model learns from them."""

import pytest
import torch
from tiny_learner import make_batch, make_learner
from tiny_model import tiny_model
from torch import nn

from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings, name_contrast_loss, semantic_distance
from fclm_hf.training.objective.semantics import pool_regions
from fclm_hf.training.optimization import parameter_groups


PLAIN = {"distillation": "none", "alignment": "none"}


def make_named_batch() -> dict[str, torch.Tensor]:
    """Return a batch whose first pair has two named objects and whose second has one without a name."""
    batch = make_batch()
    names = torch.zeros(2, 2, 3, dtype=torch.bool)
    names[0, 0, [0, 2]], names[0, 1, 1] = True, True
    return {
        **batch,
        "region_alphas": (255 * batch["labels"]).to(torch.uint8),
        "region_names": names,
        "name_ids": torch.randint(0, 20, (3, 5)),
    }


def test_regions_are_averaged_by_their_weights():
    semantic_map = torch.arange(4.0).view(1, 1, 2, 2)
    regions = torch.zeros(1, 3, 4, 4)
    regions[0, 0, :2, :2], regions[0, 1, :, 2:] = 1, 1
    regions[0, 0, 2, 2] = 1  # a quarter of the last cell
    expected = torch.tensor([[[(0 + 0.25 * 3) / 1.25], [2.0], [0.0]]])
    torch.testing.assert_close(pool_regions(semantic_map, regions), expected)


def test_contrast_sums_over_the_names_that_fit():
    names, regions = torch.eye(4), torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 7.0]])
    is_match = torch.tensor([[True, True, False, False], [False] * 4])
    shares = (4 * regions[0]).softmax(0)
    torch.testing.assert_close(name_contrast_loss(regions, 3 * names, is_match), -(shares[0] + shares[1]).log())
    regions.requires_grad_(True)
    name_contrast_loss(regions, names, torch.zeros_like(is_match)).backward()
    assert torch.equal(regions.grad, torch.zeros_like(regions))


def test_contrast_teaches_the_semantic_head_but_not_a_frozen_tower():
    student = tiny_model().train()
    student.model.freeze_text_encoder()
    learner = ForegroundConsistentLearner(student, settings=TrainingSettings(**PLAIN, name_weight=0.5, head_weight=0.0))
    losses = learner(make_named_batch())
    torch.testing.assert_close(losses["loss"], 0.5 * losses["loss_names"])
    losses["loss"].backward()
    model = student.model
    assert all(p.grad.abs().max() > 0 for p in model.semantic_head.parameters())
    assert all(p.grad is None for p in model.text_model.parameters())


def test_contrast_sees_regions_and_names_only():
    """The same loss from the maps of both images, and none from the object that has no name."""
    learner, batch = make_learner(**PLAIN, name_weight=1.0).eval(), make_named_batch()
    loss = learner(batch)["loss_names"]
    student = learner.student
    with torch.no_grad():
        sizes = torch.tensor([[48, 64], [48, 48]])
        names = student.model.get_text_features(batch["name_ids"]).pooler_output
        expected = []
        for image in "ab":
            semantic_map = student.get_image_embeddings(
                batch[f"pixel_values_{image}"], batch["pixel_mask"]
            ).semantic_map
            regions = student.model.resize_and_pad(batch["labels"], sizes)
            weights = nn.functional.adaptive_avg_pool2d(regions, semantic_map.shape[-2:])[0]
            for weight, fitting in zip(weights, batch["region_names"][0], strict=True):
                mean = (semantic_map[0] * weight).sum((1, 2)) / weight.sum()
                logits = 4 * mean @ nn.functional.normalize(names, dim=-1).T
                expected.append(-logits.softmax(0)[fitting].sum().log())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-2, atol=1e-2)
    batch["region_alphas"][1] = 0
    assert torch.equal(learner(batch)["loss_names"], loss)


def test_the_semantic_map_is_held_to_where_it_started():
    learner, batch = make_learner(**PLAIN, semantic_weight=2.0).eval(), make_batch()
    assert learner(batch)["loss_semantic"].item() == 0
    with torch.no_grad():
        learner.student.model.semantic_head.projection.bias += 0.5
    losses = learner.train()(batch)
    assert not learner.semantic_teacher.training
    assert losses["loss_semantic"] > 0.01
    torch.testing.assert_close(losses["loss"], losses["loss_head"] + 2 * losses["loss_semantic"])
    losses["loss_semantic"].backward()
    assert learner.student.model.backbone.embeddings.patch_embeddings.projection.weight.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in learner.semantic_teacher.parameters())
    assert not any("semantic_teacher" in name for name in learner.auxiliary_state_dict())


def test_the_semantic_map_is_held_to_that_of_another_model():
    student, other = tiny_model(seed=0), tiny_model(seed=1)
    settings = TrainingSettings(**PLAIN, semantic_weight=1.0)
    learner = ForegroundConsistentLearner(student, settings=settings, semantic_teacher=other).eval()
    batch = make_batch()
    maps = [m.get_image_embeddings(batch["pixel_values_a"]).semantic_map for m in (student, other)]
    batch = {**batch, "pixel_values_b": batch["pixel_values_a"]}
    del batch["pixel_mask"]
    torch.testing.assert_close(learner(batch)["loss_semantic"], semantic_distance(*maps))


@pytest.mark.parametrize("name", ["name_weight", "semantic_weight"])
def test_models_without_a_semantic_head_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be 0 for a model without a semantic head, got 1.0"):
        ForegroundConsistentLearner(
            tiny_model(semantic_head_size=None), settings=TrainingSettings(**PLAIN, **{name: 1.0})
        )
    with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
        TrainingSettings(**{name: -1})


def test_other_teachers_are_refused():
    settings = TrainingSettings(**PLAIN, semantic_weight=1.0)
    with pytest.raises(ValueError, match="semantic_teacher must have a semantic head"):
        ForegroundConsistentLearner(
            tiny_model(), settings=settings, semantic_teacher=tiny_model(semantic_head_size=None)
        )


def test_batches_without_regions_are_refused():
    with pytest.raises(ValueError, match="batch must contain region_alphas, region_names, name_ids"):
        make_learner(**PLAIN, name_weight=1.0)(make_batch())


def test_the_semantic_head_learns_like_the_backbone():
    model = tiny_model()
    head = {id(p) for p in model.model.semantic_head.parameters()}
    plain, held = (parameter_groups(model, 1e-3, 0.1, 0.01, on) for on in (False, True))
    assert not head & {id(p) for p in plain[0]["params"]}
    assert head <= {id(p) for p in held[0]["params"]}
    assert not head & {id(p) for group in held[1:] for p in group["params"]}
    assert sum(len(group["params"]) for group in plain) == sum(len(group["params"]) for group in held)
