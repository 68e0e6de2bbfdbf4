"""Predictors, which produce mattes: a checkpoint, a baseline that needs only a box, or a folder of files."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.hub import extract_commit_hash

from ..data.sources.image_folders import index_images
from .baselines import BASELINES
from .prompts import PromptedTarget
from .samples import EvaluationSample, read_matte


PromptedTargets = dict[str, list[PromptedTarget]]  # by kind of prompt
Matte = Callable[..., np.ndarray]
Mattes = Iterator[tuple[str, list[np.ndarray | None]]]


class CheckpointPredictor:
    """An FCLM checkpoint with its processor, which encodes an image once for all prompts of all kinds.

    Mattes are resized back to the size of the photo with antialiased bilinear interpolation.

    Args:
        source: Folder or Hub id.
        longest_edge: Longer side to which images are shrunk (never enlarged); by default the processor's own.
        overrides: Fields of the config to change, such as `encoder_size`.
        device: Device of the model.
        dtype: Precision of the model: "float32", "float16" or "bfloat16".

    Raises:
        OSError: If the checkpoint cannot be loaded.
        ValueError: If a field of the config is invalid.
    """

    def __init__(
        self,
        source: str,
        longest_edge: int | None = None,
        overrides: dict[str, Any] | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        from ..processing_fclm import FCLMProcessor

        self.model = load_model(source, dtype, overrides or {})
        self.model.to(device).eval()
        self.processor = FCLMProcessor.from_pretrained(source)
        self.resize = {} if longest_edge is None else {"size": {"longest_edge": longest_edge}}
        self._encoded: tuple[Image.Image, Matte] | None = None

    @property
    def vocabulary(self) -> frozenset[str]:
        """The tokens of the tokenizer."""
        return frozenset(self.processor.tokenizer.get_vocab())

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> Matte:
        """Encode a photo, unless it is the last one that was encoded.

        Args:
            image: The photo, RGB.

        Returns:
            Function that takes prompts for the objects of the photo as [`FCLMProcessor.encode_prompts`] does, and
            returns their mattes, float32 of shape `(objects, height, width)` in [0, 1].
        """
        if self._encoded is not None and self._encoded[0] is image:
            return self._encoded[1]
        from ..pipeline_fclm import decode_alphas
        from ..refinement_fclm import refine_alphas

        size = (image.height, image.width)
        encoded = self.processor(images=image, **self.resize).to(self.model.device)
        pixels = encoded["pixel_values"].to(self.model.dtype)
        embeddings = self.model.get_image_embeddings(pixels, encoded["pixel_mask"])
        resized_size = embeddings.image_sizes[0].tolist()

        @torch.inference_mode()
        def matte(**prompts: Any) -> np.ndarray:
            inputs = self.processor.encode_prompts([size], [resized_size], **prompts)
            alphas = decode_alphas(self.model, embeddings, inputs)
            alphas = refine_alphas(self.model, pixels, alphas, inputs, image_embeddings=embeddings)
            result = self.processor.post_process_image_matting({"alphas": alphas[None]}, target_sizes=[size])[0]
            return result["alpha"].numpy()

        self._encoded = image, matte
        return matte

    def predict(self, sample: EvaluationSample, image: Image.Image, prompted: PromptedTargets) -> Mattes:
        """Yield each kind of prompt with its mattes, float32 of shape `(height, width)` in [0, 1]."""
        if not any(prompted.values()):
            yield from ((prompt, []) for prompt in prompted)
            return
        matte = self.encode(image)
        for prompt, objects in prompted.items():
            yield prompt, list(matte(**_nest(prompt, objects))) if objects else []


def load_model(source: str, dtype: str, overrides: dict[str, Any]) -> Any:
    """Load a checkpoint, or the graphs of a folder that `fclm export-onnx` wrote.

    Args:
        source: Folder or Hub id.
        dtype: Precision of the model.
        overrides: Fields of the config to change.

    Raises:
        ImportError: If there are graphs and ONNX Runtime is not installed.
        OSError: If the checkpoint cannot be loaded.
        ValueError: If a field of the config is invalid, or graphs are given options that they do not have.
    """
    from ..onnx import OnnxFCLMForImageMatting, has_only_graphs

    if not has_only_graphs(source):
        from ..modeling_fclm import FCLMForImageMatting

        return FCLMForImageMatting.from_pretrained(source, dtype=getattr(torch, dtype), **overrides)
    if overrides or dtype != "float32":
        raise ValueError(f"dtype must be float32 and config_overrides empty for ONNX graphs, got {dtype}, {overrides}.")
    return OnnxFCLMForImageMatting.from_pretrained(source)


class BoxPredictor:
    """One of BASELINES, which accept box prompts only.

    Args:
        name: Name of the baseline.
    """

    def __init__(self, name: str) -> None:
        self.run = BASELINES[name]

    def predict(self, sample: EvaluationSample, image: Image.Image, prompted: PromptedTargets) -> Mattes:
        """Yield each kind of prompt with its masks or mattes, float32 of shape `(height, width)` in [0, 1]."""
        for prompt, objects in prompted.items():
            yield prompt, [self.run(image, each.box) for each in objects]


class FolderPredictor:
    """A folder of mattes that another program wrote: `<name of the target>` with any image suffix, of the photo's size.

    Instances are all images in `<name of the sample>/`, whatever their names. Missing mattes are None.

    Args:
        folder: The folder.
        instances: Whether the mattes are instances.

    Raises:
        ValueError: If two files have the same name.
    """

    def __init__(self, folder: Path, instances: bool = False) -> None:
        self.images, self.instances = index_images(folder, "**/*"), instances

    def list_unused(self, names: Iterable[str]) -> list[str]:
        """Return the names of the mattes that belong to none of these targets (samples, if they are instances)."""
        known = set(names)
        return [name for name in self.images if (_find_photo(name) if self.instances else name) not in known]

    def predict(self, sample: EvaluationSample, image: Image.Image, prompted: PromptedTargets) -> Mattes:
        """Yield each kind of prompt with its mattes, uint8 of shape `(height, width)`."""
        size = (image.height, image.width)
        for prompt, objects in prompted.items():
            if self.instances:
                paths = [path for name, path in self.images.items() if _find_photo(name) == sample.name]
            else:
                paths = [self.images.get(each.target.name) for each in objects]
            yield prompt, [None if path is None else read_matte(path, str(path), size) for path in paths]


def fingerprint_checkpoint(source: str) -> str | None:
    """Identify the version of a checkpoint: a hash of the files in its folder, or the commit of its Hub repository.

    Args:
        source: Folder or Hub id.

    Raises:
        OSError: If there is no such checkpoint.
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
    """Return a hash of the names, sizes and modification times of all files in a folder."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _find_photo(name: str) -> str:
    """Return the sample to which an instance belongs: "photo" for "photo/00"."""
    return name.rpartition("/")[0]


def _nest(prompt: str, objects: list[PromptedTarget]) -> dict[str, Any]:
    """Return the arguments of the processor for the objects of one image."""
    if prompt == "box":
        return {"input_boxes": [[list(each.box) for each in objects]]}
    if prompt == "point":
        return {"input_points": [[[list(each.point)] for each in objects]], "input_labels": [[[1]] * len(objects)]}
    if prompt in ("mask", "trimap"):
        return {"input_masks": [[each.mask for each in objects]]}
    if prompt == "text":
        return {"text": [[each.text for each in objects]]}
    return {}
