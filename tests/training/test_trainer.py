"""The trainer: resumed runs equal uninterrupted ones, signals, several processes."""

import signal

import pytest
import torch
from paths import HELPERS
from run_results import assert_same, assert_same_runs, read_curve, read_state
from tiny_checkpoints import DECODER, save_checkpoints
from training_runs import Run, launch, wait_until, write_run


def test_a_killed_run_resumes_bit_exactly(tmp_path):
    config = write_run(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output = Run(config, whole).finish()
    assert "Data wait: " in output
    assert len(read_curve(whole)) == 8
    assert (whole / "validation.png").is_file()

    run = Run(config, killed)
    wait_until(lambda: (killed / "checkpoints" / "step-00000004.pt").exists(), run)
    run.end(signal.SIGKILL)
    (killed / "checkpoints" / ".unfinished-step-00000099.pt").write_bytes(b"half")
    with (killed / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "tr')
    Run(config, killed).finish()
    assert not list(killed.rglob(".unfinished-*"))
    assert_same_runs(whole, killed)
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["step-00000010.pt", "step-00000012.pt"]


# on a CPU `accelerate launch` starts several processes through MPI only
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.parametrize("launcher", [(), pytest.param(TORCHRUN, marks=pytest.mark.slow)], ids=["forks", "torchrun"])
def test_two_processes_end_with_equal_weights(tmp_path, launcher):
    config = write_run(tmp_path, max_steps=3, gradient_accumulation_steps=2)
    output = launch(HELPERS / "two_processes.py", config, tmp_path / "out", *launcher)
    one, two = (torch.load(tmp_path / "out" / f"weights-{rank}.pt", weights_only=True) for rank in range(2))
    assert (one.pop("rank"), two.pop("rank")) == (0, 1)
    assert_same(one, two)
    assert any(not torch.equal(value, one["student"][name]) for name, value in one["begun"].items())
    assert read_curve(tmp_path / "out")[0]["step"] == 2
    # neither Arrow's generators nor DistributedDataParallel have anything to say
    assert "Exception ignored" not in output
    assert "Warning" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--settings.prompts", "box"],
        ["--settings.prompts", "text"],
        ["--settings.alignment", "none"],
        ["--activation_checkpointing", "true", "--mixed_precision", "bf16"],
        ["--encoder_sizes", "56", "--model", "matting-small"],
    ],
)
def test_two_processes_with_other_options(tmp_path, flags):
    config = write_run(tmp_path, max_steps=3, logging_steps=1)
    if "matting-small" in flags:  # its encoder has a mask token that nothing uses
        parts = save_checkpoints(tmp_path / "checkpoints")
        flags = [*flags, *(word for name, folder in parts.items() for word in (f"--{name}", folder))]
        flags += [word for name, value in DECODER.items() for word in (f"--config.{name}", str(value))]
    output = Run(config, tmp_path / "out", *flags, processes=2).finish()
    assert len(read_curve(tmp_path / "out")) == 4
    assert "find_unused_parameters" not in output


@pytest.mark.slow
def test_sigterm_saves_and_the_run_resumes(tmp_path):
    config = write_run(tmp_path, dataloader_num_workers=2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    Run(config, whole).finish()
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        (stopped / "history.jsonl").unlink(missing_ok=True)  # its first line says that the loop runs
        run = Run(config, stopped, "--save_steps", "1000")
        wait_until((stopped / "history.jsonl").exists, run)
        assert run.end(number) == {code}
        assert list((stopped / "checkpoints").iterdir())
    Run(config, stopped).finish()
    assert_same(read_state(whole), read_state(stopped))
