"""Draws a figure like the paper's Fig. 6: a t-SNE of the foreground tokens of A and B before and after alignment.

    pip install ".[figures]"
    python research/plot_alignment.py --before CHECKPOINT --after CHECKPOINT --data DIR -o FIGURE.png

A checkpoint is a folder or a Hub id; DIR is a training set that research/build_training_set.py wrote. Both checkpoints
see the same pairs of one object on two backgrounds: A is a plain composite, B is in harmony with its background. A
token is a cell of the encoder's last feature map; it is foreground if the mean alpha of the cell is above 0.

The title of each panel and the JSON output give three values, which are computed from the tokens, not from their t-SNE
coordinates. The first two are 1 if A and B are separated and about 0.5 if they are mixed.

    separability  accuracy of a logistic regression that tells A from B, on held-out pairs
    neighbors     fraction of the ten nearest tokens, by cosine, that belong to the same image, A or B
    distance      mean of 1 - cosine between the tokens of A and B at the same position
"""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from training_set import open_backgrounds, open_foregrounds

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.data import CompositionSettings, Pair, PairSettings, PairStream, Shard, StreamError
from fclm_hf.hub.checkpoints import fetch_checkpoint, load_checkpoint
from fclm_hf.utils.files import write_atomically


FOLDS = 5
NEIGHBORS = 10


def compose_pairs(data: Path, count: int, size: int, seed: int) -> list[Pair]:
    """Return `count` pairs with one object each, `size` pixels wide and high.

    Raises:
        StreamError: If an image cannot be read.
    """
    composition = CompositionSettings(size=size, object_counts=(1, 0, 0), plant_prob=0, distractor_prob=0)
    settings = PairSettings(composition, seed=seed, max_invalid_fraction=0, min_sample_count=1)
    stream = PairStream(open_foregrounds(data, weights={}), open_backgrounds(data), Shard(), settings)
    return [drawn.pair for drawn in stream.draw(count)]


@torch.no_grad()
def find_tokens(model: FCLMForImageMatting, processor: FCLMProcessor, pair: Pair) -> torch.Tensor:
    """Return the foreground tokens of A and B in the encoder's last feature map, `(2, tokens, channels)`."""
    height, width = pair.valid
    inputs = processor(
        images=[image[:height, :width] for image in (pair.image_a, pair.image_b)],
        segmentation_maps=[[pair.foreground[:height, :width]]] * 2,
        return_tensors="pt",
    )
    maps = model.model.get_feature_maps(inputs["pixel_values"], inputs["pixel_mask"]).feature_maps[-1]
    sizes = torch.stack([inputs["pixel_mask"][:, :, 0].sum(1), inputs["pixel_mask"][:, 0].sum(1)], dim=1)
    alpha = model.model.resize_and_pad(inputs["labels"], sizes)
    foreground = nn.functional.adaptive_avg_pool2d(alpha, maps.shape[-2:])[0, 0] > 0
    return maps[:, :, foreground].transpose(1, 2)


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


def draw(panels: dict[str, np.ndarray], output: Path) -> None:
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


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="checkpoint without alignment")
    parser.add_argument("--after", required=True, help="checkpoint with alignment")
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--images", type=int, default=32, help="pairs (default: 32)")
    parser.add_argument("--tokens", type=int, default=1000, help="maximum number of tokens per image (default: 1000)")
    parser.add_argument("--size", type=int, default=320, help="side of an image in pixels (default: 320)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("alignment.png"))
    return parser


def fetch(parser: argparse.ArgumentParser, args: argparse.Namespace, name: str) -> Path:
    """Return the folder of the checkpoint that an option names, or exit with an error that names the option."""
    try:
        return fetch_checkpoint(getattr(args, name))
    except (OSError, ValueError) as error:
        parser.error(f"--{name}: {error}")


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Draw the figure; print and return the three values of each checkpoint."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if missing := [name for name in ("matplotlib", "sklearn") if importlib.util.find_spec(name) is None]:
        parser.error(f'{" and ".join(missing)} cannot be found: pip install "fclm-hf[figures]"')
    if args.images < 2 or args.tokens < 4 or args.size < 32 or args.seed < 0:
        parser.error("--images must be at least 2, --tokens 4, --size 32 and --seed 0")
    if missing := [
        f"{name}.json" for name in ("foregrounds", "backgrounds") if not (args.data / f"{name}.json").is_file()
    ]:
        parser.error(
            f"--data: {args.data} holds no {' and no '.join(missing)}; research/build_training_set.py makes both"
        )
    checkpoints = {name: fetch(parser, args, name) for name in ("before", "after")}
    scores, panels = {}, {}
    try:
        pairs = compose_pairs(args.data, args.images, args.size, args.seed)
        for name, checkpoint in checkpoints.items():
            tokens, groups = collect_tokens(checkpoint, pairs, args.tokens, args.seed)
            scores[name] = {
                "separability": measure_separability(tokens, groups),
                "neighbors": measure_neighbors(tokens),
                "distance": measure_distance(tokens),
            }
            title = ", ".join(f"{key} {value:.3f}" for key, value in scores[name].items())
            panels[f"{name} alignment\n{title}"] = embed(tokens, args.seed)
        draw(panels, args.output)
    except (OSError, ValueError, StreamError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {args.output}")
    print(json.dumps({**scores, "tokens": len(groups), "images": args.images}))
    return scores


if __name__ == "__main__":
    main()
