"""What the checks of a device share: models of the size that suits it, memory, and the table of figures."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from tiny_model import tiny_model, tiny_teacher

from fclm_hf import FCLMConfig, FCLMForImageMatting
from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings


Rows = list[tuple[str, str, str]]  # device, what, figure


@dataclass(frozen=True)
class Scale:
    """Sizes of a check.

    Attributes:
        preset: Preset of the student, or None for a tiny one.
        side: Height and width of images and of the input of the encoder, in pixels.
        batch_sizes: Batch sizes whose memory and speed are measured.
        repeats: Number of timed runs.
    """

    preset: str | None
    side: int
    batch_sizes: tuple[int, ...]
    repeats: int


SCALES = {
    "cpu": Scale(None, 56, (1, 2), 1),
    "cuda": Scale("matting-small", 1022, (1, 2, 4, 8, 16), 10),
    "meta": Scale("matting-small", 1022, (1, 2), 1),
}


def make_model(device: str, seed: int = 0, **overrides: Any) -> FCLMForImageMatting:
    """Return a model with random weights on a device."""
    scale = SCALES[device]
    if scale.preset is None:
        return tiny_model(seed, **overrides)
    torch.manual_seed(seed)
    with torch.device(device):
        return FCLMForImageMatting(FCLMConfig.from_preset(scale.preset, encoder_size=scale.side, **overrides)).eval()


def make_learner(device: str) -> ForegroundConsistentLearner:
    """Return a learner with all losses."""
    teacher = tiny_teacher().to(device)
    # a tiny teacher suits a student of any width
    return ForegroundConsistentLearner(
        make_model(device).train(), teacher, TrainingSettings(transport_iterations=5)
    ).to(device)


def make_inputs(device: str, batch_size: int) -> dict[str, torch.Tensor]:
    """Return images with a box each."""
    side = SCALES[device].side
    box = torch.tensor([0.2, 0.2, 0.8, 0.7], device=device) * side
    images = torch.randn(batch_size, 3, side, side, device=device)
    return {"pixel_values": images, "input_boxes": box.expand(batch_size, 1, 4)}


def make_pairs(device: str, batch_size: int = 2) -> dict[str, torch.Tensor]:
    """Return pairs with an object each for a learner."""
    inputs, side = make_inputs(device, batch_size), SCALES[device].side
    labels = torch.zeros(batch_size, 1, side, side, device=device)
    labels[..., side // 5 : side // 2, side // 5 : side * 4 // 5] = 1
    return {
        "pixel_values_a": inputs["pixel_values"],
        "pixel_values_b": inputs["pixel_values"].flip(0),
        "labels": labels,
        "input_boxes": inputs["input_boxes"],
        "input_points": torch.full((batch_size, 1, 1, 2), side / 3, device=device),
        "input_labels": torch.ones(batch_size, 1, 1, dtype=torch.long, device=device),
        "input_ids": torch.ones(batch_size, 1, 6, dtype=torch.long, device=device),
        "attention_mask": torch.ones(batch_size, 1, 6, dtype=torch.long, device=device),
    }


class SavedBytes:
    """Bytes of the activations that a forward pass keeps for the backward pass; needs no memory on the meta device.

    The inputs of checkpointed blocks, which are kept in another way, do not count.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._weights = {each.untyped_storage()._cdata for each in [*model.parameters(), *model.buffers()]}

    def record(self) -> AbstractContextManager[None]:
        """Record what is kept inside the context."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Number of bytes."""
        return sum(each.nbytes() for key, each in self._storages.items() if key not in self._weights)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage  # kept alive, so that no other storage has its number
        return tensor


def synchronize(device: str) -> None:
    """Wait until a device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure_rate(device: str, run: Callable[[], object]) -> float:
    """Return how often a function runs per second."""
    run()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(SCALES[device].repeats):
        run()
    synchronize(device)
    return SCALES[device].repeats / (time.perf_counter() - start)


def format_table(rows: Rows) -> list[str]:
    """Return the lines of a table."""
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{device:{widths[0]}}  {what:{widths[1]}}  {figure}" for device, what, figure in rows]
