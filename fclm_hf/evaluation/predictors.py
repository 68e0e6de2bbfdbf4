"""Where mattes come from: a checkpoint, a method that needs only a box, or a folder of files."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.hub import extract_commit_hash

from .baselines import BASELINES
from .layouts import index_images
from .prompts import Prompted
from .samples import Sample, read_matte


Asked = dict[str, list[Prompted]]
Mattes = Iterator[tuple[str, list[np.ndarray | None]]]
PROMPT_KEYS = ("input_points", "input_labels", "input_boxes", "input_ids", "attention_mask", "object_mask")
PIXELS_PER_PASS = 4 * 1024 * 1024  # objects x pixels of the model that are decoded at once, about 2 GB


class CheckpointPredictor:
    """A checkpoint of FCLM and its processor. An image is encoded once for all prompts of all kinds.

    Args:
        source: folder or Hub id.
        longest_edge: longer side that the image is shrunk to (never enlarged); default: the processor's own.
        overrides: fields of the config, such as `encoder_size`.
        device, dtype: of the model.

    Mattes are resized back to the photo's size, antialiased bilinear. Raises OSError or ValueError when it cannot be
    loaded.
    """

    def __init__(
        self,
        source: str,
        longest_edge: int | None = None,
        overrides: dict[str, Any] | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        from ..modeling_fclm import FCLMForImageMatting
        from ..processing_fclm import FCLMProcessor

        self.model = FCLMForImageMatting.from_pretrained(source, dtype=getattr(torch, dtype), **(overrides or {}))
        self.model.to(device).eval()
        self.processor = FCLMProcessor.from_pretrained(source)
        self.resize = {} if longest_edge is None else {"size": {"longest_edge": longest_edge}}

    @property
    def vocabulary(self) -> frozenset[str]:
        return frozenset(self.processor.tokenizer.get_vocab())

    @torch.inference_mode()
    def predict(self, sample: Sample, image: Image.Image, asked: Asked) -> Mattes:
        """Yields each kind of prompt with its mattes, float32 (H, W) in [0, 1]."""
        if not any(asked.values()):
            yield from ((prompt, []) for prompt in asked)
            return
        device, size = self.model.device, (image.height, image.width)
        encoded = self.processor(images=image, **self.resize).to(device)
        pixels = encoded["pixel_values"].to(self.model.dtype)
        embeddings = self.model.get_image_embeddings(pixels, encoded["pixel_mask"])
        step = max(1, PIXELS_PER_PASS // (pixels.shape[-2] * pixels.shape[-1]))
        for prompt, objects in asked.items():
            mattes: list[np.ndarray | None] = []
            for start in range(0, len(objects), step):
                given = _nest(prompt, objects[start : start + step])
                inputs = self.processor(images=image, **given, **self.resize) if given else {}
                inputs = {name: inputs[name].to(device) for name in PROMPT_KEYS if name in inputs}
                outputs = self.model(image_embeddings=embeddings, **inputs)
                alphas = self.processor.post_process_image_matting(outputs, target_sizes=[size])[0]["alpha"]
                mattes.extend(alphas.float().cpu().numpy())
            yield prompt, mattes


class BoxPredictor:
    """One of BASELINES; answers boxes only."""

    def __init__(self, name: str) -> None:
        self.run = BASELINES[name]

    def predict(self, sample: Sample, image: Image.Image, asked: Asked) -> Mattes:
        for prompt, objects in asked.items():
            yield prompt, [self.run(image, each.box) for each in objects]


class FolderPredictor:
    """Mattes that any other program wrote: `<name of the target>` with any image suffix, of the photo's size.

    Instances are all images in `<name of the sample>/`, whatever their names. What is missing is None.

    Raises ValueError when two files have one name.
    """

    def __init__(self, folder: Path, instances: bool = False) -> None:
        self.images, self.instances = index_images(folder, "**/*"), instances

    def list_unused(self, names: Iterable[str]) -> list[str]:
        """Names of the mattes that belong to none of these targets, or of these samples if they are instances."""
        known = set(names)
        return [name for name in self.images if (_find_photo(name) if self.instances else name) not in known]

    def predict(self, sample: Sample, image: Image.Image, asked: Asked) -> Mattes:
        size = (image.height, image.width)
        for prompt, objects in asked.items():
            if self.instances:
                paths = [path for name, path in self.images.items() if _find_photo(name) == sample.name]
            else:
                paths = [self.images.get(each.target.name) for each in objects]
            yield prompt, [None if path is None else read_matte(path, str(path), size) for path in paths]


def fingerprint_checkpoint(source: str) -> str | None:
    """What tells two versions of a checkpoint apart: a hash of its files, or the commit on the Hub.

    Raises OSError when there is no checkpoint.
    """
    try:
        config = cached_file(source, CONFIG_NAME)
    except (OSError, ValueError) as error:
        raise OSError(f"models: {source} cannot be loaded: {error}") from error
    folder = Path(source)
    if not folder.is_dir():
        return extract_commit_hash(config, None)
    digest = sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def fingerprint_folder(folder: Path) -> str:
    """Names, sizes and times of all files."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _find_photo(name: str) -> str:
    """ "photo/00" is an instance of "photo"."""
    return name.rpartition("/")[0]


def _nest(prompt: str, objects: list[Prompted]) -> dict[str, Any]:
    """Arguments of the processor for the objects of one image."""
    if prompt == "box":
        return {"input_boxes": [[list(each.box) for each in objects]]}
    if prompt == "point":
        return {"input_points": [[[list(each.point)] for each in objects]], "input_labels": [[[1]] * len(objects)]}
    if prompt == "text":
        return {"text": [[each.text for each in objects]]}
    return {}
