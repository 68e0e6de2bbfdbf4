"""Runs of several processes: as one process with the same global batch, and with FSDP2."""

import re

import pytest
import torch
from run_results import read_curve, read_state
from safetensors.torch import load_file
from training_runs import Run, write_run

from fclm_hf.cli.train import main


STEPS = 6
# without the exchange of random tokens, which differ between processes
SETTINGS = {"distillation": "none", "alignment": "transport", "transport_iterations": 5}


def write_config(folder, **fields):
    fields = {"settings": SETTINGS, "encoder_sizes": [], "learning_rate": "1e-4", "logging_steps": 1, **fields}
    return write_run(folder, validation=[], ema_decay=0.0, max_steps=STEPS, save_steps=3, **fields)


def load_weights(out) -> torch.Tensor:
    weights = load_file(out / "model.safetensors")
    return torch.cat([weights[name].float().flatten() for name in sorted(weights)])


def assert_trained_alike(one, two, start) -> None:
    """Assert that losses and weights of two runs differ by rounding, which Adam enlarges where gradients are near 0."""
    losses = [[each["train/loss"] for each in read_curve(out) if "train/loss" in each] for out in (one, two)]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-6)
    assert losses[0] == pytest.approx(losses[1], abs=5e-5)
    first, second = (load_weights(out / "last") for out in (one, two))
    gap, moved = (first - second).abs(), (first - load_weights(start)).abs()
    assert moved.max() > 3e-4
    assert gap.norm() < 1e-3 * moved.norm()
    assert (gap > 1e-5).float().mean() < 1e-3


def read_samples(out):
    return [process["stream"] for process in read_state(out, STEPS)["processes"]]


@pytest.mark.slow
def test_weights_of_one_and_two_processes_agree_to_rounding(tmp_path):
    """1 x 8 pairs, 2 x 4 pairs with two workers each, and a run that goes over from one to the other."""
    config = write_config(tmp_path, sync_batch_norm=True)
    one, two, mixed = (tmp_path / name for name in ("one", "two", "mixed"))
    halves = ("--per_device_train_batch_size", "4")
    eight = ("--per_device_train_batch_size", "8")
    Run(config, one, *eight).finish()
    Run(config, two, *halves, "--dataloader_num_workers", "2", processes=2).finish()
    Run(config, mixed, *eight, "--max_steps", "3").finish()
    Run(config, mixed, *halves, processes=2).finish()
    for out in (two, mixed):
        assert_trained_alike(one, out, tmp_path / "start")
    assert [read_samples(out) for out in (one, two, mixed)] == [[8 * STEPS], [8 * STEPS] * 2, [8 * STEPS] * 2]


@pytest.mark.slow
def test_fsdp_trains_as_without_and_resumes(tmp_path):
    """Two processes over gloo; runs resume with FSDP2, without, and with one process, from the same checkpoints."""
    config = write_config(tmp_path, per_device_train_batch_size=4, validation_batches=1, sync_batch_norm=True)
    plain, sharded, checkpointed, resumed, left = (
        tmp_path / name for name in ["plain", "sharded", "ckpt", "resumed", "left"]
    )
    fsdp = ("--fsdp", "true")
    validation = ("--validation", f"{{path: {tmp_path / 'cutouts'}, kind: rgba}}", "--eval_steps", "3")
    Run(config, plain, *validation, processes=2).finish()
    Run(config, sharded, *validation, *fsdp, processes=2).finish()
    Run(config, checkpointed, *fsdp, "--activation_checkpointing", "true", processes=2).finish()
    Run(config, resumed, *fsdp, "--max_steps", "3", processes=2).finish()
    Run(config, left, *fsdp, "--max_steps", "3", processes=2).finish()
    Run(config, resumed, *fsdp, processes=2).finish()
    Run(config, left, "--per_device_train_batch_size", "8").finish()
    for out in (sharded, checkpointed, resumed, left):
        assert_trained_alike(plain, out, tmp_path / "start")
    losses = [[each["train/loss"] for each in read_curve(out) if "train/loss" in each] for out in (plain, sharded)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.equal(load_weights(sharded / "last"), load_weights(resumed / "last"))
    metrics = [[each for each in read_curve(out) if "validation/mad" in each] for out in (plain, sharded)]
    assert len(metrics[0]) == 2
    for first, second in zip(*metrics, strict=True):
        assert first["validation/mad"] == pytest.approx(second["validation/mad"], abs=1e-5)


@pytest.mark.slow
def test_closer_looks_of_two_processes(tmp_path):
    """All take the same passes, whether they have windows or not, and the looks are those of one process."""
    settings = {**SETTINGS, "look_share": 0.5, "tile_share": 0.5}
    config = write_config(
        tmp_path,
        settings=settings,
        config={"refinement_size": 56, "tile_size": 28},
        composition={"size": 64, "soft_edge_prob": 1.0, "single_scale": [1.0, 1.5]},
        sync_batch_norm=True,
    )
    one, two, resumed, fsdp = (tmp_path / name for name in ("one", "two", "resumed", "fsdp"))
    size = ("--per_device_train_batch_size", "1")
    Run(config, one, "--per_device_train_batch_size", "2").finish()
    Run(config, two, *size, processes=2).finish()
    Run(config, resumed, *size, "--max_steps", "3", processes=2).finish()
    Run(config, resumed, *size, processes=2).finish()
    Run(config, fsdp, *size, "--fsdp", "true", processes=2).finish()
    assert torch.equal(load_weights(two / "last"), load_weights(resumed / "last"))
    assert_trained_alike(two, fsdp, tmp_path / "start")
    for name in ("train/loss_head", "train/loss_look", "train/loss_tiles"):
        losses = [[each[name] for each in read_curve(out) if name in each] for out in (one, two)]
        assert losses[0] == pytest.approx(losses[1], abs=5e-4)  # one pair per process: Adam enlarges rounding more
        assert name == "train/loss_head" or 0 < sum(loss > 0 for loss in losses[1]) < STEPS


@pytest.mark.usefixtures("new_accelerator")
def test_fsdp_refuses_one_process_and_averaged_weights(tmp_path, capsys):
    config = write_config(tmp_path)
    words = [str(config), "--output_dir", str(tmp_path / "out"), "--fsdp", "true"]
    for flags, told in (
        ([], r"fsdp requires several processes, got 1"),
        (["--ema_decay", "0.9"], r"ema_decay must be 0 with fsdp, got 0\.9"),
    ):
        assert main([*words, *flags]) == 1
        assert re.search(told, capsys.readouterr().err)
