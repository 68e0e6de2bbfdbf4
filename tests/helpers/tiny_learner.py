"""A small random learner and a batch of pairs."""

import torch
from tiny_model import tiny_model, tiny_teacher

from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings


def make_batch(height: int = 48, width: int = 64) -> dict[str, torch.Tensor]:
    """Return two pairs with two objects each and prompts of every kind; the second pair is narrower."""
    labels = torch.zeros(2, 2, height, width)
    labels[:, 0, 5:30, 4:25], labels[:, 1, 20:40, 28:40] = 1.0, 0.7
    masks = torch.full_like(labels, -1.0)
    masks[0, 0] = (labels[0, 0] > 0.5).float()
    pixel_mask = torch.ones(2, height, width, dtype=torch.long)
    pixel_mask[1, :, 48:] = 0
    images = torch.randn(2, 2, 3, height, width) * pixel_mask[:, None]
    return {
        "pixel_values_a": images[0],
        "pixel_values_b": images[1],
        "pixel_mask": pixel_mask,
        "labels": labels,
        "input_masks": masks,
        "input_boxes": torch.tensor([[[4.0, 5.0, 25.0, 30.0], [28.0, 20.0, 40.0, 40.0]]] * 2),
        "input_points": torch.tensor([[[[10.0, 10.0]], [[30.0, 30.0]]]] * 2),
        "input_labels": torch.ones(2, 2, 1, dtype=torch.long),
        "input_ids": torch.randint(0, 20, (2, 2, 6)),
        "attention_mask": torch.ones(2, 2, 6, dtype=torch.long),
    }


def make_learner(**settings) -> ForegroundConsistentLearner:
    """Return a learner with a tiny student and teacher."""
    teacher = tiny_teacher() if settings.get("distillation") != "none" else None
    return ForegroundConsistentLearner(tiny_model().train(), teacher, TrainingSettings(**settings))
