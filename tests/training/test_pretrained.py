"""Starting points: the paper's models from small checkpoints of the same classes, lite, the YAML files of examples/."""

import json
from pathlib import Path

import pytest
import torch
from paths import EXAMPLES
from tiny_checkpoints import DECODER, save_checkpoints
from training_runs import write_run
from training_sets import make_background, make_cutout
from transformers import CLIPModel, Dinov2Config, Dinov2Model

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.cli.train import main
from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings, load_preset, make_optimizer
from fclm_hf.training.command_line import parse_arguments


TINY = [
    "--composition.size",
    "64",
    "--encoder_sizes",
    "64",
    "--per_device_train_batch_size",
    "2",
    "--prompts_per_image",
    "1",
]
TINY += [
    "--max_steps",
    "2",
    "--logging_steps",
    "1",
    "--dataloader_num_workers",
    "0",
    "--pretrained",
    "false",
    "--threads",
    "1",
]
LITE = ["--config.hidden_size", "32", "--config.decoder_layers", "1", "--freeze_stages", "2"]
pytestmark = pytest.mark.usefixtures("new_accelerator")


def check_run(out: Path, steps: int = 2) -> FCLMForImageMatting:
    """The curve has as many lines, and what was saved loads."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert FCLMProcessor.from_pretrained(out / "last").tokenizer is not None
    model, loading = FCLMForImageMatting.from_pretrained(out / "last", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    return model


def write_training_set(folder: Path) -> Path:
    """As research/build_training_set.py writes it, with an entry for each source of train_lite.yaml."""
    kinds = [("tux", "animals/birds"), ("wesnoth", "elves"), ("fluent", "Smileys & Emotion"), ("fluent", "Activities")]
    foregrounds = [
        {"file": f"foregrounds/{number}.png", "name": f"object {number}", "source": source, "cls": cls}
        for number, (source, cls) in enumerate(kinds * 2)
    ]
    backgrounds = [{"file": f"backgrounds/{number}.png"} for number in range(4)]
    for kind, entries, make in (
        ("foregrounds", foregrounds, make_cutout),
        ("backgrounds", backgrounds, make_background),
    ):
        (folder / kind).mkdir(parents=True)
        for number, entry in enumerate(entries):
            make(number, 64).save(folder / entry["file"])
        (folder / f"{kind}.json").write_text(json.dumps(entries))
    return folder


def test_the_lite_example_with_other_paths(tmp_path, monkeypatch):
    write_training_set(tmp_path / "training-set")
    monkeypatch.chdir(tmp_path)
    assert main([str(EXAMPLES / "train_lite.yaml"), "--output_dir", "out", *TINY, *LITE]) == 0
    assert check_run(tmp_path / "out").config.backbone_config.model_type == "timm_backbone"


def test_the_paper_model_from_small_checkpoints(tmp_path):
    checkpoints = save_checkpoints(tmp_path / "checkpoints")
    config = write_run(
        tmp_path, model="matting-small", validation=[], settings={"transport_iterations": 5}, **checkpoints
    )
    decoder = [word for name, value in DECODER.items() for word in (f"--config.{name}", str(value))]
    flags = ["--composition.size", "56", "--encoder_sizes", "56", "--max_steps", "2", "--logging_steps", "1"]
    assert main([str(config), "--output_dir", str(tmp_path / "out"), *flags, *decoder]) == 0
    assert check_run(tmp_path / "out").config.backbone_config.model_type == "dinov2"
    history = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert all(
        {"train/loss_kd", "train/loss_adv", "train/loss_ot", "train/loss_head"} <= line.keys() for line in history
    )
    assert history[0]["learning_rate/decoder"] == 1e-3


def test_example_configurations():
    lite = parse_arguments([str(EXAMPLES / "train_lite.yaml")])
    assert (lite.model.model, lite.model.settings.distillation, lite.run.lr_scheduler_type) == (
        "lite",
        "none",
        "cosine",
    )
    assert all(source.kind == "rgba" for source in lite.data.sources)
    paper = parse_arguments([str(EXAMPLES / "train_matting.yaml")])
    assert (paper.model.model, paper.model.settings.distillation) == ("matting-small", "full")
    assert (paper.run.lr_scheduler_type, paper.run.learning_rate, paper.run.mixed_precision) == (
        "constant",
        1e-5,
        "bf16",
    )
    assert [source.kind for source in paper.data.sources] == ["image_alpha", "image_alpha", "rgba"]
    assert paper.data.validation[0].split == "P3M-500-P"


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
