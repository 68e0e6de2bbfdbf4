"""Averages the weights of checkpoints, one of which was fine-tuned from the other; takes seconds.

    python research/average_weights.py --models RUN/last TAUGHT --shares 0.65 0.35 --output MEAN

The mean is often better than each of them (Wortsman et al., 2022). It has the config and processor of the first. With
`--edges MODEL`, the layers that draw mattes and their edges are those of another checkpoint.
"""

import argparse
from pathlib import Path

import torch

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.training.checkpointing import save_weights


EDGES = (
    "model.detail_path.",
    "model.decoder.coarse_head.",
    "model.decoder.upsamplers.",
    "model.prompt_encoder.mask_detail_paint.",
    "head.",
)


def main(argv: list[str] | None = None) -> None:
    """Write the weighted mean of the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="checkpoints: folders or Hub ids")
    parser.add_argument(
        "--shares", nargs="+", type=float, help="weight of each model, with a sum of 1 (default: equal)"
    )
    parser.add_argument("--edges", help="checkpoint from which to take the layers that draw")
    parser.add_argument("--output", type=Path, required=True, help="folder for the mean")
    args = parser.parse_args(argv)
    shares = args.shares or [1 / len(args.models)] * len(args.models)
    if len(shares) != len(args.models) or abs(sum(shares) - 1) > 1e-6:
        count = len(args.models)
        parser.error(f"--shares must be {count} numbers, one per model, with a sum of 1, got {shares}.")
    sources = [*args.models, args.edges or args.models[0]]
    models = [FCLMForImageMatting.from_pretrained(name, dtype=torch.float32) for name in sources]
    *states, edges = [model.state_dict() for model in models]
    shapes = [{name: value.shape for name, value in state.items()} for state in (*states, edges)]
    if wrong := [name for name, shape in zip(sources, shapes, strict=True) if shape != shapes[0]]:
        parser.error(f"{', '.join(wrong)} must have the same weights as {args.models[0]}.")
    with torch.no_grad():
        for name, value in states[0].items():
            if args.edges and name.startswith(EDGES):
                value.copy_(edges[name])
            elif value.is_floating_point():
                value.copy_(sum(share * state[name] for share, state in zip(shares, states, strict=True)))
    save_weights(models[0], FCLMProcessor.from_pretrained(args.models[0]), args.output, torch.float16)


if __name__ == "__main__":
    main()
