"""Sample inputs of the parts of a model, by which the ranges of activations are found."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..data.synthesis.procedural import grow_plant
from .parts import Part


NUM_BATCHES = 4
SIDE = 384  # pixels


def make_feeds(parts: Sequence[Part]) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return inputs of the image encoder and of the prompt decoder.

    Args:
        parts: The parts of a model, see [`~fclm_hf.exporters.parts.make_parts`].

    Returns:
        Arrays by the names of the inputs, for each of some calls, by the names of the two parts.
    """
    named = {part.name: part for part in parts}
    encoder, decoder = named["image_encoder"], named["prompt_decoder"]
    feeds: dict[str, list[dict[str, np.ndarray]]] = {encoder.name: [], decoder.name: []}
    for photos, alphas in draw_photos(len(encoder.inputs["image_sizes"])):
        sizes = torch.tensor([photos.shape[-2:]] * len(photos))
        inputs = {**encoder.inputs, "pixel_values": photos, "image_sizes": sizes}
        embeddings = {**_run(encoder, inputs), "image_sizes": sizes}
        feeds[encoder.name].append(_to_arrays(inputs))
        feeds[decoder.name].append(_to_arrays({**decoder.inputs, **embeddings}))
        if "mask_encoder" in named:  # an image is decoded with a mask as that of one object
            masker = named["mask_encoder"]
            masked = _run(masker, {name: embeddings.get(name, alphas) for name in masker.inputs})
            embeddings |= {name.removeprefix("masked_"): values for name, values in masked.items()}
            prompts = {name: values[:, :1] for name, values in decoder.inputs.items() if name not in embeddings}
            feeds[decoder.name].append(_to_arrays({**embeddings, **prompts}))
    return feeds


def draw_photos(batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of synthetic photos (batch_size, 3, height, width) and the alphas of what they show.

    They are plants in front of noise whose amplitude falls with its frequency, as that of photos does (Field, 1987).
    """
    rng = np.random.default_rng(0)
    for _ in range(NUM_BATCHES):
        plants = [grow_plant(rng, SIDE) for _ in range(batch_size)]
        colors = np.stack([plant.colors for plant in plants]).transpose(0, 3, 1, 2) / 127.5 - 1
        alphas = np.stack([plant.alpha for plant in plants])[:, None]
        photos = colors * alphas + _draw_backgrounds(rng, batch_size) * (1 - alphas)
        yield torch.from_numpy(photos.astype(np.float32)), torch.from_numpy(alphas.astype(np.float32))


def _draw_backgrounds(rng: np.random.Generator, batch_size: int) -> np.ndarray:
    """Return noise (batch_size, 3, height, width) in [-1, 1] with correlated channels."""
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    frequencies[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(batch_size, 3, SIDE, SIDE))) / frequencies
    noise = np.fft.irfft2(spectrum, (SIDE, SIDE))
    noise = np.einsum("bij,bjhw->bihw", 1 + 0.3 * rng.normal(size=(batch_size, 3, 3)), noise)
    return np.clip(noise / (2 * noise.std((1, 2, 3), keepdims=True)), -1, 1)


@torch.no_grad()
def _run(part: Part, inputs: dict[str, torch.Tensor | int]) -> dict[str, torch.Tensor]:
    """Return the outputs of a part by name."""
    return dict(zip(part.outputs, part.module(*inputs.values()), strict=True))


def _to_arrays(inputs: dict[str, torch.Tensor | int]) -> dict[str, np.ndarray]:
    """Return inputs as arrays."""
    return {name: np.asarray(value) for name, value in inputs.items()}


__all__ = ["draw_photos", "make_feeds"]
