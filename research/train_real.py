"""Train fclm-lite on real photos with coarse masks, beside composites with true alphas.

    python research/train_real.py --data DATA --output RUN --steps 2000            # goes on where it was stopped
    python research/train_real.py --data DATA --output NEW --init RUN/checkpoint   # a new stage from the weights

DATA holds real/, cutouts/ and train/. Photos teach what an object is: their loss leaves out unknown pixels and a band
along the edges, and neither the detail path nor the matte head's slopes learn from them. Composites teach the edges.
RUN/checkpoint (weights averaged over steps) loads with from_pretrained at any time.
"""

import argparse
import json
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from fast_convolutions import fold_norms, speed_up_depthwise
from real_data import build_batches
from torch import nn
from torch.utils.data import DataLoader

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor
from fclm_hf.masks_fclm import find_trimaps
from fclm_hf.training import (
    SemanticTeacher,
    coarse_mask_loss,
    gradient_loss,
    matting_loss,
    name_contrast_loss,
    segmentation_loss,
    semantic_distance,
)
from fclm_hf.training.checkpointing import save_weights
from fclm_hf.training.objective.clicks import add_clicks
from fclm_hf.training.objective.semantics import pool_regions
from fclm_hf.training.optimization import average_weights
from fclm_hf.training.pretrained import freeze_early_stages
from fclm_hf.utils.files import write_atomically


def shrink_to(coarse: torch.Tensor, *maps: torch.Tensor) -> list[torch.Tensor]:
    """Average maps of the size of the image to that of the coarse logits."""
    height, width = coarse.shape[-2:]
    padding = (0, 8 * width - maps[0].shape[-1], 0, 8 * height - maps[0].shape[-2])
    return [nn.functional.avg_pool2d(nn.functional.pad(x.float(), padding), 8) for x in maps]


def coarse_truth_loss(outputs, labels: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the losses of photos, on the pixels that are known."""
    known = valid.float()
    small, weight = shrink_to(outputs.coarse_logits, labels * known, known)
    return {
        "photo_fine": coarse_mask_loss(outputs.logits, labels, valid),
        "photo_coarse": segmentation_loss(outputs.coarse_logits, small / weight.clamp(min=1e-6), weight),
    }


def true_alpha_loss(
    outputs, labels: torch.Tensor, valid: torch.Tensor, gradient_weight: float
) -> dict[str, torch.Tensor]:
    """Return the losses of composites, whose alphas are exact up to the edge."""
    small, weight = shrink_to(outputs.coarse_logits, labels, valid)
    extra = {}
    if gradient_weight:
        loss = gradient_loss(outputs.alphas * valid, labels * valid, min_predicted_difference=0.02)
        extra["gradient"] = gradient_weight * loss
    return {
        **extra,
        "cutout_fine": matting_loss(outputs.alphas, labels, valid),
        "cutout_coarse": segmentation_loss(outputs.coarse_logits, small, weight),
    }


class Names:
    """Contrast of named regions among the names of the real photos, in the space of the semantic head."""

    def __init__(self, model: FCLMForImageMatting, tokenizer, names: list[str]):
        names = list(dict.fromkeys(names))
        self.index = {name: i for i, name in enumerate(names)}
        tokens = tokenizer(names, padding=True, return_tensors="pt")
        with torch.no_grad():
            embeds = model.model.get_text_features(tokens["input_ids"]).pooler_output
        self.embeds = embeds.float()

    def loss(self, semantic_map: torch.Tensor, batch: dict) -> torch.Tensor:
        """Return the contrastive loss of the named regions of a batch."""
        if not len(batch["region_grids"]):
            return semantic_map.sum() * 0
        regions = pool_regions(semantic_map[batch["region_images"]], batch["region_grids"][:, None])[:, 0]
        is_match = torch.zeros(len(regions), len(self.embeds), dtype=torch.bool)
        for row, fitting in zip(is_match, batch["region_names"], strict=True):
            row[[self.index[name] for name in fitting]] = True
        return name_contrast_loss(regions, self.embeds, is_match)


class Trainer:
    """Model, averaged weights and optimizer of a run, and what its steps do."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.model = FCLMForImageMatting.from_pretrained(args.init, dtype=torch.float32)
        self.processor = FCLMProcessor.from_pretrained(args.init)
        model = self.model
        self.shipped_size = args.shipped_size or model.config.encoder_size
        taught = model if args.taught is None else FCLMForImageMatting.from_pretrained(args.taught, dtype=torch.float32)
        self.taught = SemanticTeacher(taught)
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
        self.averaged = average_weights(model, args.ema)
        fold_norms(model.model.backbone)  # after the copy, which would keep this model's convolutions
        speed_up_depthwise(model)
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
        """Return how far the semantic map is from what it was taught, relative to its spread."""
        model = self.model.model
        sizes = torch.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], 1)
        return semantic_distance(semantic_map, self.taught(model.resize_and_pad(pixel_values, sizes)))

    @torch.no_grad()
    def look_again(self, pixel_values, pixel_mask, inputs: dict, rng: np.random.Generator) -> dict:
        """Return the prompts of a second look: the matte of a small encoder input as a mask, and mostly its box."""
        embeddings = self.model.get_image_embeddings(pixel_values, pixel_mask, encoder_size=self.args.first_size)
        alphas = self.model(image_embeddings=embeddings, **inputs).alphas.float()
        found = alphas > 0.5
        seen = found.sum((-2, -1)) >= 30
        inputs = {name: value.clone() for name, value in inputs.items()}
        masks = inputs.get("input_masks", torch.full_like(alphas, -1))
        seen &= ~((masks >= 0).any(-1).any(-1) & (inputs["input_labels"] < 0).all(-1))  # the given mask alone
        inputs["input_masks"] = torch.where(seen[..., None, None], alphas, masks)
        for i, j in seen.nonzero().tolist():
            box = inputs["input_boxes"][i, j]
            if box[2] <= box[0] and rng.random() < self.args.look_boxes:
                rows, columns = found[i, j].any(1).nonzero(), found[i, j].any(0).nonzero()
                box.copy_(torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]))
        dropped = torch.from_numpy(rng.random(seen.shape) < self.args.look_drops) & seen
        inputs["input_labels"][dropped] = -10
        inputs["attention_mask"][dropped] = 0
        return inputs

    @torch.no_grad()
    def zoom_in(self, pixel_values, pixel_mask, inputs: dict, rng: np.random.Generator) -> dict:
        """Return the prompts of a close look; half of the blurred alphas become mattes of a smaller encoder input."""
        if rng.random() < 0.5:
            return inputs
        size = 32 * int(rng.integers(4, 10))
        embeddings = self.model.get_image_embeddings(pixel_values, pixel_mask, encoder_size=size)
        alphas = self.model(image_embeddings=embeddings, **inputs).alphas.float()
        masks = inputs["input_masks"]
        return {**inputs, "input_masks": torch.where(find_trimaps(masks), masks, alphas)}

    def group_losses(self, kind: str, batch: dict, hold: bool) -> dict[str, torch.Tensor]:
        """Return the losses of the photos or of the composites of a step."""
        args, model = self.args, self.model
        inputs = dict(batch["inputs"])
        pixel_values, pixel_mask = inputs.pop("pixel_values"), inputs.pop("pixel_mask")
        self.edges_learn(kind != "photos")
        with torch.autocast("cpu", torch.bfloat16):
            rng = np.random.default_rng([args.seed, self.step, len(kind)])
            look = rng.random() < args.looks
            if kind == "zooms":
                inputs = self.zoom_in(pixel_values, pixel_mask, inputs, rng)
                model.config.encoder_size, look = int(rng.choice(args.zoom_inputs)), True
            elif look:
                inputs = self.look_again(pixel_values, pixel_mask, inputs, rng)
                model.config.encoder_size = int(rng.choice(args.look_sizes))
            embeddings = model.get_image_embeddings(pixel_values, pixel_mask)
            if not look and rng.random() < args.clicks:
                known = {"labels": batch["labels"], "label_mask": batch["valid"]}
                inputs = add_clicks(model, embeddings, {**inputs, **known}, rounds=1 + self.step % 2)
                inputs = {name: value for name, value in inputs.items() if name not in known}
            outputs = model(image_embeddings=embeddings, **inputs)
            losses = {}
            if hold and args.hold_weight:
                losses["hold"] = args.hold_weight * self.held(pixel_values, pixel_mask, embeddings.semantic_map)
        labels, valid = batch["labels"], batch["valid"]
        if kind == "photos":
            losses |= coarse_truth_loss(outputs, labels, valid)
        else:
            losses |= true_alpha_loss(outputs, labels, valid, args.gradient_weight)
        if kind == "zooms":
            losses = {f"zooms_{name}": value for name, value in losses.items()}
        elif args.name_weight:
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
            weight = getattr(self.args, f"{kind.removesuffix('s')}_weight")
            holds = kind == ("photos" if self.step % 2 == 0 else "cutouts")
            losses = self.group_losses(kind, batch, holds)
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
    parser.add_argument("--zooms", type=int, default=0, help="windows of composites at full size in a batch")
    parser.add_argument("--zoom-size", type=int, default=384)
    parser.add_argument("--zoom-inputs", type=int, nargs="+", default=[384], help="encoder inputs of windows, drawn")
    parser.add_argument("--zoom-plants", type=float, default=0.15, help="share of plants in windows")
    parser.add_argument("--zoom-weight", type=float, default=1.0)
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
    parser.add_argument("--name-weight", type=float, default=0.1)
    parser.add_argument("--hold-weight", type=float, default=0.2)
    parser.add_argument("--edges-only", action="store_true", help="train what works at strides 4 and finer alone")
    parser.add_argument("--gradient-weight", type=float, default=0.0)
    parser.add_argument("--soft-edge", type=float, default=0.25)
    parser.add_argument("--plants", type=float, default=0.2)
    parser.add_argument("--strands", type=float, default=0.2)
    parser.add_argument("--masks", type=float, default=0.0, help="share of prompts that get a spoiled mask")
    parser.add_argument("--clicks", type=float, default=0.0, help="share of batches with clicks in the largest error")
    parser.add_argument("--looks", type=float, default=0.0, help="share of batches that get a second look")
    parser.add_argument("--first-size", type=int, default=256, help="encoder input of the first look")
    parser.add_argument("--look-sizes", type=int, nargs="+", default=[320, 384, 448], help="that of the second look")
    parser.add_argument("--look-boxes", type=float, default=0.7, help="share of second looks with the box of the matte")
    parser.add_argument("--look-drops", type=float, default=0.2, help="share of second looks without clicks and text")
    parser.add_argument("--trimaps", type=float, default=0.45, help="share of trimaps among masks")
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
