"""Options of the trainer, end to end on the tiny model: learning rates, precision, memory, trackers."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import is_tensorboard_available
from training_runs import forget_accelerator, write_run

from fclm_hf.cli.train import main
from fclm_hf.training import trainer
from fclm_hf.training.command_line import parse_arguments
from fclm_hf.training.trainer import Trainer


pytestmark = pytest.mark.usefixtures("new_accelerator")
Train = Callable[..., list[dict]]


def run_in(folder: Path, *flags: str, **fields) -> list[dict]:
    """Train in a new folder and return the history."""
    folder.mkdir()
    forget_accelerator()
    config = write_run(folder, **{"validation": [], "logging_steps": 1, "max_steps": 2, **fields})
    assert main([str(config), "--output_dir", str(folder / "out"), *flags]) == 0
    return [json.loads(line) for line in (folder / "out" / "history.jsonl").read_text().splitlines()]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Trains with some flags and returns the history."""
    return lambda name, *flags, **fields: run_in(tmp_path / name, *flags, **fields)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The history of two steps with the default options."""
    history = run_in(tmp_path_factory.mktemp("runs") / "plain")
    forget_accelerator()
    return history


def take(history: list[dict], name: str) -> list[float]:
    return [line[name] for line in history]


def test_warmup_cosine_and_backbone_learning_rate(train):
    flags = [
        "--lr_scheduler_type",
        "cosine",
        "--warmup_steps",
        "2",
        "--max_steps",
        "6",
        "--learning_rate",
        "1e-3",
        "--backbone_lr_multiplier",
        "0.2",
    ]
    history = train("cosine", *flags)
    # the rate of the step that comes next
    rates = [1e-3 * (step / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 4)) / 2) for step in range(1, 7)]
    assert take(history, "learning_rate/decoder") == pytest.approx(rates, abs=1e-12)
    assert take(history, "learning_rate/encoder") == pytest.approx([0.2 * rate for rate in rates], abs=1e-12)
    constant = train("constant", "--warmup_steps", "2", "--max_steps", "3")
    assert take(constant, "learning_rate/decoder") == pytest.approx([5e-4, 1e-3, 1e-3])


def test_activation_checkpointing_changes_no_loss(train, plain):
    checkpointed = train("checkpointed", "--activation_checkpointing", "true")
    for name in ("train/loss", "train/loss_head", "train/loss_adv", "train/loss_ot"):
        assert take(checkpointed, name) == pytest.approx(take(plain, name), rel=1e-5)


@pytest.mark.slow
def test_compilation_changes_no_loss(train):
    """The whole trained state keeps its names, and so do the averaged weights."""
    plain = train("plain", "--ema_decay", "0.9")
    compiled = train(
        "compiled", "--ema_decay", "0.9", "--torch_compile", "true", "--torch_compile_backend", "aot_eager"
    )
    for name in ("train/loss", "train/loss_head", "train/loss_adv", "train/loss_ot"):
        assert take(compiled, name) == pytest.approx(take(plain, name), rel=1e-4)


def test_modules_are_compiled(tmp_path, capsys):
    config = write_run(tmp_path, validation=[])
    words = [str(config), "--output_dir", str(tmp_path / "out"), "--torch_compile", "true"]
    trainer = Trainer(parse_arguments([*words, "--torch_compile_backend", "eager"]))
    called = (*trainer.student.model.children(), trainer.student.head)
    assert len(called) >= 6
    assert all(module._compiled_call_impl is not None for module in called)
    assert not any("_orig_mod" in name for name in trainer.student.state_dict())
    assert main([*words, "--torch_compile_backend", "iductor"]) == 1
    assert "torch_compile_backend" in capsys.readouterr().err


def test_bf16(train, plain):
    half = train("half", "--mixed_precision", "bf16")
    assert take(half, "train/loss") == pytest.approx(take(plain, "train/loss"), rel=0.05)
    assert take(half, "train/loss") != take(plain, "train/loss")


class HalfOnCpu(Accelerator):
    """Does on a CPU, as torch can, what Accelerate does on a GPU."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.native_amp = True
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)


def test_fp16(train, plain, tmp_path, monkeypatch, capsys):
    config = write_run(tmp_path, validation=[])
    assert main([str(config), "--output_dir", str(tmp_path / "out"), "--mixed_precision", "fp16"]) == 1
    assert "mixed_precision 'fp16' requires a GPU: use 'bf16' or 'no'." in capsys.readouterr().err

    monkeypatch.setattr(trainer, "Accelerator", HalfOnCpu)
    half = train("half", "--mixed_precision", "fp16")
    assert take(half, "train/loss") == pytest.approx(take(plain, "train/loss"), rel=0.05)
    assert take(half, "train/loss") != take(plain, "train/loss")
    state = torch.load(tmp_path / "half" / "out" / "checkpoints" / "step-00000002.pt", weights_only=True)
    assert state["scaler"]["scale"] == 128
    assert state["schedule"]["last_epoch"] == 2


@pytest.mark.parametrize("prompts", ["text", "point", "box", "all"])
def test_every_parameter_that_trains_gets_a_gradient(tmp_path, prompts):
    config = write_run(tmp_path, validation=[])
    flags = ["--settings.prompts", prompts]
    trainer = Trainer(parse_arguments([str(config), "--output_dir", str(tmp_path / "out"), *flags]))
    (batch,) = trainer.reader.read(1)
    trainer.learner(batch)["loss"].backward()
    lacking = [name for name, each in trainer.learner.named_parameters() if each.requires_grad and each.grad is None]
    assert not lacking
    reads_text = trainer.student.model.prompt_encoder.text_projection.weight.requires_grad
    assert reads_text == (prompts in ("text", "all"))


def test_closer_looks_that_the_model_does_not_take_are_refused_before_it_is_built(tmp_path, monkeypatch, capsys):
    config = write_run(tmp_path, validation=[])
    words = [str(config), "--output_dir", str(tmp_path / "out"), "--settings.tile_share", "0.5"]
    sizes = ["--config.refinement_size", "56", "--config.tile_size", "56"]
    with monkeypatch.context() as context:
        context.setattr("fclm_hf.training.pretrained.build_lite", lambda *_, **__: pytest.fail("built"))
        assert main([*words, "--model", "lite"]) == 1
        told = "tile_share must be 0 for a model without config.refinement_size and config.tile_size, got 0.5."
        assert told in capsys.readouterr().err
    assert main([*words, *sizes]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "composition.size must exceed config.tile_size, 56, with tile_share, got 32."
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not is_tensorboard_available(), reason="tensorboard is not installed")
def test_metrics_and_pictures_reach_tensorboard(train, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sources = [{"path": str(tmp_path / "board" / "cutouts"), "kind": "rgba"}]
    history = train("board", "--report_to", "tensorboard", "--eval_steps", "2", validation=sources)
    events = EventAccumulator(str(next((tmp_path / "board" / "out").rglob("events.out*")).parent))
    events.Reload()
    names = {"train/loss", "train/loss_head", "train/loss_adv", "train/loss_ot", "train/domain_accuracy"}
    names |= {"learning_rate/encoder", "learning_rate/decoder", "samples_per_second", "data_wait", "validation/sad"}
    assert names <= set(events.Tags()["scalars"])
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == pytest.approx({line["step"]: line["train/loss"] for line in history if "train/loss" in line})
    (picture,) = events.Images("validation")
    assert picture.step == 2
    assert (picture.width, picture.height) == (3 * 32, 2 * 32)
