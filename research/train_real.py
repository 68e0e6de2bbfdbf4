"""Train fclm-lite on real photos with coarse masks, beside composites with true alphas.

    python research/train_real.py --data DATA --output RUN --steps 2000            # goes on where it was stopped
    python research/train_real.py --data DATA --output NEW --init RUN/checkpoint   # a new stage from the weights

DATA holds real/, cutouts/ and train/. Photos teach what an object is: their loss leaves out unknown pixels and a band
along the edges, and neither the detail path nor the matte head's slopes learn from them. Composites teach the edges.
RUN/checkpoint (weights averaged over steps) loads with from_pretrained at any time.
"""

import argparse
import copy
import functools
import json
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from real_data import build_batches
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor, loss_fclm
from fclm_hf.training.checkpointing import save_weights
from fclm_hf.training.pretrained import freeze_early_stages
from fclm_hf.utils.files import write_atomically


def mean31(planes: torch.Tensor) -> torch.Tensor:
    """Return the mean over 31 x 31 pixels, in two passes."""
    planes = nn.functional.avg_pool2d(planes, (31, 1), stride=1, padding=(15, 0))
    return nn.functional.avg_pool2d(planes, (1, 31), stride=1, padding=(0, 15))


def segmentation_loss(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, edge_weight: float = 5.0, bce_weight: float = 1.0
) -> torch.Tensor:
    """As the package's, with a separable mean."""
    logits, labels, mask = logits.float(), labels.float(), mask.float()
    weight = mask
    if edge_weight:
        smooth = mean31(labels.reshape(-1, 1, *labels.shape[-2:])).view_as(labels)
        weight = (1 + edge_weight * (smooth - labels).abs()) * mask
    bce = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    total = weight.sum((-2, -1))
    bce = (weight * bce).sum((-2, -1)) / total.clamp(min=1e-6)
    probabilities = logits.sigmoid()
    intersection = (weight * probabilities * labels).sum((-2, -1))
    union = (weight * (probabilities + labels - probabilities * labels)).sum((-2, -1))
    iou = 1 - (intersection + 1) / (union + 1)
    present = (total > 0).float()
    return ((bce_weight * bce + iou) * present).sum() / present.sum().clamp(min=1)


def shrink_to(coarse: torch.Tensor, *maps: torch.Tensor) -> list[torch.Tensor]:
    """Average maps of the size of the image to that of the coarse logits."""
    height, width = coarse.shape[-2:]
    padding = (0, 8 * width - maps[0].shape[-1], 0, 8 * height - maps[0].shape[-2])
    return [nn.functional.avg_pool2d(nn.functional.pad(x.float(), padding), 8) for x in maps]


def coarse_truth_loss(outputs, labels: torch.Tensor, valid: torch.Tensor, bce_weight: float) -> dict[str, torch.Tensor]:
    """l1 + IoU (and some BCE) on the pixels that are known, BCE + IoU on the coarse logits."""
    known = valid.float()
    error = ((outputs.alphas - labels).abs() * known).sum((-2, -1)) / known.sum((-2, -1)).clamp(min=1)
    fine = error.mean() + segmentation_loss(outputs.logits, labels, valid, edge_weight=0.0, bce_weight=bce_weight)
    small, weight = shrink_to(outputs.coarse_logits, labels * known, known)
    small = small / weight.clamp(min=1e-6)
    return {"photo_fine": fine, "photo_coarse": segmentation_loss(outputs.coarse_logits, small, weight)}


def gradient_loss(alphas: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """l1 between the finite differences of alphas, over the pixels where either is not flat."""
    total = 0.0
    for axis in (-1, -2):
        given, wanted = alphas.diff(dim=axis), labels.diff(dim=axis)
        active = (wanted.abs() > 0.01).float()
        total = total + ((given - wanted).abs() * active).sum() / active.sum().clamp(min=1)
    return total


def true_alpha_loss(
    outputs, labels: torch.Tensor, valid: torch.Tensor, gradient_weight: float
) -> dict[str, torch.Tensor]:
    """Return the losses of composites, whose alphas are exact up to the edge."""
    small, weight = shrink_to(outputs.coarse_logits, labels, valid)
    extra = {}
    if gradient_weight:
        extra["gradient"] = gradient_weight * gradient_loss(outputs.alphas * valid, labels * valid)
    return {
        **extra,
        "cutout_fine": loss_fclm.matting_loss(outputs.alphas, labels, valid),
        "cutout_coarse": segmentation_loss(outputs.coarse_logits, small, weight),
    }


def find_clicks(
    alphas: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, asked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (batch, objects, 2) in the middle of the largest error, and labels (batch, objects), -10 for none."""
    points = torch.zeros(*asked.shape, 2)
    labels = torch.full(asked.shape, -10)
    wrong = ((alphas > 0.5) != (targets > 0.5)) & valid
    for i, j in asked.nonzero().tolist():
        truth = (targets[i, j] > 0.5).numpy()
        depth = [
            cv2.distanceTransform(np.pad(w.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
            for w in (wrong[i, j].numpy() & ~truth, wrong[i, j].numpy() & truth)
        ]
        label = int(depth[1].max() >= depth[0].max())
        if depth[label].max() >= 2:
            row, column = np.unravel_index(depth[label].argmax(), depth[label].shape)
            points[i, j] = torch.tensor([float(column), float(row)])
            labels[i, j] = label
    return points, labels


class DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution in bf16 with its backward pass in fp32, four times faster on CPUs."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, groups):
        """Convolve."""
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding, groups, None if bias is None else bias.shape
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return nn.functional.conv2d(x, weight, bias, stride, padding, groups=groups)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients, computed in fp32."""
        x, weight = ctx.saved_tensors
        stride, padding, groups, bias = ctx.settings
        gradient = gradient.float().contiguous(memory_format=torch.channels_last)
        wanted = [*ctx.needs_input_grad[:2], ctx.needs_input_grad[2] and bias is not None]
        grads = torch.ops.aten.convolution_backward(
            gradient,
            x.float(),
            weight.float(),
            bias and list(bias),
            stride,
            padding,
            (1, 1),
            False,
            (0, 0),
            groups,
            wanted,
        )
        return (*(None if g is None else g.to(x.dtype) if i == 0 else g for i, g in enumerate(grads)), None, None, None)


def speed_up_depthwise(model: nn.Module) -> None:
    """Run the backward passes of depthwise convolutions in fp32, which is faster on a CPU."""

    def forward(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        """Convolve."""
        if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            x = x.to(torch.bfloat16)
        padding = conv.padding
        if type(conv) is Conv2dSame:
            x, padding = pad_same(x, conv.kernel_size, conv.stride, conv.dilation), (0, 0)
        return DepthwiseConv.apply(x, conv.weight, conv.bias, conv.stride, padding, conv.groups)

    for module in model.modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and module.groups == module.in_channels > 1:
            module.forward = functools.partial(forward, module)


class Names:
    """Contrast of named regions among the names of the real photos, in the space of the semantic head."""

    def __init__(self, model: FCLMForImageMatting, tokenizer, names: list[str]):
        names = list(dict.fromkeys(names))
        self.index = {name: i for i, name in enumerate(names)}
        tokens = tokenizer(names, padding=True, return_tensors="pt")
        with torch.no_grad():
            embeds = model.model.get_text_features(tokens["input_ids"]).pooler_output
        self.directions = nn.functional.normalize(embeds.float(), dim=-1)

    def loss(self, semantic_map: torch.Tensor, batch: dict) -> torch.Tensor:
        """Return the contrastive loss of the named regions of a batch."""
        grids = batch["region_grids"]
        if not len(grids):
            return semantic_map.sum() * 0
        maps = semantic_map.float()[batch["region_images"]]
        grids = nn.functional.interpolate(grids[:, None], size=maps.shape[-2:], mode="area")
        means = (maps * grids).sum((2, 3)) / grids.sum((2, 3)).clamp(min=1e-3)
        logits = 4 * means @ self.directions.T
        goals = torch.zeros_like(logits)  # several names may fit: their shares together count
        for goal, fitting in zip(goals, batch["region_names"], strict=True):
            goal[[self.index[name] for name in fitting]] = 1
        return (logits.logsumexp(1) - logits.masked_fill(goals == 0, -1e4).logsumexp(1)).mean()


class Trainer:
    """Model, averaged weights and optimizer of a run, and what its steps do."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.model = FCLMForImageMatting.from_pretrained(args.init, dtype=torch.float32)
        self.processor = FCLMProcessor.from_pretrained(args.init)
        model = self.model
        self.shipped_size = args.shipped_size or model.config.encoder_size
        self.frozen = copy.deepcopy(model.model.backbone).eval().requires_grad_(False)
        self.frozen_head = copy.deepcopy(model.model.semantic_head).eval().requires_grad_(False)
        self.taught = FCLMForImageMatting.from_pretrained(args.taught, dtype=torch.float32) if args.taught else None
        if self.taught is not None:
            self.frozen, self.frozen_head = self.taught.model.backbone.eval(), self.taught.model.semantic_head.eval()
        freeze_early_stages(model, args.freeze_stages)
        model.model.semantic_head.requires_grad_(args.name_weight > 0)
        if args.edges_only:
            model.requires_grad_(False)
            encoder = model.model.prompt_encoder
            for part in (
                model.model.detail_path,
                model.model.decoder.upsamplers,
                model.head,
                encoder.mask_detail_paint,
            ):
                part.requires_grad_(True)
        model.train().to(memory_format=torch.channels_last)
        self.edge_parts = [model.model.detail_path, model.head.coefficients]
        groups: dict[str, list] = {"encoder": [], "head": [], "decayed": [], "plain": []}
        for name, p in model.named_parameters():
            if p.requires_grad:
                kind = "encoder" if "backbone." in name else "head" if "semantic_head" in name else "decayed"
                groups[kind if p.dim() > 1 or kind != "decayed" else "plain"].append(p)
        factors = {"encoder": args.encoder_factor, "head": args.encoder_factor, "decayed": 1.0, "plain": 1.0}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": ps, "lr": 0.0, "factor": factors[k], "weight_decay": 0.0 if k == "plain" else 0.02}
                for k, ps in groups.items()
                if ps
            ],
            betas=(0.9, 0.98),
        )
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema), use_buffers=True)
        self.averaged.requires_grad_(False)
        speed_up_depthwise(model)  # after the copy, which would keep this model's convolutions
        self.step = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        args = self.args
        warm = min(1.0, (step + 1) / args.warmup)
        left = 1.0
        if step >= args.decay_from:
            left = max(0.03, 1 - (step - args.decay_from) / max(1, args.steps - args.decay_from))
        return args.learning_rate * warm * left

    def edges_learn(self, learn: bool) -> None:
        """Switch gradients of the layers that draw edges on or off."""
        for module in self.edge_parts:
            module.requires_grad_(learn)
        self.model.model.detail_path.train(learn)

    def held(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor, semantic_map: torch.Tensor) -> torch.Tensor:
        """How far the semantic map is from what it was taught, relative to its spread."""
        model = self.model.model
        sizes = torch.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], 1)
        with torch.no_grad():
            canvas = model.resize_and_pad(pixel_values, sizes)
            goal = self.frozen_head(self.frozen(canvas, return_dict=True).feature_maps[-1]).float()
        return ((semantic_map.float() - goal) ** 2).mean() / (goal**2).mean()

    @torch.no_grad()
    def click(self, embeddings, inputs: dict, batch: dict) -> dict:
        """One or two rounds as people click: the earlier matte and a click in the middle of its largest error."""
        asked = (inputs["input_labels"] >= 0).any(-1) | (inputs["input_boxes"][..., 2] > inputs["input_boxes"][..., 0])
        asked &= batch["labels"].amax((-2, -1)) > 0.3
        kept = inputs.get("input_masks", torch.full_like(batch["labels"], -1))
        for _ in range(1 + self.step % 2):
            alphas = self.model(image_embeddings=embeddings, **inputs).alphas.float()
            points, labels = find_clicks(alphas, batch["labels"], batch["valid"], asked)
            inputs = {
                **inputs,
                "input_points": torch.cat([inputs["input_points"], points[:, :, None]], 2),
                "input_labels": torch.cat([inputs["input_labels"], labels[:, :, None]], 2),
                "input_masks": torch.where(asked[..., None, None], alphas, kept),
            }
        return inputs

    def group_losses(self, kind: str, batch: dict, hold: bool) -> dict[str, torch.Tensor]:
        """Return the losses of the photos or of the composites of a step."""
        args, model = self.args, self.model
        inputs = dict(batch["inputs"])
        pixel_values, pixel_mask = inputs.pop("pixel_values"), inputs.pop("pixel_mask")
        self.edges_learn(kind == "cutouts")
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model.get_image_embeddings(pixel_values, pixel_mask)
            if self.step % 100 < 100 * args.clicks:
                inputs = self.click(embeddings, inputs, batch)
            outputs = model(image_embeddings=embeddings, **inputs)
            losses = {}
            if hold and args.hold_weight:
                losses["hold"] = args.hold_weight * self.held(pixel_values, pixel_mask, embeddings.semantic_map)
        labels, valid = batch["labels"], batch["valid"]
        if kind == "photos":
            losses |= coarse_truth_loss(outputs, labels, valid, args.bce_weight)
        else:
            losses |= true_alpha_loss(outputs, labels, valid, args.gradient_weight)
        if args.name_weight:
            losses[f"names_{kind}"] = args.name_weight * self.names.loss(embeddings.semantic_map, batch)
        return losses

    def take_step(self, batches: dict) -> dict[str, float]:
        """Update the weights once and return the losses."""
        seen = {}
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step) * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        rng = np.random.default_rng([self.args.seed, self.step])
        self.model.config.encoder_size = int(rng.choice(self.args.encoder_sizes))
        for kind, batch in batches.items():
            weight = self.args.photo_weight if kind == "photos" else self.args.cutout_weight
            losses = self.group_losses(kind, batch, hold=(self.step % 2 == 0) == (kind == "photos"))
            (weight * sum(losses.values())).backward()
            seen |= {name: loss.item() for name, loss in losses.items()}
        norm = nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(f"The gradient of step {self.step} is {norm}: {seen}.")
        self.edges_learn(True)
        self.optimizer.step()
        self.averaged.update_parameters(self.model)
        self.step += 1
        return {**seen, "norm": norm.item()}

    def save(self, folder: Path) -> None:
        """Save the state to resume from and the averaged weights."""
        state = {
            "model": self.model.state_dict(), "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(), "step": self.step,
        }  # fmt: skip
        with write_atomically(folder / "state.pt") as path:
            torch.save(state, path)
        self.averaged.module.config.encoder_size = self.shipped_size
        save_weights(self.averaged.module, self.processor, folder / "checkpoint", torch.float16)
        if self.step % self.args.keep_every == 0:
            save_weights(self.averaged.module, self.processor, folder / f"step-{self.step:05d}", torch.float16)

    def load(self, folder: Path) -> None:
        """Load the state of a run."""
        state = torch.load(folder / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        factors = [group["factor"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, factor in zip(self.optimizer.param_groups, factors, strict=True):
            group["factor"] = factor
        self.step = state["step"]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--names", type=Path, required=True, help="YAML of fclm train, for its general_names")
    parser.add_argument("--init", default=str(LITE_CHECKPOINT), help="weights to start from")
    parser.add_argument("--taught", help="checkpoint whose semantic map is held (default: that of --init)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--decay-from", type=int, default=10**9, help="step from which the rate falls linearly")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--encoder-factor", type=float, default=0.1)
    parser.add_argument("--shipped-size", type=int, help="encoder_size of what is saved")
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--freeze-stages", type=int, default=2)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--photos", type=int, default=4, help="photos in a batch")
    parser.add_argument("--cutouts", type=int, default=2, help="composites in a batch")
    parser.add_argument("--photo-prompts", type=int, default=3)
    parser.add_argument("--cutout-prompts", type=int, default=2)
    parser.add_argument("--photo-size", type=int, default=384)
    parser.add_argument("--cutout-size", type=int, default=448)
    parser.add_argument("--encoder-sizes", type=int, nargs="+", default=[256, 320, 320, 384], help="drawn each step")
    parser.add_argument("--shares", type=float, nargs=3, default=[0.5, 0.3, 0.2], help="set, people, boss")
    parser.add_argument("--on-photos", type=float, default=0.25, help="composites whose background is a real photo")
    parser.add_argument("--absent", type=float, default=0.05)
    parser.add_argument("--text-weight", type=float, default=4.0)
    parser.add_argument("--photo-weight", type=float, default=1.0)
    parser.add_argument("--cutout-weight", type=float, default=1.0)
    parser.add_argument("--bce-weight", type=float, default=0.3)
    parser.add_argument("--name-weight", type=float, default=0.1)
    parser.add_argument("--hold-weight", type=float, default=0.2)
    parser.add_argument("--edges-only", action="store_true", help="train what works at strides 4 and finer alone")
    parser.add_argument("--gradient-weight", type=float, default=0.0)
    parser.add_argument("--soft-edge", type=float, default=0.25)
    parser.add_argument("--plants", type=float, default=0.2)
    parser.add_argument("--strands", type=float, default=0.2)
    parser.add_argument("--masks", type=float, default=0.0, help="share of prompts that get a spoiled mask")
    parser.add_argument("--clicks", type=float, default=0.0, help="share of steps with clicks in the largest error")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--keep-every", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", type=int, default=0, help="only time so many steps")
    return parser.parse_args()


def nice_worker(_: int) -> None:
    """Let a worker process run on any core, after the training."""
    os.nice(5)
    os.sched_setaffinity(0, range(os.cpu_count()))


def main() -> None:
    """Run the script."""
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    trainer = Trainer(args)
    if (args.output / "state.pt").is_file():
        trainer.load(args.output)
    general_names = yaml.safe_load(args.names.read_text(encoding="utf-8"))["sources"][0]["general_names"]
    batches = build_batches(args, trainer.processor.tokenizer, general_names, trainer.step)
    trainer.names = Names(
        trainer.model, trainer.processor.tokenizer, batches.photos.table.names + batches.cutouts.list_names()
    )
    loader = iter(
        DataLoader(
            batches,
            batch_size=None,
            num_workers=args.workers,
            prefetch_factor=4 if args.workers else None,
            worker_init_fn=nice_worker,
        )
    )
    args.output.mkdir(parents=True, exist_ok=True)
    with (args.output / "arguments.jsonl").open("a") as file:
        print(json.dumps({"start": trainer.step, **{k: str(v) for k, v in vars(args).items()}}), file=file)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    log = (args.output / "log.jsonl").open("a", buffering=1)
    sums: dict[str, float] = {}
    count, waited, began = 0, 0.0, time.perf_counter()
    while trainer.step < args.steps and not stopped:
        mark = time.perf_counter()
        _, batch = next(loader)
        waited += time.perf_counter() - mark
        for name, value in trainer.take_step(batch).items():
            sums[name] = sums.get(name, 0.0) + value
            if name == "hold":
                sums[name] = sums[name]
        count += 1
        if args.profile and count == args.profile:
            print({"seconds": (time.perf_counter() - began) / count, "waited": waited / count, **sums})
            return
        if trainer.step % 20 == 0:
            seconds = (time.perf_counter() - began) / count
            means = {name: round(value / count, 4) for name, value in sums.items()}
            print(
                json.dumps({"step": trainer.step, "s": round(seconds, 2), "wait": round(waited / count, 2), **means}),
                file=log,
            )
            sums, count, waited, began = {}, 0, 0.0, time.perf_counter()
        if trainer.step % args.save_every == 0:
            trainer.save(args.output)
    trainer.save(args.output)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
