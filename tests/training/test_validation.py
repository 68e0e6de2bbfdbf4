"""Validation: unknown pixels of coarse masks do not count."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from fclm_hf.training import TrainingSettings
from fclm_hf.training.validation import validate


pytestmark = pytest.mark.usefixtures("new_accelerator")


class FixedModel(nn.Module):
    """Predicts the same mattes for every batch."""

    def __init__(self, task: str, alphas: torch.Tensor):
        super().__init__()
        self.config, self.alphas = SimpleNamespace(task=task), alphas

    def forward(self, **_: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(alphas=self.alphas)


def make_batch() -> dict[str, torch.Tensor]:
    """Return one image of 48 x 64 pixels with two targets: a coarse mask, unknown on the right, and a true alpha."""
    labels, known = torch.zeros(1, 2, 48, 64), torch.ones(1, 2, 48, 64, dtype=torch.bool)
    labels[..., 10:40, 8:28] = 1
    known[0, 0, :, 32:] = False
    return {
        "pixel_values_b": torch.zeros(1, 3, 48, 64),
        "pixel_mask": torch.ones(1, 48, 64, dtype=torch.long),
        "labels": labels,
        "label_mask": known,
    }


@pytest.mark.parametrize(("task", "error"), [("matting", "mad"), ("segmentation", "mae")])
def test_unknown_pixels_do_not_count(task, error):
    batch, settings, accelerator = make_batch(), TrainingSettings(), Accelerator(cpu=True)
    alphas = batch["labels"].clone()
    alphas[0, 0, :, 32:] = 1  # all of what is unknown is taken for the object
    metrics, picture = validate(FixedModel(task, alphas), [batch], settings, accelerator)
    assert metrics[error] == 0
    assert picture.shape == (48, 3 * 64, 3)
    if task == "matting":
        assert metrics["gradient"] == metrics["connectivity"] == 0
    del batch["label_mask"]  # as if the unknown pixels were background, half of the first target is wrong
    metrics, _ = validate(FixedModel(task, alphas), [batch], settings, accelerator)
    assert metrics[error] == pytest.approx(0.25)


@pytest.mark.parametrize(("task", "error"), [("matting", "mad"), ("segmentation", "mae")])
def test_errors_are_means_over_known_pixels(task, error):
    batch, accelerator = make_batch(), Accelerator(cpu=True)
    batch["label_mask"][0, 1] = False  # nothing is known: the target is left out
    alphas = batch["labels"].clone()
    alphas[0, 0, :, 28:32] = 1  # an eighth of the known half
    metrics, _ = validate(FixedModel(task, alphas), [batch], TrainingSettings(), accelerator)
    assert metrics[error] == pytest.approx(4 / 32)
