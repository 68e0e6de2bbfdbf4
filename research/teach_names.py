"""Trains the text tower and semantic head of a lite checkpoint on ImageNet's classes, WordNet and a training set.

    apt-get install wordnet-base
    python research/teach_names.py --data SET --model CHECKPOINT --output NEW
    fclm train examples/train_lite.yaml --model NEW --backbone_lr_multiplier 0.01 --output_dir RUN

If matting training starts from a random text tower, the tower collapses to one embedding for all names, because names
are noise to a decoder that has not learned to read them. This script trains the tower first, from three sources:

1. ImageNet's classifier, which comes with the encoder, becomes the semantic head. The encoder is interpolated toward
   ImageNet's weights (WiSE-FT, Wortsman et al. 2022), so that the head fits its features.
2. The target of a WordNet noun is the mean of the classes below it, or below its nearest ancestor that has any. No
   class is simply a person, so clothes stand in for the people who wear them.
3. The names of the training set (SET, as research/build_training_set.py writes it) are matched to the features that
   the head gives for its objects on composites, with CLIP's symmetric contrastive loss (Radford et al. 2021).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from timm.data import ImageNetInfo
from torch import nn
from tqdm import tqdm
from training_set import open_backgrounds, open_foregrounds, read_entries
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, get_scheduler, set_seed
from wordnet_nouns import Nouns

from fclm_hf import FCLMConfig, FCLMForImageMatting, FCLMProcessor
from fclm_hf.data import CompositionSettings, PairSettings, PairStream, PromptSettings, Shard
from fclm_hf.training.checkpointing import save_weights
from fclm_hf.training.imagenet import load_imagenet_weights


TEMPLATES = (*PromptSettings().templates, "{}s", "{} in the photo")
COLORS = ["red", "green", "blue", "yellow", "black", "white", "brown"]
ADJECTIVES = [*COLORS, "big", "small", "old", "young", "round", "wooden", "left", "right", "first", "other"]
HELD_OUT = 0.05
TOGETHER = 8  # composites that share their objects as clutter
SEEN_WEIGHT = 0.05


@dataclass
class Regions:
    """Regions of composites.

    Attributes:
        features: Mean semantic features, of shape `(regions, projection_dim)`.
        names: Accepted names of each region; none for a background.
    """

    features: torch.Tensor
    names: list[tuple[str, ...]]

    def split(self, held_out: float) -> tuple["Regions", "Regions"]:
        """Split off the last fraction `held_out` of the regions; return the others, and those."""
        cut = round(len(self.names) * (1 - held_out))
        return Regions(self.features[:cut], self.names[:cut]), Regions(self.features[cut:], self.names[cut:])


@dataclass
class Dictionary:
    """Target embeddings of nouns.

    Attributes:
        nouns: The nouns.
        embeds: Their unit-length embeddings, of shape `(nouns, projection_dim)`.
        shares: Probability of drawing each of them.
    """

    nouns: list[str]
    embeds: torch.Tensor
    shares: np.ndarray


def look_up(wordnet: Nouns, class_embeds: torch.Tensor) -> Dictionary:
    """Return the embeddings of all nouns for physical things except proper names."""
    info = ImageNetInfo("imagenet-1k")
    classes = [info.index_to_label_name(index) for index in range(len(class_embeds))]
    below: dict[str, list[int]] = {}
    for index, sense in enumerate(classes):
        for ancestor in wordnet.ancestors(sense):
            below.setdefault(ancestor, []).append(index)
    physical, person, clothing = (wordnet.senses[noun][0] for noun in ("physical entity", "person", "clothing"))
    below[person] = sorted({*below[person], *below[clothing]})
    own_names = {word.lower() for sense in below for word in wordnet.words[sense]}
    proper_names = {word.lower() for words in wordnet.words.values() for word in words if word != word.lower()}
    proper_names -= own_names
    nouns, embeds, shares = [], [], []
    for noun, senses in wordnet.senses.items():
        if noun in proper_names:
            continue
        found = []
        for rank, sense in enumerate(senses):
            ancestors = wordnet.ancestors(sense)
            if physical in ancestors or sense in below:
                steps = next(steps for steps, ancestor in enumerate(ancestors) if ancestor in below)
                # a rarer sense only where it is much nearer to what the classes show
                found.append((steps + rank / 2, person if person in ancestors else ancestors[steps]))
        if found:
            nouns.append(noun)
            embeds.append(class_embeds[below[min(found)[1]]].mean(0))
            shares.append((wordnet.counts[noun] + 3 * (noun in own_names) + 0.05) ** 0.5)
    embeds = nn.functional.normalize(torch.stack(embeds), dim=-1)
    return Dictionary(nouns, embeds, np.array(shares) / sum(shares))


@torch.no_grad()
def restart(
    model: FCLMForImageMatting, imagenet_share: float, ids: torch.Tensor
) -> tuple[FCLMForImageMatting, torch.Tensor]:
    """Create a copy of a model with a new text tower and a semantic head.

    Its text token is a constant, the mean token of `model` over some texts: until the decoder is trained on the new
    embeddings, texts have no influence.

    Args:
        model: A lite model.
        imagenet_share: Weight of ImageNet's weights in the encoder of the copy, in [0, 1].
        ids: Tokens of the texts, of shape `(texts, length)`.

    Returns:
        The copy, and the embeddings of ImageNet's classes, of shape `(1000, projection_dim)`.
    """
    new = FCLMForImageMatting(
        FCLMConfig.from_dict({**model.config.to_dict(), "semantic_head_size": 1280, "freeze_text_encoder": True})
    )
    class_embeds = load_imagenet_weights(new)
    state = new.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("model.backbone.") and value.is_floating_point():
            state[name] = imagenet_share * state[name] + (1 - imagenet_share) * value
        elif not name.startswith(("model.text_model.", "model.semantic_head.")):
            if value.shape != state[name].shape:  # the convolution has more inputs: text similarity maps
                value = nn.functional.pad(value, (0, 0, 0, 0, 0, state[name].shape[1] - value.shape[1]))
            state[name] = value
    projection = "model.prompt_encoder.text_projection"
    token = model.model.prompt_encoder.text_projection(model.model.text_model(ids).text_embeds).mean(0)
    state[f"{projection}.weight"], state[f"{projection}.bias"] = torch.zeros_like(state[f"{projection}.weight"]), token
    new.load_state_dict(state)
    return new.eval(), class_embeds


@torch.no_grad()
def pool_regions(model: FCLMForImageMatting, processor: FCLMProcessor, stream: PairStream, count: int) -> Regions:
    """Pool the semantic map over the objects and backgrounds of `count` composites.

    The semantic head is changed in place so that its mean over the regions is 0; similarities are then relative to an
    average region.
    """
    features, names = [], []
    for number in tqdm(range(count), desc="composites", mininterval=10):
        if number % TOGETHER == 0:
            drawn = stream.draw(TOGETHER)
        pair = drawn[number % TOGETHER].pair
        pixel_values = processor(images=pair.image_b, return_tensors="pt")["pixel_values"]
        cells = model.model.semantic_head(model.model.get_feature_maps(pixel_values).feature_maps[-1])[0]
        alphas = torch.from_numpy(pair.alphas)
        alphas = torch.cat([alphas, 1 - alphas.sum(0, keepdim=True)])
        shares = nn.functional.adaptive_avg_pool2d(alphas, cells.shape[-2:])
        sums, cells_covered = torch.einsum("ohw,chw->oc", shares, cells), shares.sum((1, 2))
        for index, called in enumerate([*pair.names, ()]):
            if cells_covered[index] > 1 and (called or index == len(pair.names)):
                features.append(sums[index] / cells_covered[index])
                names.append(called)
    pooled = torch.stack(features)
    model.model.semantic_head.projection.bias.sub_(pooled.mean(0))
    return Regions(pooled - pooled.mean(0), names)


def embed(tower: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return the unit-length embeddings of texts, of shape `(texts, projection_dim)`."""
    ids = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
    return nn.functional.normalize(tower(ids).text_embeds, dim=-1)


def phrase(name: str, rng: np.random.Generator) -> str:
    """Return a random phrase that asks for `name`."""
    if rng.random() < 0.2:
        name = f"{rng.choice(ADJECTIVES)} {name}"
    return str(rng.choice(TEMPLATES)).format(name)


def contrast(logits: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """Compute CLIP's symmetric loss; if a row or column has several matches, its target is uniform over them.

    Args:
        logits: Logits of shape `(regions, texts)`.
        matches: Boolean matrix of the same shape.
    """

    def one_way(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets, logits = targets[targets.any(1)].float(), logits[targets.any(1)]
        return nn.functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True))

    return (one_way(logits, matches) + one_way(logits.T, matches.T)) / 2


def train_tower(
    tower: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    dictionary: Dictionary,
    regions: Regions,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train `tower` in place, on `batch_size` nouns and as many regions per step."""
    rng = np.random.default_rng(seed)
    sharpness = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.AdamW(
        [*tower.parameters(), sharpness], lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = get_scheduler("cosine", optimizer, min(50, steps // 10), steps)
    progress = tqdm(range(steps), desc="text tower", mininterval=10)
    for _ in progress:
        chosen = rng.integers(len(regions.names), size=batch_size)
        names = [regions.names[index] for index in chosen]
        drawn = [str(rng.choice(called)) for called in names if called]
        asked = rng.choice(len(dictionary.nouns), size=batch_size, p=dictionary.shares)
        nouns = [dictionary.nouns[index] for index in asked]
        embeds = embed(tower, tokenizer, [phrase(name, rng) for name in (*drawn, *nouns)])
        matches = torch.tensor([[name in called for name in drawn] for called in names])
        seen_loss = contrast(sharpness.exp() * regions.features[chosen] @ embeds[: len(drawn)].T, matches)
        meant_loss = (1 - (embeds[len(drawn) :] * dictionary.embeds[asked]).sum(1)).mean()
        optimizer.zero_grad()
        (meant_loss + SEEN_WEIGHT * seen_loss).backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(meant=f"{meant_loss.item():.3f}", seen=f"{seen_loss.item():.3f}", refresh=False)


@torch.no_grad()
def recall(regions: Regions, embeds: dict[str, torch.Tensor], most: int) -> float:
    """Return the fraction of named regions whose own name is among the `most` best matches."""
    scores = regions.features @ torch.stack([*embeds.values()]).T
    order = {name: index for index, name in enumerate(embeds)}
    named = [index for index, called in enumerate(regions.names) if called]
    own = torch.tensor([order[regions.names[index][0]] for index in named], dtype=torch.long)
    better = scores[named] > scores[named, own][:, None]
    return (better.sum(1) < most).float().mean().item()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--model", required=True, help="lite checkpoint to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of WordNet's files")
    parser.add_argument(
        "--imagenet-share", type=float, default=0.75, help="weight of ImageNet's weights in the encoder, in [0, 1]"
    )
    parser.add_argument("--composites", type=int, default=2000)
    parser.add_argument("--size", type=int, default=320, help="side of a composite in pixels, a multiple of 32")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=384, help="number of nouns, and of regions, per step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if not (args.wordnet / "data.noun").is_file():
        parser.error(
            f"--wordnet must contain data.noun, got {args.wordnet}; Debian's wordnet-base installs /usr/share/wordnet."
        )
    if not 0 <= args.imagenet_share <= 1:
        parser.error(f"--imagenet-share must be in [0, 1], got {args.imagenet_share}.")
    return args


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Save the new checkpoint; print and return its scores on held-out regions and on the nouns."""
    args = parse_arguments(argv)
    set_seed(args.seed)
    cv2.setNumThreads(1)
    if args.threads:
        torch.set_num_threads(args.threads)
    wordnet = Nouns(args.wordnet)
    old = FCLMForImageMatting.from_pretrained(args.model, dtype=torch.float32).eval()
    processor = FCLMProcessor.from_pretrained(args.model)
    # objects must look like their names and cover several cells of the semantic map
    settings = CompositionSettings(
        size=args.size,
        object_counts=(0.2, 0.4, 0.4),
        shared_scale=(0.35, 0.85),
        duplicate_prob=0,
        photo_texture_prob=0,
        translucency_prob=0,
        letterbox_prob=0,
    )
    stream = PairStream(
        open_foregrounds(args.data), open_backgrounds(args.data), Shard(), PairSettings(settings, seed=args.seed)
    )

    texts = sorted({item["name"] for item in read_entries(args.data)})
    ids = processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
    model, class_embeds = restart(old, args.imagenet_share, ids)
    dictionary = look_up(wordnet, class_embeds)
    encoder_size, model.config.encoder_size = model.config.encoder_size, args.size
    regions = pool_regions(model, processor, stream, args.composites)
    model.config.encoder_size = encoder_size

    known, unseen = regions.split(HELD_OUT)
    tower = model.model.text_model.requires_grad_(True).train()
    train_tower(
        tower, processor.tokenizer, dictionary, known, args.steps, args.batch_size, args.learning_rate, args.seed
    )
    names = sorted({name for called in regions.names for name in called})
    with torch.no_grad():
        embeds = embed(tower.eval(), processor.tokenizer, [*names, *dictionary.nouns])
    by_name = dict(zip(names, embeds[: len(names)], strict=True))
    scores = {f"recall@{most}": recall(unseen, by_name, most) for most in (1, 10, 100)}
    scores["cosine"] = (embeds[len(names) :] * dictionary.embeds).sum(1).mean().item()
    print(", ".join(f"{name} {value:.3f}" for name, value in scores.items()), f"of {len(names)} names")
    # loaded again, because a tokenizer saves the padding and truncation of its last call
    save_weights(model, FCLMProcessor.from_pretrained(args.model), args.output, torch.float16)
    return scores


if __name__ == "__main__":
    main()
