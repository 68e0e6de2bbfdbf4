"""Makes a small teacher of the class of Depth Anything where its weights cannot be had, for Table 4 on other data.

    python research/make_depth_teacher.py --base examples/paper/lite.yaml --data DATA --output TEACHER [--steps 150]

It is a `DepthAnythingForDepthEstimation` with a DINOv2 of four layers and random weights. It learns a rough depth from
the pairs that `fclm reproduce table4` trains on: the lower a pixel, the nearer; and all of an object is as near as its
lowest pixel, and nearer than what is behind it. That is no depth as Depth Anything knows it: it tells the rows of
Table 4 apart, but cannot show their gains.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from fclm_hf.data import PairStream, Shard, open_source
from fclm_hf.reproduction import ReproductionOptions


SIZE, PATCH = 224, 14


def make_model() -> DepthAnythingForDepthEstimation:
    """Return the model with random weights."""
    backbone = Dinov2Config(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        use_mask_token=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=96,
        neck_hidden_sizes=[16, 24, 32, 48],
        fusion_hidden_size=24,
        head_hidden_size=16,
        patch_size=PATCH,
    )
    return DepthAnythingForDepthEstimation(config)


def make_depth(foreground: np.ndarray, size: int = SIZE) -> torch.Tensor:
    """Return the rough inverse depth `(size, size)` in [0, 1] of an image, from its foreground `(height, width)`."""
    mask = torch.from_numpy(np.maximum(foreground, 0))[None, None]
    mask = torch.nn.functional.interpolate(mask, size=(size, size), mode="area")[0, 0]
    ground = torch.linspace(0, 0.6, size)[:, None].expand(size, size)
    rows = torch.nonzero((mask > 0.5).any(1)).flatten()
    near = 0.4 + ground[rows[-1], 0] if len(rows) else torch.tensor(0.0)
    return torch.maximum(ground, mask * near)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train and save the teacher; return the first and the last loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="configuration of the runs")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder of the teacher")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=4)
    args = parser.parse_args(argv)
    options = ReproductionOptions("table4", args.data, args.output, base=args.base, rows=["full"])
    data = options.make_arguments("table4_full", seed=0).data
    sources = ([open_source(each) for each in part] for part in (data.sources, data.backgrounds))
    stream = PairStream(*sources, Shard(), data.make_pair_settings(seed=100))
    torch.manual_seed(0)
    model = make_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    losses = []
    for _ in range(args.steps):
        pairs = [drawn.pair for drawn in stream.draw(args.batch_size)]
        images = torch.from_numpy(np.stack([pair.image_b for pair in pairs])).permute(0, 3, 1, 2) / 255
        images = torch.nn.functional.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        target = torch.stack([make_depth(pair.foreground) for pair in pairs])
        loss = (model((images - mean) / std).predicted_depth - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval().save_pretrained(args.output)
    tenth = max(1, len(losses) // 10)
    result = {"first": float(np.mean(losses[:tenth])), "last": float(np.mean(losses[-tenth:])), "steps": args.steps}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
