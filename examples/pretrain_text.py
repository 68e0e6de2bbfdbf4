"""Teach a checkpoint's text tower what its own image encoder sees, before matting training, as CLIP's was taught.

    python examples/pretrain_text.py --data SET --model CHECKPOINT --output NEW
    fclm train examples/train_lite.yaml --model NEW --config.freeze_text_encoder true --output_dir RUN

SET is a folder as `examples/build_training_set.py` writes it; NEW is CHECKPOINT with another text tower. A small tower
that starts from random weights in matting training comes to give all names the same embedding: to the decoder they are
noise until it knows them. Here the tower learns first, by CLIP's symmetric contrastive loss (Radford et al. 2021), from
the features that the decoder reads, averaged over the objects and the backgrounds of composites.

A feature x matches a text embedding e by (V x) e, with the learnt map V. So the decoder gets the token V' (e - mean):
its dot product with a place of the image says how well the two match, compared with the mean name.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch import nn
from tqdm import tqdm
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, get_scheduler, set_seed

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.data import Backgrounds, Composition, CompositionSettings, Foregrounds, PromptSettings
from fclm_hf.training.checkpoints import save_weights


SETTINGS = yaml.safe_load(Path(__file__).with_name("train_lite.yaml").read_text(encoding="utf-8"))
GENERAL_NAMES = SETTINGS["sources"][0]["general_names"]
WEIGHTS = {"tux": 3.0, "wesnoth": 1.5, "Smileys & Emotion": 0.3}
TEMPLATES = PromptSettings().templates
HELD_OUT = 0.05
TOKEN_NORM = 10.0  # about that of the tokens of boxes and clicks


@dataclass
class Regions:
    """What composites show: mean features (regions, channels) and what each may be called, a background nothing."""

    features: torch.Tensor
    names: list[tuple[str, ...]]

    def split(self, share: float) -> tuple["Regions", "Regions"]:
        """All but the last `share`, and those."""
        cut = round(len(self.names) * (1 - share))
        return Regions(self.features[:cut], self.names[:cut]), Regions(self.features[cut:], self.names[cut:])


@torch.no_grad()
def pool_regions(
    model: FCLMForImageMatting, processor: FCLMProcessor, composition: Composition, count: int, seed: int
) -> Regions:
    """The regions of `count` composites in the coarse map that the decoder reads, normalised as it does."""
    rng = np.random.default_rng(seed)
    features, names = [], []
    for _ in tqdm(range(count), desc="composites", mininterval=10):
        sample = composition.sample(rng)
        pixel_values = processor(images=sample["image"], return_tensors="pt")["pixel_values"]
        coarse_map, _ = model.model.pixel_decoder(model.model.get_feature_maps(pixel_values).feature_maps)
        cells = nn.functional.layer_norm(coarse_map[0].movedim(0, -1), coarse_map.shape[1:2])
        alphas = torch.from_numpy(sample["alphas"]).float()
        alphas = torch.cat([alphas, 1 - alphas.sum(0, keepdim=True)])
        shares = nn.functional.adaptive_avg_pool2d(alphas, cells.shape[:2])
        sums, cells_covered = torch.einsum("ohw,hwc->oc", shares, cells), shares.sum((1, 2))
        for index, called in enumerate([*sample["names"], ()]):
            if cells_covered[index] > 1 and (called or index == len(sample["names"])):
                features.append(sums[index] / cells_covered[index])
                names.append(called)
    return Regions(torch.stack(features), names)


def embed(tower: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(texts, projection_dim)."""
    return tower(tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids).text_embeds


def contrast(logits: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """CLIP's loss of (regions, texts) logits; what `matches` (bool) has several ones for may be any of them."""

    def one_way(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets, logits = targets[targets.any(1)].float(), logits[targets.any(1)]
        return nn.functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True))

    return (one_way(logits, matches) + one_way(logits.T, matches.T)) / 2


def train_tower(
    tower: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    regions: Regions,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> nn.Linear:
    """Trains `tower` in place and returns V, from features less their mean to its embeddings."""
    rng = np.random.default_rng(seed)
    centre = regions.features.mean(0)
    lift = nn.Linear(regions.features.shape[1], tower.config.projection_dim, bias=False)
    sharpness = nn.Parameter(torch.tensor(10.0).log())
    optimizer = torch.optim.AdamW(
        [*tower.parameters(), *lift.parameters(), sharpness], lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = get_scheduler("cosine", optimizer, min(50, steps // 10), steps)
    progress = tqdm(range(steps), desc="text tower", mininterval=10)
    for _ in progress:
        chosen = rng.integers(len(regions.names), size=batch_size)
        names = [regions.names[index] for index in chosen]
        drawn = [str(rng.choice(called)) for called in names if called]
        if not drawn:
            continue
        texts = [str(rng.choice(TEMPLATES)).format(name) for name in drawn]
        matches = torch.tensor([[name in called for name in drawn] for called in names])
        seen = lift(regions.features[chosen] - centre)
        seen = nn.functional.normalize(seen, dim=-1)
        meant = nn.functional.normalize(embed(tower, tokenizer, texts), dim=-1)
        loss = contrast(sharpness.exp().clamp(max=100) * seen @ meant.T, matches)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return lift


@torch.no_grad()
def set_tokens(projection: nn.Linear, lift: nn.Linear, embeds: torch.Tensor) -> None:
    """`projection` maps e to V' (e - mean), scaled to the mean norm TOKEN_NORM over the names' `embeds`."""
    mean = embeds.mean(0)
    tokens = (embeds - mean) @ lift.weight
    scale = TOKEN_NORM / tokens.norm(dim=-1).mean()
    projection.weight.copy_(scale * lift.weight.T)
    projection.bias.copy_(-projection.weight @ mean)


@torch.no_grad()
def recall(regions: Regions, seen: torch.Tensor, embeds: dict[str, torch.Tensor], most: int) -> float:
    """The share of named regions, `seen` as V x, with their own name among the `most` that match best."""
    scores = seen @ nn.functional.normalize(torch.stack([*embeds.values()]), dim=-1).T
    order = {name: index for index, name in enumerate(embeds)}
    named = [index for index, called in enumerate(regions.names) if called]
    own = torch.tensor([order[regions.names[index][0]] for index in named])
    better = scores[named] > scores[named, own][:, None]
    return (better.sum(1) < most).float().mean().item()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--model", required=True, help="checkpoint whose encoder the text tower learns from")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--composites", type=int, default=4500)
    parser.add_argument("--size", type=int, default=256, help="side of a composite in pixels, a multiple of 32")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=512, help="regions of a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict[str, float]:
    args = parse_arguments(argv)
    set_seed(args.seed)
    cv2.setNumThreads(1)
    if args.threads:
        torch.set_num_threads(args.threads)
    model = FCLMForImageMatting.from_pretrained(args.model, dtype=torch.float32).eval()
    processor = FCLMProcessor.from_pretrained(args.model)
    foregrounds = Foregrounds(args.data, general_names=GENERAL_NAMES, weights=WEIGHTS)
    # objects that look like their name, large enough for the coarse map
    settings = CompositionSettings(
        size=args.size,
        object_counts=(0.2, 0.4, 0.4),
        shared_scale=(0.35, 0.85),
        twins=0,
        photo_texture=0,
        translucent=0,
        letterbox=0,
    )
    composition = Composition(foregrounds, Backgrounds(args.data), settings)
    encoder_size, model.config.encoder_size = model.config.encoder_size, args.size
    regions = pool_regions(model, processor, composition, args.composites, args.seed)
    model.config.encoder_size = encoder_size

    known, unseen = regions.split(HELD_OUT)
    tower = CLIPTextModelWithProjection(model.config.text_config)
    lift = train_tower(tower, processor.tokenizer, known, args.steps, args.batch_size, args.learning_rate, args.seed)
    names = sorted({name for called in regions.names for name in called})
    with torch.no_grad():
        embeds = embed(tower.eval(), processor.tokenizer, names)
        seen = lift(unseen.features - known.features.mean(0))
    by_name = dict(zip(names, embeds, strict=True))
    scores = {f"recall@{most}": recall(unseen, seen, by_name, most) for most in (1, 10, 100)}
    print(", ".join(f"{name} {share:.3f}" for name, share in scores.items()), f"of {len(names)} names")

    model.model.text_model.load_state_dict(tower.state_dict())
    set_tokens(model.model.prompt_encoder.text_projection, lift, embeds)
    save_weights(model, processor, args.output, torch.float16)
    return scores


if __name__ == "__main__":
    main()
