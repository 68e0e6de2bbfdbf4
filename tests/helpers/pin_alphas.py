"""Slices of the alphas of fclm-lite on a bundled photo, one per kind of prompt, that pin what the checkpoint predicts.

Run `python tests/helpers/pin_alphas.py` after replacing the checkpoint; it rewrites the file of expected values.
"""

import json
from typing import Any

import torch
from paths import FIXTURES, PHOTOS
from PIL import Image

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor


EXPECTED = FIXTURES / "fclm_lite_alphas.json"
PHOTO = PHOTOS / "cat.jpg"
PROMPTS: dict[str, dict[str, Any]] = {
    "text": {"text": [["cat"]]},
    "box": {"input_boxes": [[[60, 20, 430, 290]]]},
    "points": {"input_points": [[[[220, 140], [20, 20]]]], "input_labels": [[[1, 0]]]},
    "none": {},
}
ROWS, COLUMNS = slice(20, None, 40), slice(20, None, 40)  # from background over hair to the inside of the object


@torch.no_grad()
def compute_alphas(model: FCLMForImageMatting, processor: FCLMProcessor, prompts: dict[str, Any]) -> torch.Tensor:
    """Return the slice (7, 11) of the alpha that a model predicts for these prompts."""
    inputs = processor(images=Image.open(PHOTO), **prompts, return_tensors="pt")
    outputs = model(**inputs)
    result = processor.post_process_image_matting(outputs, inputs["original_sizes"])[0]
    return result["alpha"][0, ROWS, COLUMNS]


def read_expected() -> dict[str, list[list[float]]]:
    """Return the expected slice of each kind of prompt."""
    return json.loads(EXPECTED.read_text())


def main() -> None:
    """Rewrite the expected values: one line per row of a slice."""
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval()
    processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
    kinds = []
    for kind, prompts in PROMPTS.items():
        alphas = compute_alphas(model, processor, prompts).tolist()
        rows = ",\n    ".join(json.dumps([round(alpha, 5) for alpha in row]) for row in alphas)
        kinds.append(f'  "{kind}": [\n    {rows}\n  ]')
    EXPECTED.write_text("{\n" + ",\n".join(kinds) + "\n}\n")


if __name__ == "__main__":
    main()
