"""Training and inference on a device: `pytest -m gpu` on CUDA; by default, tiny models on the CPU run the same code."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import infer_auto_device_map
from device_checks import (
    SCALES,
    Rows,
    SavedBytes,
    format_table,
    make_inputs,
    make_learner,
    make_model,
    make_pairs,
    measure_rate,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from training_runs import write_run
from transformers.utils import is_flash_attn_2_available

from fclm_hf import FCLMForImageMatting
from fclm_hf.training import make_optimizer


ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_CUDA)]
DTYPES = [torch.float16, torch.bfloat16]

pytestmark = pytest.mark.usefixtures("new_accelerator")


def mebibytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_mixed_precision_step(device: str, dtype: torch.dtype, table: Rows) -> None:
    """A step under autocast changes the weights; one whose gradients overflow is skipped and lowers the scale."""
    learner, batch = make_learner(device), make_pairs(device)
    optimizer = make_optimizer(learner, 1e-3)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)

    def take_step(factor: float = 1.0) -> float:
        optimizer.zero_grad()
        with torch.autocast(device, dtype):
            loss = learner(batch)["loss"]
        scaler.scale(loss * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    before = copy.deepcopy(learner.student.state_dict())
    losses = [take_step() for _ in range(3)]
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert scaler.get_scale() == 2.0**10
    after = copy.deepcopy(learner.student.state_dict())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    take_step(float("inf"))
    assert scaler.get_scale() == 2.0**9
    parameters = dict(learner.student.named_parameters())
    assert all(torch.equal(parameters[name], after[name]) for name in parameters)
    table.append((device, f"{str(dtype).removeprefix('torch.')} step", f"losses {losses[0]:.3f} -> {losses[-1]:.3f}"))


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=ON_CUDA)])
@pytest.mark.parametrize("device", DEVICES)
def test_a_run_resumes(
    device: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Rows
) -> None:
    """A run with the trainer ends as if it had not been interrupted: bit-exactly on a CPU, nearly on a GPU."""
    from training_runs import forget_accelerator

    from fclm_hf.training.command_line import parse_arguments
    from fclm_hf.training.trainer import Trainer

    if (device, precision) == ("cpu", "fp16"):
        pytest.skip("fp16 needs a GPU")
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(device == "cpu").lower())
    config = write_run(tmp_path, max_steps=4, save_steps=2, mixed_precision=precision, validation=[], ema_decay=0.0)

    def train(out: str, *words: str) -> Trainer:
        forget_accelerator()
        trainer = Trainer(parse_arguments([str(config), "--output_dir", str(tmp_path / out), *words]))
        assert trainer.accelerator.device.type == device
        assert (trainer.accelerator.scaler is not None) == (precision == "fp16")
        assert trainer.train() == 0
        assert trainer.step == 4
        return trainer

    whole = train("whole").student.state_dict()
    halfway = tmp_path / "whole" / "checkpoints" / "step-00000002.pt"
    resumed = train("resumed", "--resume_from_checkpoint", str(halfway)).student.state_dict()
    tolerance = 0.0 if device == "cpu" else 1e-3
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=tolerance, atol=tolerance)
    gap = max((resumed[name].float() - value.float()).abs().max().item() for name, value in whole.items())
    table.append((device, f"{precision} resume", f"largest difference {gap:.1e}"))


@pytest.mark.parametrize("device", DEVICES)
def test_device_map(device: str, tmp_path: Path, table: Rows) -> None:
    """A model that `device_map="auto"` loads onto the device gives the same alphas."""
    model, inputs = make_model(device).to(device), make_inputs(device, 1)
    model.save_pretrained(tmp_path)
    mapped = FCLMForImageMatting.from_pretrained(tmp_path, device_map="auto").eval()
    assert {each.device.type for each in mapped.parameters()} == {device}
    gap = measure_gap(mapped, model, inputs)
    assert gap <= 1e-4
    table.append((device, "device_map", f"largest difference {gap:.1e}"))


@pytest.mark.parametrize("device", DEVICES)
def test_device_map_with_offloading(device: str, tmp_path: Path) -> None:
    """A model that does not fit is spread over the device and the next slower memory, and gives the same alphas."""
    model, inputs = make_model(device).to(device), make_inputs(device, 1)
    model.save_pretrained(tmp_path)
    size = sum(each.nbytes for each in model.state_dict().values())
    limits = {"cpu": int(0.6 * size)} if device == "cpu" else {0: int(0.6 * size), "cpu": 4 * size}
    mapped = FCLMForImageMatting.from_pretrained(
        tmp_path, device_map="auto", max_memory=limits, offload_folder=tmp_path / "offload"
    ).eval()
    assert set(mapped.hf_device_map.values()) == ({"cpu", "disk"} if device == "cpu" else {0, "cpu"})
    assert measure_gap(mapped, model, inputs) <= 1e-4


def measure_gap(one: FCLMForImageMatting, two: FCLMForImageMatting, inputs: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two models' alphas."""
    with torch.no_grad():
        return (one(**inputs).alphas.to(two.device) - two(**inputs).alphas).abs().max().item()


@pytest.mark.parametrize("preset", ["matting-small", "dis-base", "lite"])
def test_device_map_of_the_presets(preset: str) -> None:
    """On the meta device: blocks that must stay whole do, and all weights have a place on two GPUs."""
    from fclm_hf import FCLMConfig

    with torch.device("meta"):
        model = FCLMForImageMatting(FCLMConfig.from_preset(preset))
    size = sum(each.nbytes for each in model.parameters())
    whole = model._no_split_modules
    places = infer_auto_device_map(model, max_memory={0: int(0.7 * size), 1: size}, no_split_module_classes=whole)
    assert set(places.values()) == {0, 1}
    for name, module in model.named_modules():
        if type(module).__name__ in whole:
            assert not [place for place in places if place.startswith(f"{name}.")], f"{name} is split"
    for name, _ in model.named_parameters():
        assert any(name == place or name.startswith(f"{place}.") or not place for place in places), name


@pytest.mark.parametrize("device", DEVICES)
def test_attention_backends(device: str, table: Rows) -> None:
    """Flash attention of PyTorch, and flash-attn 2 where it is installed, give the alphas of plain attention."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    model, inputs = make_model(device).to(device, dtype), make_inputs(device, 1)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    alphas = {}
    with torch.no_grad():
        model.set_attn_implementation("eager")
        expected = model(**inputs).alphas
        model.set_attn_implementation("sdpa")
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            alphas["sdpa"] = model(**inputs).alphas
        if device == "cuda" and is_flash_attn_2_available():
            model.set_attn_implementation("flash_attention_2")
            alphas["flash_attention_2"] = model(**inputs).alphas
    for name, each in alphas.items():
        gap = (each - expected).abs().max().item()
        assert gap <= (1e-5 if device == "cpu" else 2e-2), name
        table.append((device, f"{name} against eager", f"largest difference {gap:.1e}"))


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), DEVICES[1]])
def test_compile(device: str, table: Rows) -> None:
    model, inputs = make_model(device).to(device), make_inputs(device, 1)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager" if device == "cpu" else "inductor")
    with torch.no_grad():
        gap = (compiled(**inputs).alphas - model(**inputs).alphas).abs().max().item()
        assert gap <= (1e-6 if device == "cpu" else 1e-3)
        if device == "cuda":
            gain = measure_rate(device, lambda: compiled(**inputs)) / measure_rate(device, lambda: model(**inputs))
            table.append((device, "compile", f"{gain:.2f} times as fast"))


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_memory_of_training(device: str, table: Rows) -> None:
    """Activations grow with the batch size, and activation checkpointing keeps fewer of them."""
    model, side = make_model(device).train().to(device), SCALES[device].side

    def count(batch_size: int) -> int:
        saved = SavedBytes(model)
        with saved.record():
            model(**make_inputs(device, batch_size)).alphas.mean().backward()
        return saved.total

    one, two = count(1), count(2)
    model.activation_checkpointing_enable()
    less = count(1)
    assert 1.8 * one < two < 2.2 * one
    assert less < 0.9 * one
    for what, figure in (("batch of 1", one), ("batch of 2", two), ("batch of 1, checkpointing", less)):
        table.append((device, f"activations at {side} px, {what}", mebibytes(figure)))


@pytest.mark.parametrize("device", ["cuda"])
@pytest.mark.parametrize("kind", ["inference", "training"])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_peak_memory(device: str, kind: str, table: Rows) -> None:
    """Peak memory in bf16 for each batch size, up to the one that does not fit."""
    learner = make_learner(device)
    for batch_size in SCALES[device].batch_sizes:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            run_once(learner, kind, device, batch_size)
        except torch.OutOfMemoryError:
            table.append((device, f"{kind}, batch of {batch_size}", "out of memory"))
            assert batch_size > 1
            return
        peak = torch.cuda.max_memory_allocated()
        assert peak > 0
        table.append((device, f"{kind}, batch of {batch_size}", f"peak {mebibytes(peak)}"))


def run_once(learner: Any, kind: str, device: str, batch_size: int) -> None:
    """Matte a batch, or take the gradients of a step."""
    with torch.autocast(device, torch.bfloat16):
        if kind == "inference":
            with torch.inference_mode():
                learner.student(**make_inputs(device, batch_size))
            return
        loss = learner(make_pairs(device, batch_size))["loss"]
    loss.backward()
    learner.zero_grad()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["inference", "training"])
def test_throughput(device: str, kind: str, table: Rows) -> None:
    learner, size = make_learner(device), SCALES[device].batch_sizes[1]
    rate = measure_rate(device, lambda: run_once(learner, kind, device, size))
    assert rate > 0
    unit = "photos" if kind == "inference" else "pairs"
    side = SCALES[device].side
    table.append((device, f"{kind} at {side} px, batch of {size}", f"{rate * size:.1f} {unit} per second"))


def test_table() -> None:
    assert format_table([("cpu", "step", "1.0"), ("cuda", "resume", "2.0")]) == [
        "cpu   step    1.0",
        "cuda  resume  2.0",
    ]


def test_gpu_checks_are_collected(request: pytest.FixtureRequest) -> None:
    """Every check of the CPU has its twin on CUDA."""
    checks = {name: value for name, value in globals().items() if name.startswith("test_")}
    on_cuda = [name for name, value in checks.items() if is_for_cuda(value)]
    assert len(on_cuda) == 9


def is_for_cuda(check: Callable[..., None]) -> bool:
    marks = [
        mark for mark in getattr(check, "pytestmark", []) if mark.name == "parametrize" and mark.args[0] == "device"
    ]
    return any("cuda" in str(mark.args[1]) for mark in marks)
