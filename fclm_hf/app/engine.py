"""Inference of the app without Gradio: checkpoints, encoded photos, and the mattes of their objects."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from transformers.utils import ModelOutput

from ..checkpoints import LITE_CHECKPOINT
from ..hub.checkpoints import fetch_checkpoint, load_checkpoint
from ..image_loading_fclm import open_image
from ..pipeline_fclm import ReferringMattingPipeline, decode_alphas
from ..pipeline_prompts_fclm import nest_prompts
from ..pipeline_results_fclm import MattingResults
from ..refinement_fclm import refine_alphas


EMBEDDED = "fclm-lite"
MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64 * 1024 * 1024
IDLE_SECONDS = 3600.0
CACHE_BYTES = 2 * 1024**3
MAX_MODELS = 3

Value = TypeVar("Value")


class RecentlyUsed(Generic[Value]):
    """Mapping of bounded size and age: what was not used for the longest time goes first.

    Args:
        max_size: Largest sum of the sizes; a single value may exceed it.
        max_idle: Seconds after which a value that was not used is dropped.

    Example:
        >>> from fclm_hf.app.engine import RecentlyUsed
        >>> cache = RecentlyUsed(max_size=2, max_idle=60)
        >>> cache.put("a", 1, size=1), cache.put("b", 2, size=1)
        (1, 2)
        >>> cache.get("a"), cache.put("c", 3, size=1), cache.get("b")
        (1, 3, None)
    """

    def __init__(self, max_size: float, max_idle: float) -> None:
        self.max_size, self.max_idle = max_size, max_idle
        self._entries: OrderedDict[Any, tuple[Value, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> float:
        """Sum of the sizes."""
        return sum(size for _, size, _ in self._entries.values())

    def get(self, key: Any) -> Value | None:
        """Return a value, which counts as a use, or None."""
        self.drop_idle()
        if key not in self._entries:
            return None
        value, size, _ = self._entries.pop(key)
        self._entries[key] = value, size, time.monotonic()
        return value

    def put(self, key: Any, value: Value, size: float) -> Value:
        """Store a value and return it."""
        self.drop_idle()
        self._entries.pop(key, None)
        self._entries[key] = value, size, time.monotonic()
        while len(self._entries) > 1 and self.size > self.max_size:
            self._entries.popitem(last=False)
        return value

    def drop_idle(self) -> None:
        """Drop what has not been used for `max_idle` seconds."""
        oldest = time.monotonic() - self.max_idle
        while self._entries and next(iter(self._entries.values()))[2] < oldest:
            self._entries.popitem(last=False)


@dataclass(frozen=True)
class EncodedPhoto:
    """A photo that has been encoded once for all prompts.

    Attributes:
        image: The upright photo, RGB, or RGBA with its transparency.
        embeddings: What the decoder needs of it.
        pixel_values: Normalized pixels, for models that take a second, closer look.
    """

    image: Image.Image
    embeddings: ModelOutput
    pixel_values: torch.Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of the pixels and the embeddings in bytes."""
        maps = [
            each for value in self.embeddings.values() for each in (value if isinstance(value, tuple) else (value,))
        ]
        maps += [] if self.pixel_values is None else [self.pixel_values]
        pixels = self.image.width * self.image.height * len(self.image.getbands())
        return pixels + sum(each.numel() * each.element_size() for each in maps)


class Engine:
    """Mattes of any number of visitors: one computation at a time, with bounded memory.

    A photo is encoded once for each model, as long as it stays among the recently used ones, and only decoded for each
    prompt.

    Args:
        models: Checkpoints to offer, the first by default: folders, Hub repositories, or "fclm-lite", which is
            included. Each is loaded when it is first used.
        allow_other_models: Whether visitors may name other checkpoints. Only for visitors who may see which folders
            exist on this machine and fill its disk.
        device: Device for torch, such as "cuda:0". Defaults to the first GPU, or else the CPU.
        max_pixels: Largest number of pixels of a photo.
        max_bytes: Largest number of bytes of a file.
        cache_bytes: Memory for encoded photos.
        max_idle: Seconds after which an encoded photo that is not used is dropped.

    Raises:
        ValueError: If there is no model.

    Example:
        >>> from PIL import Image
        >>> from fclm_hf.app.engine import Engine
        >>> engine = Engine(device="cpu")
        >>> Image.new("RGB", (96, 64), "navy").save("photo.png")
        >>> results = engine.matte("photo.png", {"input_boxes": [[20, 10, 60, 50]]})
        >>> results[0]["cutout"].size
        (96, 64)
    """

    def __init__(
        self,
        models: Sequence[str] = (EMBEDDED,),
        allow_other_models: bool = False,
        device: str | None = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        cache_bytes: float = CACHE_BYTES,
        max_idle: float = IDLE_SECONDS,
    ) -> None:
        if not models:
            raise ValueError("models must name at least one checkpoint, got none.")
        self.models = list(dict.fromkeys(models))
        self.allow_other_models = allow_other_models
        self.max_pixels, self.max_bytes = max_pixels, max_bytes
        self._device = device
        self._lock = threading.RLock()
        self._loaded: RecentlyUsed[ReferringMattingPipeline] = RecentlyUsed(MAX_MODELS, float("inf"))
        self._encoded: RecentlyUsed[EncodedPhoto] = RecentlyUsed(cache_bytes, max_idle)

    def load(self, model: str | None = None) -> ReferringMattingPipeline:
        """Return the pipeline of a checkpoint; it is read from safetensors files, and no code of it is run.

        Args:
            model: Folder, Hub repository, or "fclm-lite"; None is the first of `models`.

        Raises:
            ValueError: If the model is not offered here, or is not an FCLM checkpoint.
            OSError: If it cannot be downloaded or a file is missing.
        """
        name = (model or self.models[0]).strip()
        if name not in self.models and not self.allow_other_models:
            raise ValueError(f"model must be one of {', '.join(self.models)}, got {name!r}.")
        with self._lock:
            return self._loaded.get(name) or self._loaded.put(name, self._load(name), size=1)

    def open(self, photo: str | Path) -> Image.Image:
        """Decode a photo within the limits of the app, upright and in its own mode.

        Args:
            photo: File.

        Raises:
            ValueError: If it cannot be read, or exceeds a limit.
        """
        return open_image(Path(photo), max_pixels=self.max_pixels, max_bytes=self.max_bytes)

    def encode(self, photo: str | Path, model: str | None = None) -> EncodedPhoto:
        """Return a photo encoded by a model, from the cache if it was encoded before.

        Args:
            photo: File.
            model: See [`load`].

        Raises:
            ValueError: If the photo cannot be read or exceeds a limit, or the model is invalid.
            OSError: See [`load`].
        """
        with self._lock:
            pipe = self.load(model)
            key = pipe.model.name_or_path, self._identify(photo)
            return self._encoded.get(key) or self._encode(key, Path(photo), pipe)

    def matte(
        self,
        photo: str | Path,
        prompts: Mapping[str, Any],
        model: str | None = None,
        foreground: str | None = "multiscale",
    ) -> MattingResults:
        """Return the mattes of the objects in a photo.

        Args:
            photo: File.
            prompts: `text`, `input_points`, `input_labels`, `input_boxes` and `input_masks` (files) of
                [`ReferringMattingPipeline`], in pixels of the photo. Without any, it is the object that stands out.
            model: See [`load`].
            foreground: How to estimate the colors of cutouts; None for no cutouts.

        Returns:
            The results of the objects, each made when it is accessed.

        Raises:
            ValueError: If the photo cannot be read or exceeds a limit, or a prompt or the model is invalid.
            OSError: See [`load`].
        """
        unknown = prompts.keys() - {"text", "input_points", "input_labels", "input_boxes", "input_masks"}
        if unknown:
            raise ValueError(
                "prompts must have no other keys than text, input_points, input_labels and input_boxes, got"
                f" {', '.join(sorted(map(str, unknown)))}."
            )
        with self._lock, torch.inference_mode():
            encoded, pipe = self.encode(photo, model), self.load(model)
            image, embeddings = encoded.image, encoded.embeddings
            if masks := prompts.get("input_masks"):
                masks = [each and self._open_mask(each, image.size) for each in masks]
                prompts = {**prompts, "input_masks": masks}
            inputs = pipe.processor.encode_prompts(
                [(image.height, image.width)], embeddings.image_sizes.tolist(), **nest_prompts(dict(prompts))
            )
            alphas = decode_alphas(pipe.model, embeddings, inputs)
            if encoded.pixel_values is not None:
                alphas = refine_alphas(pipe.model, encoded.pixel_values, alphas, inputs, image_embeddings=embeddings)
        return MattingResults(image, alphas[None], foreground)

    def drop_idle(self) -> None:
        """Drop encoded photos that nobody has used for a while."""
        with self._lock:
            self._encoded.drop_idle()

    @property
    def num_encoded(self) -> int:
        """Number of encoded photos in memory."""
        return len(self._encoded)

    def _load(self, name: str) -> ReferringMattingPipeline:
        if name.startswith("~"):
            name = str(Path(name).expanduser())
        folder = fetch_checkpoint(LITE_CHECKPOINT if name == EMBEDDED else name)
        model, processor = load_checkpoint(folder)
        return ReferringMattingPipeline(
            model=model, processor=processor, task="referring-matting", device=self._device, **self._limits
        )

    @property
    def _limits(self) -> dict[str, int]:
        return {"max_pixels": self.max_pixels, "max_bytes": self.max_bytes}

    @torch.inference_mode()
    def _encode(self, key: Any, photo: Path, pipe: ReferringMattingPipeline) -> EncodedPhoto:
        inputs = pipe.preprocess(photo, **self._limits)
        features = pipe.ensure_tensor_on_device(**inputs["features"])
        embeddings = pipe.model.get_image_embeddings(
            features["pixel_values"].to(pipe.model.dtype), features["pixel_mask"]
        )
        pixel_values = features["pixel_values"] if pipe.model.config.refinement_size else None
        encoded = EncodedPhoto(inputs["image"], embeddings, pixel_values)
        return self._encoded.put(key, encoded, encoded.num_bytes)

    def _open_mask(self, mask: str | Path, size: tuple[int, int]) -> Image.Image:
        image = self.open(mask)
        if image.size != size:
            raise ValueError(
                f"The mask must have the size of the photo, {size[0]} x {size[1]} pixels, got"
                f" {image.width} x {image.height}."
            )
        return image

    def _identify(self, photo: str | Path) -> str:
        """Return a hash of the content of a file, so that no visitor sees the photo of another."""
        path = Path(photo)
        try:
            if path.stat().st_size > self.max_bytes:
                raise ValueError(
                    f"{path.name} is too large: {path.stat().st_size / 1e6:.0f} MB exceed the limit of"
                    f" {self.max_bytes / 1e6:.0f} MB."
                )
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError("The photo is no longer here: upload it again.") from error


def explain(error: Exception, *files: str | Path | None) -> str:
    """Return what went wrong in one line that names files without the folders of the server.

    Args:
        error: What was raised.
        files: Files that the message may name.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    for path in files:
        if path is not None:
            lines[0] = lines[0].replace(str(path), Path(path).name)
    return lines[0]


__all__ = ["EMBEDDED", "EncodedPhoto", "Engine", "RecentlyUsed", "explain"]
