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

from training_set import open_backgrounds, open_foregrounds

from fclm_hf.data import CompositionSettings, Pair, StreamError
from fclm_hf.hub.checkpoints import fetch_checkpoint
from fclm_hf.reproduction.tokens import describe_tokens, draw_pairs, draw_panels


def compose_pairs(data: Path, count: int, size: int, seed: int) -> list[Pair]:
    """Return `count` pairs with one object each, `size` pixels wide and high.

    Raises:
        StreamError: If an image cannot be read.
    """
    sources = open_foregrounds(data, weights={}), open_backgrounds(data)
    return draw_pairs(*sources, CompositionSettings(size=size), count, seed)


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
            scores[name], points = describe_tokens(checkpoint, pairs, args.tokens, args.seed)
            title = ", ".join(f"{key} {value:.3f}" for key, value in scores[name].items())
            panels[f"{name} alignment\n{title}"] = points
        draw_panels(panels, args.output)
    except (OSError, ValueError, StreamError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {args.output}")
    print(json.dumps({**scores, "tokens": points.shape[1], "images": args.images}))
    return scores


if __name__ == "__main__":
    main()
