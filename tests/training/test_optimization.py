"""One optimizer step: fp16 with a scaled loss, the meta device, losses that are not finite, a stream that fails."""

import json

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from tiny_learner import make_batch, make_learner
from training_runs import write_run

from fclm_hf.data import StreamError
from fclm_hf.training.arguments import RunArguments
from fclm_hf.training.command_line import parse_arguments
from fclm_hf.training.optimization import NonFiniteLossError, average_weights, make_optimization, take_step
from fclm_hf.training.trainer import Trainer


RUN = {"output_dir": "unused", "learning_rate": 1e-3}


pytestmark = pytest.mark.usefixtures("new_accelerator")


def test_fp16_overflow_skips_the_step_and_lowers_the_scale():
    accelerator = Accelerator(cpu=True)
    # Accelerate refuses fp16 on a CPU, which torch can do
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1000)
    learner = make_learner()
    inner, _ = make_optimization(learner, RunArguments(**RUN))
    optimizer = AcceleratedOptimizer(inner, scaler=accelerator.scaler)
    accelerator._optimizers.append(optimizer)
    name, weight = next((n, p) for n, p in learner.named_parameters() if "pixel_decoder" in n)
    before = weight.detach().clone()
    losses = take_step(accelerator, learner, optimizer, [make_batch()], 1.0)
    assert all(torch.isfinite(loss) for loss in losses[0].values())
    assert not optimizer.step_was_skipped
    assert not torch.equal(weight, before), name

    before = weight.detach().clone()
    accelerator.scaler.update(2.0**120)
    take_step(accelerator, learner, optimizer, [make_batch()], 1.0)
    assert optimizer.step_was_skipped
    assert torch.equal(weight, before)
    assert accelerator.scaler.get_scale() == 2.0**119


def test_the_whole_step_on_the_meta_device():
    accelerator = Accelerator(cpu=True)
    learner = make_learner().to("meta")
    averaged = average_weights(learner.student, 0.9)
    inner, schedule = make_optimization(learner, RunArguments(**RUN))
    optimizer = AcceleratedOptimizer(inner, device_placement=False)
    batch = {name: value.to("meta") for name, value in make_batch().items()}
    losses = take_step(accelerator, learner, optimizer, [batch], 0.0)
    schedule.step()
    averaged.update_parameters(learner.student)
    assert all(loss.device.type == "meta" and loss.shape == () for loss in losses[0].values())


def test_a_loss_that_is_not_finite_names_its_samples(tmp_path):
    config = write_run(tmp_path, validation=[])
    trainer = Trainer(parse_arguments([str(config), "--output_dir", str(tmp_path / "out")]))
    with torch.no_grad():
        trainer.student.head.coefficients.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="The loss of step 1 is nan"):
        trainer.train()
    (file,) = (tmp_path / "out").glob("nonfinite-*.json")
    content = json.loads(file.read_text())
    assert content["step"] == 1
    assert "cutouts" in content["sample_keys"][0][0][1]
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_stream_that_fails_saves_a_checkpoint(tmp_path, monkeypatch):
    config = write_run(tmp_path, validation=[])
    trainer = Trainer(parse_arguments([str(config), "--output_dir", str(tmp_path / "out")]))
    read, calls = trainer.reader.read, []

    def fail_third(count):
        calls.append(count)
        if len(calls) == 4:
            raise StreamError("the connection is down")
        return read(count)

    monkeypatch.setattr(trainer.reader, "read", fail_third)
    with pytest.raises(StreamError, match="the connection is down"):
        trainer.train()
    state = torch.load(tmp_path / "out" / "checkpoints" / "step-00000003.pt", weights_only=True)
    assert state["step"] == 3
    assert state["processes"][0]["stream"]["consumed"] == 6  # pairs: three batches of two
