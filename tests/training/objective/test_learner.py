"""The learner: Eq. 9 and the switches of Tables 4-6, one run of encoder and teacher, state, devices, precision."""

import pytest
import torch
from tiny_learner import make_batch, make_learner
from tiny_model import tiny_model, tiny_teacher
from torch import nn
from transformers import DepthAnythingForDepthEstimation

from fclm_hf import FCLMForImageMatting
from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings, foreground_transport_loss


def count_images(module: nn.Module) -> list[int]:
    """Grows by the batch size at every run of `module`."""
    counts: list[int] = []
    module.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    return counts


def test_loss_is_equation_9():
    weights = {"kd_weight": 0.5, "adv_weight": 2.0, "ot_weight": 3.0, "head_weight": 0.25}
    losses = make_learner(**weights)(make_batch())
    expected = sum(weight * losses[f"loss_{name[:-7]}"] for name, weight in weights.items())
    torch.testing.assert_close(losses["loss"], expected)
    assert all(torch.isfinite(value) and value.shape == () for value in losses.values())


def test_parts_are_computed_from_the_plain_features():
    """Each loss once more from its own equation, with features had from the student and the teacher directly."""
    learner, batch = make_learner(exchange_ratio=0.0).eval(), make_batch()
    del batch["pixel_mask"]
    losses = learner(batch)
    student, pixels = learner.student, (batch["pixel_values_a"], batch["pixel_values_b"])
    with torch.no_grad():
        features = [student.model.get_feature_maps(x).feature_maps[-1] for x in pixels]
        sizes = torch.tensor([[48, 64]] * 2)
        targets = [learner.teacher(student.model.resize_and_pad(x, sizes)) for x in pixels]
        inside = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
        inside[:, :, :3] = True  # 64 x 48 pixels on a square input of 56
        kd = sum(learner.distillation(f, *target, inside) for f, target in zip(features, targets, strict=True))
        tokens = [f[:, :, :3].flatten(2).mT for f in features]
        p_a, p_b = (learner.discriminator(t).sigmoid() for t in tokens)
        adv = -(1 - p_a).log().mean() - p_b.log().mean()
        alpha = student.model.resize_and_pad(batch["labels"].amax(1, keepdim=True), sizes)
        foreground = nn.functional.max_pool2d(alpha, 14)[:, :, :3].flatten(1) > 0
        ot = foreground_transport_loss(*tokens, foreground)
        prompts = {name: value for name, value in batch.items() if name.startswith(("input", "attention"))}
        head = [student(x, labels=batch["labels"], **prompts).loss for x in pixels]
    torch.testing.assert_close(losses["loss_kd"], kd)
    torch.testing.assert_close(losses["loss_adv"], adv)
    torch.testing.assert_close(losses["loss_ot"], ot)
    torch.testing.assert_close(losses["loss_head"], sum(head) / 2)
    assert foreground.sum() not in (0, foreground.numel())


def test_encoder_and_teacher_see_each_image_once_and_the_text_tower_each_text():
    learner, batch, texts = make_learner(), make_batch(), []
    model = learner.student.model
    encoder, teacher = count_images(model.backbone), count_images(learner.teacher.model.backbone)
    model.text_model.register_forward_pre_hook(
        lambda _, args, kwargs: texts.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    learner(batch)
    assert encoder == [4]
    assert teacher == [4]
    assert texts == [(batch["labels"].shape[:2].numel(), batch["input_ids"].shape[-1])]


TABLE_4 = {
    "none": [],
    "vanilla": ["projection"],
    "foreground_a": ["foreground"],
    "foreground_b": ["foreground"],
    "foreground": ["foreground"],
    "full": ["foreground", "background"],
}


@pytest.mark.parametrize("row", TABLE_4)
def test_rows_of_table_4(row):
    learner = make_learner(distillation=row, alignment="none")
    seen = [] if learner.teacher is None else count_images(learner.teacher.model.backbone)
    batch = make_batch()
    losses = learner(batch)
    assert set(losses) == {"loss", "loss_head"} | ({"loss_kd"} if TABLE_4[row] else set())
    losses["loss"].backward()
    built = {} if learner.distillation is None else dict(learner.distillation.named_children())
    assert list(built) == TABLE_4[row]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for net in built.values() for p in net.parameters())
    assert learner.discriminator is None
    assert sum(seen) == {"none": 0, "foreground_a": 2, "foreground_b": 2}.get(row, 4)
    if row in ("foreground_a", "foreground_b"):
        for image in "ab":
            changed = {**batch, f"pixel_values_{image}": torch.randn(2, 3, 48, 64)}
            same = torch.equal(learner(changed)["loss_kd"], losses["loss_kd"])
            assert same == (row != f"foreground_{image}")


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("none", set()),
        ("adversarial", {"loss_adv", "domain_accuracy"}),
        ("transport", {"loss_ot"}),
        ("full", {"loss_adv", "domain_accuracy", "loss_ot"}),
    ],
)
def test_rows_of_table_5(row, names):
    learner = make_learner(alignment=row)
    losses = learner(make_batch())
    assert set(losses) == {"loss", "loss_head", "loss_kd"} | names
    assert (learner.discriminator is not None) == ("loss_adv" in names)
    losses["loss"].backward()
    if learner.discriminator is not None:
        assert all(p.grad.abs().max() > 0 for p in learner.discriminator.parameters())


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ("text", {"input_ids", "attention_mask"}),
        ("point", {"input_points", "input_labels"}),
        ("box", {"input_boxes"}),
        ("all", {"input_ids", "attention_mask", "input_points", "input_labels", "input_boxes", "input_masks"}),
    ],
)
def test_rows_of_table_6(row, keys):
    learner, batch, given = make_learner(distillation="none", alignment="none", prompts=row), make_batch(), {}
    learner.student.register_forward_pre_hook(lambda _, args, kwargs: given.update(kwargs), with_kwargs=True)
    learner(batch)
    assert set(given) - {"image_embeddings", "labels", "text_embeds"} == keys
    assert all(torch.equal(given[key], torch.cat([batch[key]] * 2)) for key in [*keys, "labels"])


def test_exchange_for_selects_the_parts_that_see_exchanged_tokens():
    batch, seen = make_batch(), {}
    for readers in ((), ("decoder",), ("discriminator",), ("transport",)):
        torch.manual_seed(3)
        learner = make_learner(distillation="none", exchange_for=readers, exchange_ratio=0.5)
        seen[readers] = learner(batch)
    for reader, name in (("decoder", "loss_head"), ("discriminator", "loss_adv"), ("transport", "loss_ot")):
        for other in seen:
            same = torch.equal(seen[other][name], seen[()][name])
            assert same == (reader not in other)


def test_the_reversal_follows_the_progress():
    batch = make_batch()

    def encoder_gradient(progress: float | None) -> torch.Tensor:
        torch.manual_seed(0)
        learner = make_learner(distillation="none", alignment="adversarial", head_weight=0.0, exchange_ratio=0.0)
        if progress is not None:
            learner.set_progress(progress)
        learner(batch)["loss"].backward()
        return learner.student.model.backbone.embeddings.cls_token.grad

    full = encoder_gradient(1.0)
    assert full.abs().max() > 0
    assert torch.equal(encoder_gradient(None), full)
    assert encoder_gradient(0.0).abs().max() == 0
    expected = full * (2 / (1 + 2.718281828**-2) - 1) / (2 / (1 + 2.718281828**-10) - 1)
    torch.testing.assert_close(encoder_gradient(0.2), expected, rtol=1e-4, atol=1e-9)
    with pytest.raises(ValueError, match="progress must be in"):
        make_learner(distillation="none").set_progress(1.5)


def test_pooled_discriminator_judges_the_mean_token_of_the_image():
    learner = make_learner(distillation="none", alignment="adversarial", pooled_discriminator=True, exchange_ratio=0)
    tokens = []
    learner.discriminator.register_forward_pre_hook(lambda _, args: tokens.append(args[0]))
    batch = make_batch()
    learner(batch)
    pixels, mask = (
        torch.cat([batch[key] for key in pair]) for pair in (["pixel_values_a", "pixel_values_b"], ["pixel_mask"] * 2)
    )
    maps = learner.student.model.get_feature_maps(pixels, mask).feature_maps[-1]
    torch.testing.assert_close(tokens[0][0], maps[0, :, :3].mean((1, 2)))
    torch.testing.assert_close(tokens[0][3], maps[3].mean((1, 2)))  # 48 x 48: fills the padded input


def test_foreground_given_or_from_labels():
    batch, learner = make_batch(), make_learner(distillation="none", alignment="transport")
    default = learner(batch)["loss_ot"]
    union = batch["labels"].amax(1, keepdim=True)
    assert torch.equal(learner({**batch, "foreground": union})["loss_ot"], default)
    assert learner({**batch, "foreground": torch.zeros_like(union)})["loss_ot"].item() == 0
    padded = batch["labels"].clone()
    padded[:, 1] = 1.0
    masks = {"object_mask": torch.tensor([[True, False]] * 2)}
    only_first = learner({**batch, "foreground": batch["labels"][:, :1]})["loss_ot"]
    assert torch.equal(learner({**batch, "labels": padded, **masks})["loss_ot"], only_first)


def test_any_level_of_a_pyramid():
    pytest.importorskip("timm")
    backbone = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [2, 3, 4]}
    student = tiny_model(backbone_config=backbone, coarse_level=1, encoder_size=64).train()
    for level, width in ((0, 40), (1, 112), (-1, 320)):
        learner = ForegroundConsistentLearner(student, tiny_teacher(), TrainingSettings(feature_level=level))
        assert learner.discriminator.layers[0].in_features == width
        losses = learner(make_batch())
        assert all(torch.isfinite(value) for value in losses.values())
        assert "loss_kd" in losses


def test_only_the_student_is_saved_and_the_rest_resumes(tmp_path):
    learner = make_learner()
    learner.set_progress(0.25)
    learner.student.save_pretrained(tmp_path)
    again = FCLMForImageMatting.from_pretrained(tmp_path)
    assert set(again.state_dict()) == set(learner.student.state_dict())
    state = learner.auxiliary_state_dict()
    kinds = {name.split(".")[0] for name in state}
    assert kinds == {"distillation", "discriminator", "progress"}
    torch.save(state, tmp_path / "auxiliary.pt")
    other = make_learner()
    for parameter in (*other.distillation.parameters(), *other.discriminator.parameters()):
        nn.init.zeros_(parameter)
    other.load_auxiliary_state_dict(torch.load(tmp_path / "auxiliary.pt"))
    assert all(torch.equal(value, state[name]) for name, value in other.auxiliary_state_dict().items())
    with pytest.raises(ValueError, match=r"same settings.*discriminator"):
        make_learner(alignment="transport").load_auxiliary_state_dict(state)


def test_the_teacher_stays_as_it_is():
    learner = make_learner().train()
    assert learner.student.training
    assert not learner.teacher.model.training
    learner(make_batch())["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in learner.teacher.parameters())


def test_a_step_on_the_meta_device():
    learner = make_learner(transport_max_tokens=8).to("meta")
    losses = learner({name: value.to("meta") for name, value in make_batch().items()})
    losses["loss"].backward()
    assert losses["loss"].device.type == "meta"
    assert len(losses) == 6
    trained = [p for p in learner.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


@pytest.mark.slow
def test_the_whole_forward_compiles_once():
    learner, batch = make_learner(transport_iterations=20), make_batch()
    torch.manual_seed(0)
    expected = learner(batch)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(learner, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    losses = compiled(batch)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    learner.set_progress(0.3)
    compiled(batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_under_autocast(dtype):
    learner = make_learner()
    with torch.autocast("cpu", dtype):
        losses = learner(make_batch())
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters())


def test_a_step_in_bfloat16():
    learner = make_learner().to(torch.bfloat16)
    batch = {name: value.bfloat16() if "pixel_values" in name else value for name, value in make_batch().items()}
    assert all(torch.isfinite(value) for value in learner(batch).values())


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"labels": None}, {}, "must contain labels .*, got pixel_values_a, "),
        ({"input_points": None}, {"prompts": "point"}, "must contain input_points .prompts: 'point'"),
        (
            {"pixel_values_b": torch.zeros(2, 3, 32, 32)},
            {},
            "pixel_values_a and pixel_values_b must have the same shape",
        ),
    ],
)
def test_bad_batches(changes, settings, message):
    with pytest.raises(ValueError, match=message):
        make_learner(distillation="none", **settings)({**make_batch(), **changes})


@pytest.fixture(scope="module")
def parts() -> tuple[FCLMForImageMatting, DepthAnythingForDepthEstimation]:
    return tiny_model(), tiny_teacher()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distillation": "some"}, "distillation must be one of"),
        ({"alignment": "ot"}, "alignment must be one of"),
        ({"prompts": "click"}, "prompts must be one of"),
        ({"exchange_for": ("encoder",)}, "exchange_for must name"),
        ({"exchange_ratio": 25}, "exchange_ratio"),
        ({"transport_epsilon": 0.0}, "transport_epsilon"),
        ({"ot_weight": -1.0}, "ot_weight must be at least 0"),
        ({"depth_threshold": 25.0}, "depth_threshold must be between 0 and 1"),
        ({"transport_iterations": 0}, "transport_iterations must be at least 1"),
        ({"transport_max_tokens": 1}, "transport_max_tokens must be at least 2"),
        ({"feature_level": 2}, "feature_level must index one of the 2 feature maps of the backbone, got 2"),
        ({"teacher_size": 100}, "teacher_size must be a positive multiple of 14"),
    ],
)
def test_bad_settings(parts, settings, message):
    with pytest.raises(ValueError, match=message):
        ForegroundConsistentLearner(*parts, TrainingSettings(**settings))
    with pytest.raises(ValueError, match="teacher must not be None with distillation 'full'"):
        ForegroundConsistentLearner(parts[0])


def test_coarse_photos_do_not_teach_the_detail_path():
    learner, batch = make_learner(distillation="none", alignment="none"), make_batch()
    batch["label_mask"] = torch.ones_like(batch["labels"], dtype=torch.bool)
    batch["label_mask"][:, :, 20:24] = False
    learner(batch)["loss"].backward()
    details = learner.student.model.detail_path
    assert all(p.grad is None or not p.grad.any() for p in details.parameters())
    assert learner.student.head.coefficients.weight.grad.any()
    batch["label_mask"][0] = True
    learner(batch)["loss"].backward()
    assert details.basis.weight.grad.any()
