"""Foreground tokens of the images of pairs: how well A and B mix, and a figure like the paper's Fig. 6.

A token is a cell of the encoder's last feature map; it is foreground if the mean alpha of the cell is above 0. All
values are computed from the tokens, not from their t-SNE coordinates.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data import CompositionSettings, Pair, PairSettings, PairStream, Shard
from ..data.sources.source import Source
from ..hub.checkpoints import load_checkpoint
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from ..utils.files import write_atomically


FOLDS = 5
NEIGHBORS = 10


def draw_pairs(
    foregrounds: Sequence[Source],
    backgrounds: Sequence[Source],
    composition: CompositionSettings,
    count: int,
    seed: int,
) -> list[Pair]:
    """Return pairs of single objects, without plants and distractors.

    Args:
        foregrounds: Sources of objects and photos.
        backgrounds: Sources of backgrounds.
        composition: Settings of the composites.
        count: Number of pairs.
        seed: Seed of all random draws.

    Raises:
        StreamError: If an image cannot be read.
    """
    single = replace(composition, object_counts=(1, 0, 0), plant_prob=0, distractor_prob=0)
    settings = PairSettings(single, seed=seed, max_invalid_fraction=0, min_sample_count=1)
    stream = PairStream(foregrounds, backgrounds, Shard(), settings)
    return [drawn.pair for drawn in stream.draw(count)]


@torch.no_grad()
def find_tokens(model: FCLMForImageMatting, processor: FCLMProcessor, pair: Pair) -> torch.Tensor:
    """Return the foreground tokens of A and B in the encoder's last feature map, `(2, tokens, channels)`."""
    height, width = pair.valid
    foreground = np.maximum(pair.foreground[:height, :width], 0)  # -1 where a coarse mask is unknown
    inputs = processor(
        images=[image[:height, :width] for image in (pair.image_a, pair.image_b)],
        segmentation_maps=[[foreground]] * 2,
        return_tensors="pt",
    )
    maps = model.model.get_feature_maps(inputs["pixel_values"], inputs["pixel_mask"]).feature_maps[-1]
    sizes = torch.stack([inputs["pixel_mask"][:, :, 0].sum(1), inputs["pixel_mask"][:, 0].sum(1)], dim=1)
    alpha = model.model.resize_and_pad(inputs["labels"], sizes)
    is_foreground = nn.functional.adaptive_avg_pool2d(alpha, maps.shape[-2:])[0, 0] > 0
    return maps[:, :, is_foreground].transpose(1, 2)


def collect_tokens(checkpoint: Path, pairs: list[Pair], limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to `limit` foreground positions of all pairs.

    Returns:
        The tokens of A and B at these positions, `(2, tokens, channels)`, and the indices of their pairs, `(tokens,)`.

    Raises:
        ValueError: If all tokens belong to one pair.
    """
    model, processor = load_checkpoint(checkpoint)
    model.float()
    found = [find_tokens(model, processor, pair).numpy() for pair in pairs]
    tokens = np.concatenate(found, axis=1)
    groups = np.repeat(np.arange(len(found)), [each.shape[1] for each in found])
    chosen = np.random.default_rng(seed).permutation(len(groups))[:limit]
    if len(np.unique(groups[chosen])) < 2:
        raise ValueError("tokens must come from at least two pairs, got one: raise --images or --tokens.")
    return tokens[:, chosen], groups[chosen]


def measure_separability(tokens: np.ndarray, groups: np.ndarray) -> float:
    """Return the accuracy in [0, 1] of a logistic regression that tells A from B, on held-out pairs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat([0, 1], len(groups))
    return float(
        cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            tokens.reshape(len(labels), -1),
            labels,
            groups=np.tile(groups, 2),
            cv=GroupKFold(min(FOLDS, len(np.unique(groups)))),
        ).mean()
    )


def measure_neighbors(tokens: np.ndarray) -> float:
    """Return the fraction in [0, 1] of the nearest neighbors that belong to the same image as the token."""
    from sklearn.neighbors import NearestNeighbors

    labels = np.repeat([0, 1], tokens.shape[1])
    flat = tokens.reshape(len(labels), -1)
    search = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(flat) - 1), metric="cosine").fit(flat)
    nearest = search.kneighbors(return_distance=False)  # leaves the token itself out
    return float((labels[nearest] == labels[:, None]).mean())


def measure_distance(tokens: np.ndarray) -> float:
    """Return the mean of 1 - cosine, in [0, 2], between the tokens of A and B at the same position."""
    first, second = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True).clip(1e-6)
    return float(1 - (first * second).sum(-1).mean())


def embed(tokens: np.ndarray, seed: int) -> np.ndarray:
    """Embed tokens `(2, tokens, channels)` of A and B jointly by t-SNE, `(2, tokens, 2)`, with the cosine of Eq. 8."""
    from sklearn.manifold import TSNE

    flat = tokens.reshape(-1, tokens.shape[-1])
    tsne = TSNE(metric="cosine", init="pca", perplexity=min(30, (len(flat) - 1) / 3), random_state=seed)
    return tsne.fit_transform(flat).reshape(2, -1, 2)


def draw_panels(panels: dict[str, np.ndarray], output: Path) -> None:
    """Save a figure with a scatter plot of points `(2, tokens, 2)` for each title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 5), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for image, color, label in zip(points, ("tab:orange", "tab:blue"), ("A", "B"), strict=True):
            axes.scatter(*image.T, s=6, alpha=0.6, color=color, label=label)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(loc="upper right")

    with write_atomically(output) as path:
        figure.savefig(path, dpi=150)


def describe_tokens(checkpoint: Path, pairs: list[Pair], limit: int, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """Measure the foreground tokens of a checkpoint, and embed them.

    Args:
        checkpoint: Its folder.
        pairs: The pairs, at least two.
        limit: Largest number of tokens per image.
        seed: Seed of the choice of tokens and of the embedding.

    Returns:
        The values by name, and the points `(2, tokens, 2)` of A and B:

        - `separability`: accuracy of a logistic regression that tells A from B, on held-out pairs. About 0.5 if they
          are mixed.
        - `neighbors`: fraction of the ten nearest tokens, by cosine, that belong to the same image, A or B. About 0.5
          if they are mixed.
        - `distance`: mean of 1 - cosine between the tokens of A and B at the same position.

    Raises:
        ValueError: If all tokens belong to one pair.
    """
    tokens, groups = collect_tokens(checkpoint, pairs, limit, seed)
    values = {
        "separability": measure_separability(tokens, groups),
        "neighbors": measure_neighbors(tokens),
        "distance": measure_distance(tokens),
    }
    return values, embed(tokens, seed)
