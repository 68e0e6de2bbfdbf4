"""Mattes of the tiny pipeline: what they should be, and whether two are the same."""

from typing import Any

import torch
from PIL import Image

from fclm_hf import ReferringMattingPipeline


TOLERANCE = 3e-6  # float32 rounding: sums over other shapes run in another order
BOX, OTHER_BOX = [5, 5, 30, 35], [20.5, 0, 50, 40]


def predict_directly(pipe: ReferringMattingPipeline, image: Image.Image, **prompts: Any) -> torch.Tensor:
    inputs = pipe.processor(images=image, **prompts)
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        return pipe.processor.post_process_image_matting(pipe.model(**inputs), sizes)[0]["alpha"]


def list_objects(result: Any) -> list[dict[str, Any]]:
    return [result] if isinstance(result, dict) else result


def assert_close(result: dict[str, Any], expected: dict[str, Any]) -> None:
    torch.testing.assert_close(result["predicted_alpha"], expected["predicted_alpha"], atol=TOLERANCE, rtol=0)
