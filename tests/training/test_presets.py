"""The paper's models from checkpoints: small ones of the same classes, made here."""

import pytest
import torch
from tiny_checkpoints import DECODER, save_checkpoints
from transformers import CLIPModel, Dinov2Config, Dinov2Model

from fclm_hf import FCLMProcessor
from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings, load_preset, make_optimizer


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def make_batch(processor: FCLMProcessor) -> dict[str, torch.Tensor]:
    images = [torch.randint(0, 255, (3, 60, 64), dtype=torch.uint8) for _ in range(2)]
    masks = [[torch.zeros(60, 64).index_fill(0, torch.arange(10, 40), 1.0)]] * 2
    inputs = processor(images=images, text=[["a low er"]] * 2, segmentation_maps=masks, return_tensors="pt")
    pixels = inputs.pop("pixel_values")
    return {"pixel_values_a": pixels, "pixel_values_b": pixels.flip(0), **inputs}


@pytest.mark.parametrize("name", ["matting-small", "dis-base"])
def test_parts_start_from_the_checkpoints(name, checkpoints):
    preset = load_preset(name, **checkpoints, **DECODER)
    student = preset.student
    assert student.config.task == {"matting-small": "matting", "dis-base": "segmentation"}[name]
    assert student.config.backbone_config.out_indices == [2, 4, 6, 8]
    dinov2, clip = (
        cls.from_pretrained(checkpoints[key]).eval()
        for cls, key in ((Dinov2Model, "backbone"), (CLIPModel, "text_encoder"))
    )
    image = torch.randn(1, 3, 56, 56)
    tokens = preset.processor.tokenizer(["low er", "e"], padding=True, return_tensors="pt")
    with torch.no_grad():
        features = student.eval().model.backbone(image).feature_maps[-1]
        expected = dinov2(image).last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(
            student.model.get_text_features(**tokens).pooler_output, clip.get_text_features(**tokens).pooler_output
        )
    assert checkpoints["backbone"] not in student.config.to_json_string()
    assert not any(p.requires_grad for p in student.model.text_model.parameters())
    assert all(p.requires_grad for p in student.model.backbone.parameters())


def test_a_step_of_the_whole(checkpoints):
    preset = load_preset("matting-small", **checkpoints, settings=TrainingSettings(prompts="text"), **DECODER)
    assert preset.settings.prompts == "text"
    assert preset.settings.image_std == (0.229, 0.224, 0.225)
    assert list(preset.processor.image_processor.image_mean) == [0.485, 0.456, 0.406]
    learner = ForegroundConsistentLearner(preset.student.train(), preset.teacher, preset.settings)
    optimizer = make_optimizer(learner)
    assert optimizer.defaults["lr"] == 1e-5
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    losses = learner(make_batch(preset.processor))
    losses["loss"].backward()
    optimizer.step()
    moved = {
        name.split(".")[2 if name.startswith("student.model") else 0]
        for name, value in learner.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert {"backbone", "decoder", "distillation", "discriminator"} <= moved
    assert not {"text_model", "teacher"} & moved


def test_without_distillation_no_teacher_is_loaded(checkpoints):
    settings = TrainingSettings(distillation="none")
    preset = load_preset("matting-small", **{**checkpoints, "teacher": "no/where"}, settings=settings, **DECODER)
    assert preset.teacher is None


@pytest.fixture
def build(monkeypatch):
    """Calls `load_preset`, and fails if it builds a student."""

    def refuse(*_):
        pytest.fail("a student was built")

    monkeypatch.setattr("fclm_hf.training.pretrained.FCLMForImageMatting", refuse)
    return load_preset


def test_wrong_checkpoints(build, checkpoints, tmp_path):
    for argument, wrong, message in (
        ("backbone", checkpoints["text_encoder"], "backbone must be a checkpoint of model type dinov2; .* is a clip"),
        ("text_encoder", checkpoints["teacher"], "text_encoder must be .* is a depth_anything"),
        ("teacher", checkpoints["backbone"], "teacher must be .* is a dinov2"),
        ("teacher", tmp_path / "nothing", "teacher: .*nothing.* cannot be read as a checkpoint"),
        ("backbone", "nobody/has-this", "backbone: 'nobody/has-this' cannot be read as a checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            build("matting-small", **{**checkpoints, argument: wrong})
    with pytest.raises(ValueError, match="name must be one of"):
        build("lite", **checkpoints)


def test_incomplete_checkpoints(build, checkpoints, tmp_path):
    Dinov2Config.from_pretrained(checkpoints["backbone"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"backbone: .* holds no weights"):
        build("matting-small", **{**checkpoints, "backbone": tmp_path})
    weights = Dinov2Model.from_pretrained(checkpoints["backbone"]).state_dict()
    del weights["layernorm.weight"]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"backbone .* lacks 1 weights, the first is layernorm\.weight"):
        build("matting-small", **{**checkpoints, "backbone": tmp_path})
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"backbone: the weights of .* cannot be read"):
        build("matting-small", **{**checkpoints, "backbone": tmp_path})
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"backbone: the weights of .* cannot be read"):
        build("matting-small", **{**checkpoints, "backbone": tmp_path})
    CLIPModel.from_pretrained(checkpoints["text_encoder"]).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"text_encoder: .* holds no tokenizer"):
        build("matting-small", **{**checkpoints, "text_encoder": tmp_path / "clip"})
