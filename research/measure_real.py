"""What the issue on real photos asks for, of one checkpoint: IoU and SAD by every prompt, clicks, solidity, hair.

    python research/measure_real.py --data REAL_DEV --model CHECKPOINT [--cutouts CUTOUTS] [--clicks 5] [--pictures DIR]

The last line is JSON. COCO photos: IoU by prompt ("mask" is a rough one), `clickN` after N clicks in the middle of the
largest error with the earlier matte fed back, `noc85` and `noc90` the clicks that IoU .85 and .90 take (at most as many
as were given), `solid` the share of alphas above .9 among pixels 5 px or more inside a boxed object, `absent` the share
of names of absent objects whose matte has a mean below .05. alphamatting.com: `sad_*` in thousands. Hair: portraits of
held-out persons over held-out backgrounds, SAD and gradient error in the upper rim; never to be shown.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from held_out import held_out_backgrounds, held_out_persons, is_held_out, read_rgba
from PIL import Image
from real_photos import read_photos

from fclm_hf import FCLMForImageMatting, FCLMProcessor
from fclm_hf.evaluation.prompts import PromptedTarget, PromptRules
from fclm_hf.metrics import gradient_error, mask_iou, mse, sad
from fclm_hf.pipeline_fclm import decode_alphas
from fclm_hf.refinement_fclm import refine_alphas


PROMPTS = ("box", "point", "text", "none", "mask", "trimap")
ABSENT = ("zebra", "airplane", "pizza", "toilet", "umbrella", "boat")
GOALS = (0.85, 0.9)


def deep_inside(truth: np.ndarray, depth: float = 5) -> np.ndarray:
    """Return a mask of the pixels that lie at least `depth` pixels inside an object."""
    padded = np.pad((truth > 0.5).astype(np.uint8), 1, mode="edge")
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] >= depth


def next_click(alpha: np.ndarray, truth: np.ndarray) -> tuple[list[float], int]:
    """The middle of the largest error, and its label."""
    best = None
    for label, wrong in ((1, (truth > 0.5) & (alpha <= 0.5)), (0, (truth <= 0.5) & (alpha > 0.5))):
        depth = cv2.distanceTransform(np.pad(wrong.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        if best is None or depth.max() > best[0]:
            row, column = np.unravel_index(depth.argmax(), depth.shape)
            best = depth.max(), [float(column), float(row)], label
    return best[1], best[2]


class Matter:
    """A checkpoint that has encoded one photo."""

    def __init__(self, source: str, encoder_size: int | None):
        overrides = {} if encoder_size is None else {"encoder_size": encoder_size}
        self.model = FCLMForImageMatting.from_pretrained(source, dtype=torch.float32, **overrides).eval()
        self.processor = FCLMProcessor.from_pretrained(source)
        self.refinement_size = self.model.config.refinement_size

    @property
    def rules(self) -> PromptRules:
        """Prompt rules that leave out names the tokenizer does not know."""
        return PromptRules("{CLS}", vocabulary=frozenset(self.processor.tokenizer.get_vocab()))

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> None:
        """Encode an image for the prompts that follow."""
        self.size = (image.height, image.width)
        encoded = self.processor(images=image)
        self.pixel_values = encoded["pixel_values"]
        self.embeddings = self.model.get_image_embeddings(encoded["pixel_values"], pixel_mask=encoded["pixel_mask"])

    @torch.inference_mode()
    def __call__(self, **prompts: Any) -> np.ndarray:
        """Return the alphas of the prompts in the encoded image."""
        inputs = self.processor.encode_prompts([self.size], self.embeddings.image_sizes.tolist(), **prompts)
        alphas = decode_alphas(self.model, self.embeddings, inputs)
        if self.refinement_size:
            alphas = refine_alphas(self.model, self.pixel_values, alphas, inputs, self.refinement_size)
        return self.processor.post_process_image_matting({"alphas": alphas[None]}, [self.size])[0]["alpha"].numpy()

    def by(self, prompt: str, targets: list[PromptedTarget]) -> np.ndarray:
        """Return the alphas of targets by a kind of prompt."""
        if prompt == "none":
            return self()
        if prompt == "point":
            return self(input_points=[[[list(each.point)] for each in targets]])
        if prompt == "text":
            return self(text=[[each.text for each in targets]])
        if prompt == "box":
            return self(input_boxes=[[list(each.box) for each in targets]])
        return self(input_masks=[[each.mask for each in targets]])


def mean(values: list[float]) -> float:
    """Return the mean of values, rounded to four digits."""
    return round(float(np.mean(values)), 4)


def click_through(matter: Matter, target: PromptedTarget, clicks: int, feedback: bool) -> list[float]:
    """IoU after each of so many clicks."""
    truth = (target.alpha > 127).astype(np.float32)
    points, labels, scores, given = [list(target.point)], [1], [], {}
    for _ in range(clicks):
        alpha = matter(input_points=[[points]], input_labels=[[labels]], **given)[0]
        scores.append(mask_iou(alpha, truth))
        point, label = next_click(alpha, truth)
        points, labels = [*points, point], [*labels, label]
        if feedback:
            given = {"input_masks": [[alpha]]}
    return scores


def measure_coco(matter: Matter, folder: Path, clicks: int, feedback: bool) -> dict[str, float]:
    """Measure IoU by each kind of prompt, clicks in a row and solidity on COCO photos."""
    scores: dict[str, list[float]] = {}
    solid, deep = 0, 0

    def add(name: str, value: float) -> None:
        scores.setdefault(name, []).append(value)

    for photo in read_photos(folder, PROMPTS[:-1], matter.rules):
        matter.encode(photo.image)
        for prompt, targets in photo.prompted.items():
            alphas = matter.by(prompt, targets) if targets else ()
            for target, alpha in zip(targets, alphas, strict=True):
                truth = (target.alpha > 127).astype(np.float32)
                add(prompt, mask_iou(alpha, truth))
                if prompt == "box":
                    inside = deep_inside(truth)
                    solid, deep = solid + int((alpha[inside] > 0.9).sum()), deep + int(inside.sum())
        for target in photo.prompted["point"] if clicks > 1 else ():
            reached = click_through(matter, target, clicks, feedback)
            for count, score in enumerate(reached, 1):
                add(f"click{count}", score)
            for goal in GOALS:
                add(f"noc{round(100 * goal)}", next((n for n, score in enumerate(reached, 1) if score >= goal), clicks))
        classes = {target.cls for target in photo.sample.targets}
        for alpha in matter(text=[[name for name in ABSENT if name not in classes][:2]]):
            add("absent", float(alpha.mean() < 0.05))
    return {name: mean(values) for name, values in scores.items()} | {"solid": round(solid / deep, 4)}


def measure_alphamatting(matter: Matter, folder: Path) -> dict[str, Any]:
    """Measure SAD and MSE by each kind of prompt on photos with a true alpha."""
    scores: dict[str, list[float]] = {}
    for photo in read_photos(folder, PROMPTS, PromptRules("{CLS}")):
        matter.encode(photo.image)
        for prompt, targets in photo.prompted.items():
            truth = targets[0].alpha.astype(np.float32) / 255
            alpha = matter.by(prompt, targets)[0]
            scores.setdefault(f"sad_{prompt}", []).append(sad(alpha, truth))
            scores.setdefault(f"mse_{prompt}", []).append(mse(alpha, truth))
    each = {f"{name}_each": [round(x, 1) for x in scores[name]] for name in ("sad_box", "sad_point", "sad_text")}
    return {name: mean(values) for name, values in scores.items()} | each


def make_portraits(folder: Path, size: int = 640) -> list[tuple[np.ndarray, np.ndarray]]:
    """(image, alpha) of each held-out person over a held-out background; never to be shown."""
    index = json.loads((folder / "index.json").read_text())
    persons, backgrounds = held_out_persons(index), held_out_backgrounds(index)
    held = [entry for entry in index if is_held_out(entry, persons, backgrounds)]
    faces = [e for e in held if e["file"].startswith("people/")]
    scenes = [e for e in held if e["file"].startswith("bg/")]
    portraits = []
    for number, person in enumerate(sorted(persons)):
        face = next(e for e in faces if e["file"].split("_")[1] == person)
        rgba = read_rgba(folder / face["file"]).astype(np.float32)
        rng = np.random.default_rng(number)
        zoom = size * rng.uniform(0.75, 1.0) / max(rgba.shape[:2])
        rgba = cv2.resize(rgba, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        scene = read_rgba(folder / scenes[number % len(scenes)]["file"])[..., :3].astype(np.float32)
        side = min(scene.shape[:2])
        scene = cv2.resize(scene[:side, :side], (size, size), interpolation=cv2.INTER_AREA)
        height, width = rgba.shape[:2]
        left = int(rng.integers(size - width + 1))
        alpha, image = np.zeros((size, size), np.float32), scene
        alpha[size - height :, left : left + width] = np.clip(rgba[..., 3] / 255, 0, 1)
        front = np.zeros_like(scene)
        front[size - height :, left : left + width] = rgba[..., :3]
        image = front * alpha[..., None] + scene * (1 - alpha[..., None])
        portraits.append((np.clip(np.rint(image), 0, 255).astype(np.uint8), alpha))
    return portraits


def find_rim(alpha: np.ndarray) -> np.ndarray:
    """Trimap: 128 within 8 px of a fractional alpha in the upper 70 % of the person."""
    rows = np.flatnonzero((alpha > 0.5).any(1))
    soft = ((alpha > 0.02) & (alpha < 0.98)).astype(np.uint8)
    soft[int(rows[0] + 0.7 * (rows[-1] - rows[0])) :] = 0
    rim = cv2.dilate(soft, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17))) > 0
    return np.where(rim, 128, np.where(alpha > 0.5, 255, 0)).astype(np.uint8)


def measure_hair(matter: Matter, folder: Path) -> dict[str, float]:
    """Measure SAD and gradient error in the rim of hair of held-out portraits."""
    scores: dict[str, list[float]] = {}
    for image, alpha in make_portraits(folder):
        rim = find_rim(alpha)
        rows, columns = np.flatnonzero((alpha > 0.1).any(1)), np.flatnonzero((alpha > 0.1).any(0))
        box = [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
        matter.encode(Image.fromarray(image))
        for name, prompts in (("box", {"input_boxes": [[box]]}), ("text", {"text": [["person"]]}), ("none", {})):
            matte = matter(**prompts)[0]
            scores.setdefault(f"hair_sad_{name}", []).append(sad(matte, alpha, rim))
            scores.setdefault(f"hair_grad_{name}", []).append(gradient_error(matte, alpha, rim))
    return {name: mean(values) for name, values in scores.items()}


def save_pictures(matter: Matter, folder: Path) -> None:
    """Save mattes of the bundled photos to look at."""
    photos = Path(__file__).resolve().parents[1] / "examples" / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    tiles = []
    for name, prompt in (
        ("cat", {"text": [["cat"]]}),
        ("cat", {}),
        ("astronaut", {"input_boxes": [[[20, 4, 436, 512]]]}),
        ("coffee", {"input_points": [[[[300, 200]]]]}),
    ):
        photo = Image.open(photos / f"{name}.jpg").convert("RGB")
        matter.encode(photo)
        alpha = matter(**prompt)[0]
        mixed = np.asarray(photo) * alpha[..., None] + np.array([70, 140, 200]) * (1 - alpha[..., None])
        pair = np.hstack([np.repeat(alpha[..., None] * 255, 3, -1), mixed]).astype(np.uint8)
        tiles.append(cv2.resize(pair, (round(pair.shape[1] * 360 / pair.shape[0]), 360), interpolation=cv2.INTER_AREA))
    width = max(tile.shape[1] for tile in tiles)
    tiles = [np.pad(tile, ((0, 0), (0, width - tile.shape[1]), (0, 0))) for tile in tiles]
    Image.fromarray(np.vstack(tiles)).save(folder / "readme.png")


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and alphamatting/")
    parser.add_argument("--model", required=True, help="folder or Hub id")
    parser.add_argument("--cutouts", type=Path, help="folder of cut-outs, for hair")
    parser.add_argument("--pictures", type=Path, help="folder for mattes of the README's photos")
    parser.add_argument("--encoder-size", type=int)
    parser.add_argument("--refinement-size", type=int, help="encoder input of the second look; 0 for none")
    parser.add_argument("--clicks", type=int, default=1)
    parser.add_argument("--no-feedback", action="store_true", help="the earlier matte is not fed back")
    parser.add_argument("--only", choices=("coco", "alphamatting", "hair"), nargs="+")
    args = parser.parse_args()
    matter = Matter(args.model, args.encoder_size)
    if args.refinement_size is not None:
        matter.refinement_size = args.refinement_size
    wanted = args.only or ("coco", "alphamatting", "hair")
    results: dict[str, Any] = {}
    if "coco" in wanted:
        results |= measure_coco(matter, args.data / "coco", args.clicks, not args.no_feedback)
    if "alphamatting" in wanted:
        results |= measure_alphamatting(matter, args.data / "alphamatting")
    if "hair" in wanted and args.cutouts:
        results |= measure_hair(matter, args.cutouts)
    if args.pictures:
        save_pictures(matter, args.pictures)
    print(
        json.dumps(
            {
                "model": args.model,
                "encoder_size": matter.model.config.encoder_size,
                "refinement_size": matter.refinement_size,
                **results,
            }
        )
    )


if __name__ == "__main__":
    main()
