"""Prompts of any kind, and a small checkpoint with what breaks its files, for tests with hostile input."""

import copy
import json
import random
import struct
from pathlib import Path
from typing import Any

import torch
from image_mutations import OPERATIONS, mutate
from photo_files import make_photo
from tiny_model import tiny_model, tiny_processor

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.hub.checkpoints import explain_errors, load_checkpoint, load_complete
from fclm_hf.masks_fclm import resize_maps
from fclm_hf.pipeline_fclm import decode_alphas


PROMPTS = "prompts"
KINDS = (
    PROMPTS,
    "config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
)
PHOTO = make_photo(40, 30)
_GOOD_PROMPTS = {
    "text": [["low er", "owl"]],
    "input_points": [[[[3, 4], [5, 6]], None]],
    "input_labels": [[[1, 0], None]],
    "input_boxes": [[[1, 2, 20, 25], [0, 0, 40, 30]]],
}
_LEAVES = (
    *(None, True, False, 0, 1, -1, 2, 3, 0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63)),
    *(10**30, 255, 65536, 1000003, "", " ", "a", "0", "../../x", "\0", "\ud800", "x" * 5000, "float16", "cls"),
    *([], {}, [None], [[]], [[[[]]]], {"": None}, [0] * 50, [1e9, 1e9], {"height": 10**6, "width": 10**6}),
)


def mutate_json(value: Any, generator: random.Random) -> Any:
    """Return a copy of a value as of a JSON file with up to four of its parts replaced, removed, moved or repeated."""
    value = copy.deepcopy(value)
    for _ in range(generator.randint(1, 4)):
        places = list(_list_places(value))
        if not places:
            return generator.choice(_LEAVES)
        parent, key = generator.choice(places)
        operation = generator.randrange(6)
        if operation < 3:
            parent[key] = copy.deepcopy(generator.choice(_LEAVES))
        elif operation == 3:
            del parent[key]
        elif operation == 4:
            other, other_key = generator.choice(places)
            parent[key] = copy.deepcopy(other[other_key])
        elif isinstance(parent, dict):
            parent[generator.choice([f"{key}s", key.upper(), "extra", "_attn_implementation", "auto_map"])] = parent[
                key
            ]
        else:
            parent[key:key] = [copy.deepcopy(parent[key]) for _ in range(generator.choice([1, 2, 30]))]
    return value


def make_prompts(generator: random.Random) -> dict[str, Any]:
    """Return some kinds of prompts with numbers in and near the image; half of them are broken."""
    kinds = [name for name in _GOOD_PROMPTS if generator.random() < 0.6]
    prompts = {name: _GOOD_PROMPTS[name] for name in kinds if name != "input_labels" or "input_points" in kinds}
    if generator.random() < 0.5:
        return {name: mutate_json(value, generator) for name, value in prompts.items()}
    prompts = copy.deepcopy(prompts)
    for parent, key in list(_list_places(prompts)):
        if isinstance(parent[key], int) and parent[key] > 1:
            parent[key] = generator.choice([generator.randint(-1, 41), generator.uniform(0, 30), float(parent[key])])
    if "text" in prompts:
        texts = [chr(generator.randrange(1, 0xD7FF)) * generator.randint(1, 40) for _ in range(2)]
        prompts["text"] = [[generator.choice(["low", text]) for text in texts]]
    return prompts


def mutate_file(data: bytes, generator: random.Random) -> bytes:
    """Break a JSON or safetensors file: its structure, or its bytes."""
    if generator.random() < 0.2:
        count = generator.randint(1, 3)
        changes = [(generator.choice(OPERATIONS), generator.random(), generator.getrandbits(32)) for _ in range(count)]
        return mutate(data, changes, repair=False)
    if data.startswith(b"{"):
        return json.dumps(mutate_json(json.loads(data), generator)).encode()
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    if generator.random() < 0.5:  # a few of hundreds of tensors, so that the others are as they should be
        name = generator.choice(sorted(header))
        header[name] = mutate_json(header[name], generator)
    else:
        header = mutate_json(header, generator)
    text = json.dumps(header).encode()
    told = len(text) if generator.random() < 0.8 else generator.choice([0, 1, len(text) + 1, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", told) + text + data[8 + length :]


def _list_places(value: Any) -> Any:
    """Yield each list or dict in a value with each of its indices or keys."""
    if isinstance(value, (dict, list)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _list_places(each)


class HostileCheckpoint:
    """A tiny checkpoint of which one file at a time is broken, and a whole one for prompts.

    Args:
        folder: Folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiny_model(encoder_size=28).save_pretrained(folder)
        tiny_processor().save_pretrained(folder)
        self.files = {name: (folder / name).read_bytes() for name in KINDS if name != PROMPTS}
        self.model, self.processor = load_checkpoint(folder)
        self.run(self.model, self.processor, _GOOD_PROMPTS)

    def try_one(self, kind: str, generator: random.Random) -> str:
        """Break something, use it, and return "result" or the name of the documented error; raise any other."""
        if kind == PROMPTS:
            return self.run(self.model, self.processor, make_prompts(generator))
        (self.folder / kind).write_bytes(mutate_file(self.files[kind], generator))
        try:
            model, processor = self.load(kind)
        except (OSError, ValueError) as error:
            if str(self.folder) not in str(error):
                raise AssertionError(f"the error does not name the checkpoint: {error!r}") from error
            return type(error).__name__
        finally:
            (self.folder / kind).write_bytes(self.files[kind])
        return self.run(model, processor, _GOOD_PROMPTS)

    def load(self, kind: str) -> tuple[FCLMForImageMatting, FCLMProcessor]:
        """Load what a file belongs to: the model, or the processor."""
        if kind in ("config.json", "model.safetensors"):
            with explain_errors(self.folder):
                model = load_complete(FCLMForImageMatting, self.folder, "checkpoint", use_safetensors=True)
            return model.eval(), self.processor
        with explain_errors(self.folder):
            return self.model, FCLMProcessor.from_pretrained(self.folder)

    def run(self, model: FCLMForImageMatting, processor: FCLMProcessor, prompts: dict[str, Any]) -> str:
        """Matte with prompts; check the alphas, or that the error names an argument or setting."""
        size = (PHOTO.height, PHOTO.width)
        try:
            inputs = processor(PHOTO, **prompts)
            with torch.no_grad():
                embeddings = model.get_image_embeddings(inputs["pixel_values"], inputs["pixel_mask"])
                alpha = resize_maps(decode_alphas(model, embeddings, inputs), size)
        except (TypeError, ValueError) as error:
            settings = *processor.image_processor.to_dict(), *processor.tokenizer.init_kwargs
            if not any(name in str(error) for name in ("Image 0", "input_ids", *_GOOD_PROMPTS, *settings)):
                raise AssertionError(f"the error names no argument: {error!r}") from error
            return type(error).__name__
        if model is not self.model and not torch.isfinite(alpha).all():
            return "not finite"  # broken weights are any numbers
        if tuple(alpha.shape[1:]) != size or not ((alpha >= -1e-6) & (alpha <= 1 + 1e-6)).all():
            raise AssertionError(f"alphas of shape {tuple(alpha.shape)} in [{alpha.min()}, {alpha.max()}]")
        return "result"
