"""`fclm train` from each starting point, with the YAML files of examples/."""

import json
from pathlib import Path

import pytest
from paths import EXAMPLES
from tiny_checkpoints import DECODER, save_checkpoints
from training_runs import write_run
from training_sets import make_background, make_cutout

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.cli.train import main
from fclm_hf.training.arguments import parse_arguments


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


def test_the_paper_s_model_from_small_checkpoints(tmp_path):
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


def test_the_examples_say_what_they_mean():
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
    assert paper.data.validation[0].split == "test"
