"""Real photos with true mattes, laid out for development: read by the scripts of this folder, not run by itself.

A folder holds one or both of

    coco/index.json          [{"image", "objects": [{"cls", "unique", "mask", "box", "point"}]}], binary masks
    alphamatting/index.json  [{"id", "noun", "box", "point"}], photos in input/<id>.png, mattes in alpha/<id>.png

Boxes are (x0, y0, x1, y1), points (x, y), both in pixels of the photo. `fclm evaluate` reads the same layouts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fclm_hf.evaluation.layouts import iterate_limited, open_folder
from fclm_hf.evaluation.prompts import PromptedTarget, PromptRules, prompt_targets
from fclm_hf.evaluation.samples import EvaluationSample, read_image, read_matte


@dataclass
class Photo:
    """A photo and the objects to cut out of it.

    Attributes:
        sample: The entry of the index.
        image: The upright photo, RGB.
        prompted: Prompted objects by kind of prompt, with their true mattes, uint8 of shape `(height, width)`.
    """

    sample: EvaluationSample
    image: Image.Image
    prompted: dict[str, list[PromptedTarget]]


def read_photos(folder: Path, prompts: Iterable[str], rules: PromptRules, limit: int | None = None) -> Iterator[Photo]:
    """Yield the photos of `coco/` or `alphamatting/`.

    Args:
        folder: One of the two folders.
        prompts: Kinds of prompts: "box", "point", "text" or "none".
        rules: Rules by which class names become texts.
        limit: Maximum number of photos.

    Raises:
        ValueError: If the folder is not laid out as described above.
    """
    benchmark = open_folder(folder, f"dev-{folder.name}")
    for sample in iterate_limited(benchmark.samples, limit):
        image = read_image(sample.image, sample.name)
        size = (image.height, image.width)
        mattes = [read_matte(target.alpha, str(target.alpha), size) for target in sample.targets]
        yield Photo(sample, image, {prompt: prompt_targets(sample, mattes, prompt, rules)[0] for prompt in prompts})
