"""Measures how well a checkpoint's semantic map locates named objects, before any decoder.

    python research/measure_matches.py --data DIR --model CHECKPOINT

DIR is laid out as research/real_photos.py describes. The script prints the area under the ROC curve, averaged over the
objects of each class and over all objects: the probability that a pixel on the object matches its name better than a
pixel beside it; 0.5 is chance.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from real_photos import read_photos
from scipy.stats import rankdata
from torch import nn

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.evaluation.prompts import PromptRules


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve of `scores` for the boolean `truth` of the same shape; ties count half."""
    ranks = rankdata(scores.ravel())[truth.ravel()]
    positives, negatives = len(ranks), truth.size - len(ranks)
    return float((ranks.sum() - positives * (positives + 1) / 2) / (positives * negatives))


@torch.inference_mode()
def match_names(
    model: FCLMForImageMatting, processor: FCLMProcessor, image: Image.Image, names: list[str]
) -> np.ndarray:
    """Return the similarity of each pixel of `image` to each of `names`, of shape `(names, height, width)`."""
    inputs = processor(images=image, text=[names], return_tensors="pt")
    semantic_map = model.get_image_embeddings(inputs["pixel_values"], inputs["pixel_mask"]).semantic_map
    embeds = model.model.get_text_features(inputs["input_ids"][0]).pooler_output
    matches = torch.einsum("chw,nc->nhw", semantic_map[0], nn.functional.normalize(embeds, dim=-1))[None]
    side = max(image.size)  # the encoder input is square, padded at the right and below
    matches = nn.functional.interpolate(matches, size=(side, side), mode="bilinear", align_corners=False)[0]
    return matches[:, : image.height, : image.width].numpy()


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the areas and return them by class, with the mean over all objects as "all"."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds coco/")
    parser.add_argument("--model", required=True, help="checkpoint with a semantic head")
    args = parser.parse_args(argv)
    model = FCLMForImageMatting.from_pretrained(args.model, dtype=torch.float32).eval()
    if model.config.semantic_head_size is None or model.config.encoder_size is None:
        parser.error(f"--model must have a semantic head and a fixed encoder_size, got {args.model}.")
    processor = FCLMProcessor.from_pretrained(args.model)
    areas: dict[str, list[float]] = defaultdict(list)
    rules = PromptRules("{CLS}", vocabulary=frozenset(processor.tokenizer.get_vocab()))
    for photo in read_photos(args.data / "coco", ["text"], rules):
        named = photo.prompted["text"]
        if named:
            matches = match_names(model, processor, photo.image, [each.text for each in named])
            for each, match in zip(named, matches, strict=True):
                areas[each.text].append(area_under_roc(match, each.alpha > 127))
    scores = {name: float(np.mean(values)) for name, values in sorted(areas.items())}
    scores["all"] = float(np.mean([area for values in areas.values() for area in values]))
    for name, area in scores.items():
        print(f"{name:<12} {area:.3f} ({len(areas.get(name, ())) or sum(map(len, areas.values()))})")
    return scores


if __name__ == "__main__":
    main()
