"""Closer looks in training: what they ask, where they look, and that mattes of inference gain by them."""

import pytest
import torch
from tiny_learner import make_batch
from tiny_model import tiny_masked_model

from fclm_hf import refinement_fclm
from fclm_hf.refinement_fclm import refine_alphas
from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings
from fclm_hf.training.objective import looks
from fclm_hf.training.objective.looks import (
    encode_windows,
    find_windows,
    look_again,
    make_generators,
    make_window_inputs,
)


LOOK, TILE = 84, 56


def make_learner(seed: int = 0, **settings) -> ForegroundConsistentLearner:
    """Return a learner whose student takes closer looks."""
    settings = TrainingSettings(**{"distillation": "none", "alignment": "none", **settings})
    model = tiny_masked_model(seed, refinement_size=LOOK, tile_size=TILE)
    return ForegroundConsistentLearner(model.train(), settings=settings)


def make_disc(side: int = 112, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the alpha (side, side) of a disc with an edge of 16 pixels, and its normalized image."""
    torch.manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    row, column = 0.4 * side + 0.2 * side * torch.rand(2)
    alpha = ((0.25 * side - torch.hypot(rows - row, columns - column)) / 16 + 0.5).clamp(0, 1)
    colors = torch.randn(2, 3, 1, 1) + torch.tensor([1.0, -1.0])[:, None, None, None]
    object_color, background = colors + 0.1 * torch.randn(2, 3, side, side)
    return alpha, torch.lerp(background, object_color, alpha)


def make_disc_batch(side: int = 112, seed: int = 0, count: int = 1) -> dict[str, torch.Tensor]:
    """Return pairs with a disc, asked for by a box."""
    discs = [make_disc(side, count * seed + number) for number in range(count)]
    images = torch.stack([image for _, image in discs])
    labels = torch.stack([alpha[None] for alpha, _ in discs])
    boxes = torch.tensor([[[10.0, 10.0, side - 10, side - 10]]]).repeat(count, 1, 1)
    return {"pixel_values_a": images, "pixel_values_b": -images, "labels": labels, "input_boxes": boxes}


def record_sizes(learner: ForegroundConsistentLearner, monkeypatch) -> list[tuple]:
    """Return a list that grows by the shape and the encoder size of all that is encoded."""
    sizes, encode = [], learner.student.get_image_embeddings

    def record(pixel_values, *args, **kwargs):
        sizes.append((*pixel_values.shape, kwargs.get("encoder_size")))
        return encode(pixel_values, *args, **kwargs)

    monkeypatch.setattr(learner.student, "get_image_embeddings", record)
    return sizes


def run(learner: ForegroundConsistentLearner, batch: dict[str, torch.Tensor], seed: int = 0):
    """Return the losses of a batch, from the same random numbers each time."""
    torch.manual_seed(seed)
    return learner(batch)


def test_looks_add_their_losses_and_change_no_other(monkeypatch):
    """And without them no random number is drawn for them."""
    batch = make_disc_batch(96)
    settings = {"alignment": "full", "click_rounds": 2, "gradient_weight": 0.5, "head_weight": 0.25}
    plain = run(make_learner(**settings), batch)
    state = torch.get_rng_state()
    learner = make_learner(**settings, look_share=1, tile_share=1)
    sizes = record_sizes(learner, monkeypatch)
    losses = run(learner, batch)
    assert not torch.equal(torch.get_rng_state(), state)
    assert set(losses) == {*plain, "loss_look", "loss_tiles"}
    assert all(torch.equal(losses[name], value) for name, value in plain.items() if name != "loss")
    extra = losses["loss_look"] + losses["loss_tiles"]
    torch.testing.assert_close(losses["loss"], plain["loss"] + extra)
    assert sizes == [(2, 3, 96, 96, None), (2, 3, 96, 96, LOOK), (1, 3, TILE, TILE, TILE)]
    for name in ("loss_look", "loss_tiles"):
        learner.zero_grad()
        losses[name].backward(retain_graph=True)
        model = learner.student.model
        for part in (model.backbone, model.detail_path, model.decoder, model.prompt_encoder.mask_detail_paint):
            assert max(p.grad.abs().max() for p in part.parameters() if p.grad is not None) > 0


def test_off_means_off(monkeypatch):
    def fail(*_):
        raise AssertionError

    for name in ("share_choice", "look_again", "find_windows"):
        monkeypatch.setattr(f"fclm_hf.training.objective.learner.{name}", fail)
    learner, batch = make_learner(), make_batch()
    state = torch.get_rng_state()
    assert set(learner(batch)) == {"loss", "loss_head"}
    assert torch.equal(torch.get_rng_state(), state)
    losses = make_learner(look_share=1, tile_share=1).eval()(batch)
    assert losses["loss_look"] == losses["loss_tiles"] == 0
    assert torch.equal(losses["loss"], losses["loss_head"])


def test_shares_are_those_of_the_steps():
    learner = make_learner()
    torch.manual_seed(0)
    drawn = [[learner._draw_seed(share) is not None for _ in range(500)] for share in (0.3, 0.6, 1)]
    assert [sum(each) / 500 for each in drawn] == pytest.approx([0.3, 0.6, 1], abs=0.05)


def test_prompts_of_a_second_look(monkeypatch):
    """Four objects: a matte alone, a box, a given mask, and nothing found; and one with a given mask and a click."""
    monkeypatch.setattr(looks, "BOX_PROB", 1.0)
    monkeypatch.setattr(looks, "DROP_PROB", 0.0)
    alphas, given = torch.zeros(2, 5, 40, 50), torch.full((2, 5, 40, 50), -1.0)
    alphas[:, :, 10:30, 20:35] = 0.9
    alphas[:, 3] = 0.1
    given[:, 2], given[:, 4] = 0, 0
    given[:, 2, 5:15, 5:25] = given[:, 4, 5:15, 5:25] = 1
    boxes = torch.zeros(2, 5, 4)
    boxes[:, 1] = torch.tensor([3.0, 4.0, 45.0, 38.0])
    labels = torch.tensor([[[1], [1], [-10], [1], [0]]] * 2)
    inputs = {
        "input_masks": given,
        "input_boxes": boxes,
        "input_points": torch.full((2, 5, 1, 2), 20.0),
        "input_labels": labels,
        "input_ids": torch.ones(2, 5, 4, dtype=torch.long),
        "attention_mask": torch.ones(2, 5, 4, dtype=torch.long),
        "labels": alphas,
    }
    again = look_again(alphas, inputs, make_generators(0, 1))
    assert again["object_mask"].tolist() == [[True, True, True, False, True]] * 2
    found, own = [20.0, 10.0, 35.0, 30.0], [5.0, 5.0, 25.0, 15.0]
    assert again["input_boxes"][0].tolist() == [found, boxes[0, 1].tolist(), own, [0.0] * 4, found]
    assert torch.equal(again["input_masks"][0, [0, 1, 4]], alphas[0, [0, 1, 4]])
    assert torch.equal(again["input_masks"][0, 2], given[0, 2])
    for name in ("input_points", "input_labels", "attention_mask", "labels"):
        assert torch.equal(again[name], inputs[name])
    assert boxes[0, 0].sum() == 0

    monkeypatch.setattr(looks, "BOX_PROB", 0.0)
    monkeypatch.setattr(looks, "DROP_PROB", 1.0)
    object_mask = torch.tensor([[True, True, False, True, True]] * 2)
    again = look_again(alphas, {**inputs, "object_mask": object_mask}, make_generators(0, 1))
    assert torch.equal(again["input_boxes"], boxes)
    assert (again["input_labels"] == -10).all()
    assert (again["attention_mask"] == 0).all()
    assert again["object_mask"].tolist() == [[True, True, False, False, True]] * 2


@torch.no_grad()
def test_windows_are_tiles_of_inference(monkeypatch):
    """The same places, pixels and details, with the true alphas of these places."""
    monkeypatch.setattr(refinement_fclm, "OVERLAP", 16)
    student, batch = make_learner().student.eval(), make_disc_batch(150, count=2)
    images = torch.cat([batch["pixel_values_a"], batch["pixel_values_b"]])
    pixel_mask = torch.ones(4, 150, 150, dtype=torch.long)
    pixel_mask[1::2, 40:] = 0  # lower than a tile
    batch["labels"][1] = batch["labels"][1].roll(-50, dims=-2)
    labels = torch.cat([batch["labels"]] * 2) * pixel_mask[:, None]
    embeddings = student.get_image_embeddings(images, pixel_mask)
    for seed in range(2):
        rngs = make_generators(seed, 2)
        windows = find_windows(labels, torch.ones(4, 1, dtype=torch.bool), embeddings.image_sizes, TILE, rngs)
        assert [window.image % 2 for window in windows] == [0, 1]
        assert windows[0].region in list(refinement_fclm.find_tiles(labels[0, 0], TILE))
        assert windows[1].region[3] == 40
        encoded = encode_windows(student, images, embeddings, windows, TILE)
        inputs = make_window_inputs(windows, labels, torch.cat([batch["labels"]] * 2), (TILE, TILE), rngs)
        x0, y0, x1, y1 = windows[0].region
        assert torch.equal(inputs["labels"][0, 0], labels[0, 0, y0:y1, x0:x1])
        assert (inputs["input_masks"][0, 0] - inputs["labels"][0, 0]).abs().mean() < 0.25
        assert (inputs["input_masks"][1, 0, 40:] == -1).all()
        assert inputs["input_masks"][1, 0, :40].min() >= 0
        crop = images[windows[0].image, None, :, y0:y1, x0:x1]
        own = student.get_image_embeddings(images[windows[0].image, None])
        expected = student.get_image_embeddings(crop, encoder_size=TILE, detail_maps=own.crop_details(x0, y0, x1, y1))
        masks = inputs["input_masks"]
        alphas = student(image_embeddings=encoded, input_masks=masks).alphas[:1]
        torch.testing.assert_close(alphas, student(image_embeddings=expected, input_masks=masks[:1]).alphas)
    assert encoded.image_sizes.tolist() == [[TILE, TILE], [40, TILE]]


@pytest.mark.parametrize("case", ["small", "hard", "coarse", "unknown", "padding"])
def test_no_window_without_a_soft_edge_to_learn(case, monkeypatch):
    batch = make_disc_batch(TILE if case == "small" else 112)
    if case == "hard":
        batch["labels"] = (batch["labels"] > 0.5).float()
    elif case == "coarse":
        batch["learns_edges"] = torch.zeros(1, dtype=torch.bool)
    elif case == "unknown":
        batch["label_mask"] = batch["labels"] < 0.99
    elif case == "padding":
        batch["object_mask"] = torch.zeros(1, 1, dtype=torch.bool)
    learner = make_learner(tile_share=1)
    sizes = record_sizes(learner, monkeypatch)
    losses = learner(batch)
    assert len(sizes) == 1
    assert losses["loss_tiles"] == 0


def test_a_process_without_windows_takes_the_pass_of_the_others(monkeypatch):
    """Nothing counts then, but batch norms and reductions of several processes wait for it."""
    monkeypatch.setattr("fclm_hf.training.objective.learner.any_process", lambda flag: True)
    learner, batch = make_learner(tile_share=1, look_share=1), make_disc_batch(96)
    batch["labels"] = (batch["labels"] > 0.5).float()
    batch["object_mask"] = torch.zeros(1, 1, dtype=torch.bool)
    sizes = record_sizes(learner, monkeypatch)
    losses = learner(batch)
    assert [size[-1] for size in sizes] == [None, LOOK, TILE]
    assert losses["loss_look"] == losses["loss_tiles"] == 0
    losses["loss"].backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters())


def test_photos_with_coarse_masks_take_second_looks():
    learner, batch = make_learner(look_share=1, tile_share=1), make_disc_batch(96, count=2)
    batch["labels"][0] = batch["labels"][0].round()
    batch["label_mask"] = torch.ones_like(batch["labels"], dtype=torch.bool)
    batch["label_mask"][0, :, :20] = False
    batch["learns_edges"] = torch.tensor([False, True])
    losses = learner(batch)
    assert losses["loss_look"] > 0
    assert losses["loss_tiles"] > 0
    losses["loss"].backward()


def test_training_with_tiles_lowers_the_error_of_refined_alphas(monkeypatch):
    """Only what reads masks learns, to which no other loss than that of the windows gives a gradient."""
    monkeypatch.setattr(refinement_fclm, "OVERLAP", 16)
    learner = make_learner(tile_share=1)
    student, reads_masks = learner.student, learner.student.model.prompt_encoder
    learner.requires_grad_(False)
    trained = [p for name, p in reads_masks.named_parameters() if name.startswith("mask_")]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=3e-2)

    @torch.no_grad()
    def measure() -> float:
        student.eval()
        errors = []
        for seed in (900, 901):
            alpha, image = make_disc(seed=seed)
            low = torch.nn.functional.adaptive_avg_pool2d(alpha[None, None], 10)
            first = torch.nn.functional.interpolate(low, size=alpha.shape, mode="bilinear")[0]
            errors.append((refine_alphas(student, image[None], first, {}) - alpha).abs().mean().item())
        return sum(errors) / len(errors)

    before = measure()
    learner.train()
    student.model.detail_path.eval()
    assert not learner(make_disc_batch())["loss_head"].requires_grad
    for step in range(8):
        learner.train()
        student.model.detail_path.eval()
        learner(make_disc_batch(seed=step))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert measure() < 0.5 * before


def test_refused_shares():
    for name in ("look_share", "tile_share"):
        for share in (-0.1, 1.5):
            with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got {share}"):
                TrainingSettings(**{name: share}, prompts="all")
        with pytest.raises(ValueError, match=f"{name} requires prompts \"all\", got 'box'"):
            TrainingSettings(**{name: 0.5}, prompts="box")


@pytest.mark.parametrize(
    ("fields", "settings", "told"),
    [
        ({}, {"look_share": 0.5}, "look_share must be 0 for a model without config.refinement_size, got 0.5"),
        (
            {"refinement_size": LOOK},
            {"look_share": 1, "tile_share": 0.2},
            "tile_share must be 0 for a model without config.tile_size, got 0.2",
        ),
        (
            {"dense_prompts": False, "semantic_head_size": None, "refinement_size": LOOK, "tile_size": TILE},
            {"tile_share": 1.0},
            "tile_share must be 0 for a model without config.dense_prompts, got 1.0",
        ),
    ],
)
def test_models_without_closer_looks_are_refused(fields, settings, told):
    with pytest.raises(ValueError, match=told):
        ForegroundConsistentLearner(
            tiny_masked_model(**fields),
            settings=TrainingSettings(distillation="none", alignment="none", **settings),
        )
