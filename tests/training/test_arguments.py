"""Arguments of `fclm train`: errors, renamed fields, help texts, names shared with transformers."""

import shutil
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from run_results import assert_same, read_curve, read_state
from training_runs import write_run
from transformers import TrainingArguments

from fclm_hf.cli.train import main
from fclm_hf.training.arguments import DataArguments, RunArguments
from fclm_hf.training.command_line import parse_arguments, rename_all_fields
from fclm_hf.training.parsing import build_dataclass, list_renamed


RENAMED = list_renamed(DataArguments, RunArguments)
pytestmark = pytest.mark.usefixtures("new_accelerator")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), validation=[])


def write_old(config: Path, path: Path) -> Path:
    """The same run with the old names."""
    old = {new: name for name, new in RENAMED.items()}
    content = yaml.safe_load(config.read_text())
    path.write_text(yaml.safe_dump({old.get(name, name): value for name, value in content.items()}))
    return path


def test_old_names_in_the_yaml_file(config, tmp_path):
    path = write_old(config, tmp_path / "old.yaml")
    with pytest.warns(FutureWarning) as caught:
        arguments = parse_arguments([str(path), "--output_dir", "RUN"])
    assert arguments == parse_arguments([str(config), "--output_dir", "RUN"])
    told = [str(each.message) for each in caught]
    assert len(told) == 3
    assert any("batch_size is deprecated" in each and "use per_device_train_batch_size" in each for each in told)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rat", "1"], "does not take 'learning_rat': did you mean learning_rate?"),
        (["--max_steps", "many"], "--max_steps"),
        (["--settings.kd_weight", "abc"], "settings.kd_weight must be float, got 'abc'."),
        (["--settings.alignment", "half"], "alignment must be one of"),
        (["--ema_decay", "1.5"], "ema_decay must be less than 1, got 1.5."),
        (["--sources", "{path: a}"], "sources[0] must contain 'kind', got path."),
        (["--config.encoder_siz", "3"], "config does not take 'encoder_siz': did you mean encoder_size?"),
        (["--encoder_sizes", "30"], "encoder_sizes must be multiples of 14 for this backbone, got [30]."),
        (["--resume_from_checkpoint", "no.pt"], "resume_from_checkpoint must be 'latest' or a file"),
    ],
)
def test_wrong_arguments_are_one_line(config, tmp_path, capsys, flags, message):
    assert main([str(config), "--output_dir", str(tmp_path / "out"), *flags]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch_size", "3", "--trackers", "none", "--hub_private", "true"],
        ["--batch_size=3", "--trackers=none", "--hub_private"],
        ["--batch-size", "3", "--trackers", "none", "--hub-private=true"],
    ],
)
def test_old_names_of_flags(config, flags):
    with pytest.warns(FutureWarning, match=r"use per_device_train_batch_size\."):
        run = parse_arguments([str(config), "--output_dir", "RUN", *flags]).run
    assert (run.per_device_train_batch_size, run.report_to, run.hub_private_repo) == (3, [], True)


@pytest.mark.parametrize("name", RENAMED)
def test_every_old_name_is_accepted(config, name):
    value = {
        "schedule": "cosine",
        "trackers": "none",
        "hub_private": "true",
        "gradient_checkpointing": "true",
    }.get(name, "1")
    with pytest.warns(FutureWarning, match=rf"{name} is deprecated .* use {RENAMED[name]}\."):
        old = parse_arguments([str(config), "--output_dir", "RUN", f"--{name}", value])
    assert old == parse_arguments([str(config), "--output_dir", "RUN", f"--{RENAMED[name]}", value])


def test_old_and_new_name_together_are_refused(config, tmp_path):
    words = [str(config), "--output_dir", "RUN", "--batch_size", "3", "--per_device_train_batch_size", "3"]
    told = "per_device_train_batch_size is given twice, once under its old name"
    with pytest.raises(ValueError, match=told), pytest.warns(FutureWarning):
        parse_arguments(words)
    both = tmp_path / "both.yaml"
    both.write_text(config.read_text() + "batch_size: 3\n")
    with pytest.raises(ValueError, match=told):
        parse_arguments([str(both), "--output_dir", "RUN"])


def test_a_flag_takes_precedence_over_an_old_name_in_the_file(config, tmp_path):
    path = write_old(config, tmp_path / "old.yaml")
    with pytest.warns(FutureWarning):
        arguments = parse_arguments([str(path), "--output_dir", "RUN", "--per_device_train_batch_size", "5"])
    assert arguments.run.per_device_train_batch_size == 5


def test_old_names_inside_of_mappings(monkeypatch):
    @dataclass
    class Settings:
        RENAMED: ClassVar[dict[str, str]] = {"twins": "duplicate_prob"}

        duplicate_prob: float = 0.4

    with pytest.warns(FutureWarning, match=r"composition: twins is deprecated .* use duplicate_prob\."):
        assert build_dataclass(Settings, {"twins": 1}, "composition") == Settings(1.0)
    monkeypatch.setitem(rename_all_fields.__globals__["NESTED_FIELDS"], "composition", Settings)
    saved = {"batch_size": 2, "composition": {"twins": 0.1}, "sources": [{"path": "a"}]}
    expected = {**saved, "per_device_train_batch_size": 2, "composition": {"duplicate_prob": 0.1}}
    del expected["batch_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rename_all_fields(saved, "checkpoint", warn=False) == expected
    with pytest.raises(ValueError, match="composition: duplicate_prob is given twice"):
        rename_all_fields({"composition": {"twins": 0.1, "duplicate_prob": 0.1}}, "run.yaml", warn=False)


def test_resume_from_a_checkpoint_with_old_names(runs, tmp_path):
    """As the releases before wrote them, also the old YAML file."""
    resumed = shutil.copytree(runs.half, tmp_path / "resumed")
    old = {new: name for name, new in RENAMED.items()}
    path = resumed / "checkpoints" / "step-00000002.pt"
    state = torch.load(path, weights_only=True)
    state["arguments"] = {old.get(name, name): value for name, value in state["arguments"].items()}
    torch.save(state, path)
    old_config = write_old(runs.config, tmp_path / "old.yaml")
    with pytest.warns(FutureWarning):
        assert main([str(old_config), *runs.flags, "--output_dir", str(resumed), "--max_steps", "4"]) == 0
    assert_same(read_state(runs.whole, 4), read_state(resumed, 4))
    assert read_curve(runs.whole) == read_curve(resumed)


def test_help_shows_defaults_that_exist(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Output folder of the run. Required." in text
    assert "Same as --pretrained false." in text
    assert "(default: )" not in text
    assert "(default: None)" not in text
    assert "Maximum gradient norm; 0 disables clipping. (default: 1.0)" in text
    assert "(default: False)" in text


def test_output_dir_is_required(config, tmp_path, capsys):
    assert main([str(config)]) == 1
    assert "--output_dir" in capsys.readouterr().err


def test_names_are_those_of_transformers():
    """Only what transformers does not have is named here."""
    own = {"mixed_precision", "ema_decay", "threads", "save_dtype", "push_steps", "backbone_lr_multiplier"}
    own |= {"sync_batch_norm"}
    assert {each.name for each in fields(RunArguments)} - {each.name for each in fields(TrainingArguments)} == own


def test_defaults_of_a_file(config, tmp_path):
    shutil.copy(config, tmp_path / "base.yaml")
    (tmp_path / "small.yaml").write_text("composition: {size: 16}\nsettings: {prompts: box}\nbatch_size: 3\n")
    path = tmp_path / "rows" / "row.yaml"
    path.parent.mkdir()
    path.write_text("defaults: [../base.yaml, ../small.yaml]\nsettings: {alignment: none}\nencoder_sizes: [28]\n")
    with pytest.warns(FutureWarning, match="per_device_train_batch_size"):
        arguments = parse_arguments([str(path), "--output_dir", "out", "--settings.kd_weight", "2"])
    settings = arguments.model.settings
    assert (settings.distillation, settings.prompts, settings.alignment, settings.kd_weight) == (
        "none",
        "box",
        "none",
        2,
    )
    assert arguments.data.composition.size == 16
    assert arguments.run.per_device_train_batch_size == 3
    assert arguments.model.encoder_sizes == [28]
    assert len(arguments.data.sources) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: row.yaml", "defaults of .*row.yaml must not lead back to .*row.yaml"),
        ("defaults: {file: base.yaml}", "defaults of .*row.yaml must be a file or a list of files, got"),
        ("defaults: 3", "must be a file or a list of files, got 3"),
    ],
)
def test_wrong_defaults(tmp_path, text, message):
    (tmp_path / "row.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_arguments([str(tmp_path / "row.yaml")])
    (tmp_path / "row.yaml").write_text("defaults: nowhere.yaml")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        parse_arguments([str(tmp_path / "row.yaml")])
