"""Measure a checkpoint on real photos: mattes by box, click, name, and with no prompt at all; with contact sheets.

`fclm evaluate` measures the same folders (DIR/coco and DIR/alphamatting), more closely and for any benchmark.

    python research/evaluate_real_photos.py --data DIR [--model CHECKPOINT] [--save SHEETS]

DIR holds one or both of

    coco/index.json          [{"image", "size", "objects": [{"cls", "unique", "mask", "box", "point"}]}], binary masks
    alphamatting/index.json  [{"id", "noun", "box", "point"}], photos in input/<id>.png, mattes in alpha/<id>.png

Boxes are (x0, y0, x1, y1), points (x, y), both in pixels of the photo. COCO is scored by the IoU of `alpha > 0.5` with
the mask, a mean over objects. By name only objects count that are alone of their class in the photo and whose name is
in the tokenizer's vocabulary; with no prompt the target is the union of a photo's objects. The alphamatting photos are
scored by SAD (sum of absolute differences / 1000) and MSE at the photo's own size. The last line of the output is JSON.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from fclm_hf.evaluation.baselines import fill_box, run_grabcut
from fclm_hf.evaluation.prompts import words_in_vocabulary
from fclm_hf.metrics import mask_iou, mse, sad
from fclm_hf.pipeline_fclm import decode_alphas


PROMPTS = ("box", "point", "text", "none")
ROWS_PER_SHEET = 12
CELL = (224, 168)
CAPTION = 14


@dataclass
class Target:
    """One thing to cut out: its prompts, its true alpha (height, width) in [0, 1], and what was predicted for it."""

    name: str
    truth: np.ndarray
    box: list[float] | None = None
    point: list[float] | None = None
    text: str | None = None
    automatic: bool = False
    thumbnails: dict[str, Image.Image] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def accepts(self, prompt: str) -> bool:
        return self.automatic if prompt == "none" else getattr(self, prompt) is not None


@dataclass
class Photo:
    """A photo (RGB) and the things to cut out of it."""

    image: Image.Image
    targets: list[Target]


class RealPhotoError(ValueError):
    """The data folder is not laid out as described at the top of this file."""


def read_index(path: Path, *keys: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RealPhotoError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(entries, list):
        raise RealPhotoError(f"{path} must hold a list of photos.")
    for entry in entries:
        require_keys(path, entry, *keys)
    return entries


def require_keys(path: Path, entry: Any, *keys: str) -> None:
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise RealPhotoError(f"{path}: {json.dumps(entry)[:120]} lacks {', '.join(missing)}.")


def read_alpha(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Matte or mask of any PIL mode as float32 (height, width) in [0, 1]."""
    with Image.open(path) as image:
        alpha = np.asarray(image.convert("L"), dtype=np.float32) / 255
    if alpha.shape != (size[1], size[0]):
        raise RealPhotoError(f"{path} is {alpha.shape[1]} x {alpha.shape[0]}, its photo {size[0]} x {size[1]}.")
    return alpha


def read_photo(path: Path) -> Image.Image:
    """The photo as RGB, upright as its EXIF tag says."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def read_coco(folder: Path, limit: int | None, vocabulary: dict[str, int]) -> Iterator[Photo]:
    for entry in read_index(folder / "index.json", "image", "objects")[:limit]:
        image = read_photo(folder / entry["image"])
        targets = []
        for item in entry["objects"]:
            require_keys(folder / "index.json", item, "cls", "unique", "mask", "box", "point")
            named = item["unique"] and words_in_vocabulary(item["cls"], vocabulary)
            truth = (read_alpha(folder / item["mask"], image.size) > 0.5).astype(np.float32)
            stem = Path(item["mask"]).stem
            targets.append(
                Target(f"{stem} {item['cls']}", truth, item["box"], item["point"], item["cls"] if named else None)
            )
        if targets:
            union = np.maximum.reduce([target.truth for target in targets])
            targets.append(Target(f"{Path(entry['image']).stem} union", union, automatic=True))
        yield Photo(image, targets)


def read_alphamatting(folder: Path, limit: int | None) -> Iterator[Photo]:
    for entry in read_index(folder / "index.json", "id", "noun", "box", "point")[:limit]:
        image = read_photo(folder / "input" / f"{entry['id']}.png")
        truth = read_alpha(folder / "alpha" / f"{entry['id']}.png", image.size)
        name = f"{entry['id']} {entry['noun']}"
        yield Photo(image, [Target(name, truth, entry["box"], entry["point"], entry["noun"], automatic=True)])


def score_mask(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"iou": mask_iou(prediction, truth)}


def score_matte(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"sad": sad(prediction, truth), "mse": mse(prediction, truth)}


class Predictor:
    """The model and its processor; encodes a photo once and answers every prompt from that."""

    def __init__(self, model: Any, processor: Any, template: str = "{}", device: str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.processor = processor
        self.template = template
        self.device = device

    def prompt_inputs(self, prompt: str, targets: list[Target]) -> dict[str, Any]:
        if prompt == "box":
            return {"input_boxes": [[target.box for target in targets]]}
        if prompt == "point":
            return {
                "input_points": [[[target.point] for target in targets]],
                "input_labels": [[[1] for _ in targets]],
            }
        if prompt == "text":
            return {"text": [[self.template.format(target.text) for target in targets]]}
        return {}

    @torch.inference_mode()
    def predict(self, photo: Photo, prompts: list[str]) -> Iterator[tuple[str, list[Target], np.ndarray]]:
        """Yield (prompt, targets, alphas (targets, height, width) float32 at the photo's size)."""
        asked = {prompt: [target for target in photo.targets if target.accepts(prompt)] for prompt in prompts}
        asked = {prompt: targets for prompt, targets in asked.items() if targets}
        if not asked:
            return
        encoded = self.processor(images=photo.image, return_tensors="pt").to(self.device)
        embeddings = self.model.get_image_embeddings(encoded["pixel_values"], pixel_mask=encoded["pixel_mask"])
        size = (photo.image.height, photo.image.width)
        resized_size = embeddings.image_sizes[0].tolist()
        for prompt, targets in asked.items():
            inputs = self.processor.encode_prompts([size], [resized_size], **self.prompt_inputs(prompt, targets))
            alphas = decode_alphas(self.model, embeddings, inputs)
            result = self.processor.post_process_image_matting({"alphas": alphas[None]}, target_sizes=[size])[0]
            yield prompt, targets, result["alpha"].numpy()


BASELINES: dict[str, Callable[[Image.Image, list[float]], np.ndarray]] = {
    "box as mask": fill_box,
    "GrabCut from box": run_grabcut,
}


def shrink(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail(CELL)
    return copy


def draw_prompts(image: Image.Image, target: Target) -> Image.Image:
    """The photo with the box in red and the click in green."""
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    width = max(2, round(max(image.size) / 200))
    if target.box is not None:
        draw.rectangle([target.box[0], target.box[1], target.box[2] - 1, target.box[3] - 1], outline="red", width=width)
    if target.point is not None:
        x, y = target.point
        radius = 2 * width
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill="lime", outline="black")
    return copy


def to_picture(alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(alpha * 255 + 0.5, 0, 255).astype(np.uint8))


def write_sheets(folder: Path, stem: str, targets: list[Target], columns: list[str]) -> list[Path]:
    """Contact sheets `<stem>_01.png` ...: photo, truth and one column per prompt; the worst mean score comes first."""

    def badness(target: Target) -> float:
        values = [score["sad"] if "sad" in score else -score["iou"] for score in target.scores.values()]
        return sum(values) / len(values)

    targets = sorted((target for target in targets if target.scores), key=badness, reverse=True)
    paths = []
    for page, start in enumerate(range(0, len(targets), ROWS_PER_SHEET), 1):
        rows = targets[start : start + ROWS_PER_SHEET]
        height = CELL[1] + CAPTION + 4
        sheet = Image.new("RGB", ((2 + len(columns)) * (CELL[0] + 4), len(rows) * height), (64, 64, 96))
        draw = ImageDraw.Draw(sheet)
        for row, target in enumerate(rows):
            captions = {"photo": target.name, "truth": "truth"}
            for column, score in target.scores.items():
                captions[column] = f"{column}  " + "  ".join(f"{key} {value:.4g}" for key, value in score.items())
            for index, column in enumerate(["photo", "truth", *columns]):
                if column in target.thumbnails:
                    corner = (index * (CELL[0] + 4), row * height)
                    draw.text(corner, captions[column], fill="white")
                    sheet.paste(target.thumbnails[column], (corner[0], corner[1] + CAPTION))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem}_{page:02d}.png"
        sheet.save(path)
        paths.append(path)
    return paths


def evaluate(
    photos: Iterator[Photo],
    predictor: Predictor,
    prompts: list[str],
    score: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    baselines: bool = False,
    sheets: tuple[Path, str] | None = None,
) -> dict[str, dict[str, float]]:
    """Mean scores and number of targets, by prompt (and by baseline); `sheets` is (folder, file stem)."""
    scores: dict[str, list[dict[str, float]]] = defaultdict(list)
    seen: list[Target] = []

    def record(photo: Photo, target: Target, column: str, alpha: np.ndarray) -> None:
        target.scores[column] = score(alpha, target.truth)
        scores[column].append(target.scores[column])
        if sheets:
            target.thumbnails[column] = shrink(to_picture(alpha))

    for photo in photos:
        for prompt, targets, alphas in predictor.predict(photo, prompts):
            for target, alpha in zip(targets, alphas, strict=True):
                record(photo, target, prompt, alpha)
        for target in photo.targets:
            if baselines and target.box is not None:
                for name, method in BASELINES.items():
                    record(photo, target, name, method(photo.image, target.box))
            if sheets and target.scores:
                target.thumbnails["photo"] = shrink(draw_prompts(photo.image, target))
                target.thumbnails["truth"] = shrink(to_picture(target.truth))
                target.truth = np.empty(0)
                seen.append(target)
    columns = [column for column in [*prompts, *BASELINES] if scores[column]]
    if sheets:
        # A photo's union has no box and no click: in a sheet of its own it does not leave most columns empty.
        unions = [target for target in seen if target.automatic and target.box is None]
        objects = [target for target in seen if not (target.automatic and target.box is None)]
        paths = write_sheets(*sheets, objects, [c for c in columns if any(c in target.scores for target in objects)])
        paths += write_sheets(sheets[0], f"{sheets[1]}_automatic", unions, ["none"])
        print(f"wrote {len(paths)} contact sheets to {sheets[0]}: {', '.join(path.name for path in paths)}")
    means = {}
    for column in columns:
        keys = scores[column][0]
        means[column] = {key: sum(item[key] for item in scores[column]) / len(scores[column]) for key in keys}
        means[column]["count"] = len(scores[column])
    return means


def print_table(results: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"\n{'photos':<14}{'prompt':<18}{'IoU':>8}{'SAD':>9}{'MSE':>9}{'count':>7}")
    for name, means in results.items():
        for prompt, values in means.items():
            cells = "".join(
                f"{values[key]:>{width}.{digits}f}" if key in values else " " * width
                for key, width, digits in (("iou", 8, 3), ("sad", 9, 2), ("mse", 9, 4))
            )
            print(f"{name:<14}{'automatic' if prompt == 'none' else prompt:<18}{cells}{values['count']:>7}")


def parse_encoder_size(value: str) -> int | None:
    if value.lower() == "none":
        return None
    size = int(value)
    if size < 1:
        raise argparse.ArgumentTypeError("must be a positive number of pixels or 'none'")
    return size


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and/or alphamatting/")
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: the embedded fclm-lite)")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT photos of each set")
    # SUPPRESS: "none" is a value of its own, so an option that is not given must leave no attribute at all.
    parser.add_argument(
        "--encoder-size",
        type=parse_encoder_size,
        default=argparse.SUPPRESS,
        help="override config.encoder_size (pixels, or none)",
    )
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=list(PROMPTS))
    parser.add_argument("--template", default="{}", help='text around the name, e.g. "a photo of a {}." (default: {})')
    parser.add_argument("--baselines", action="store_true", help="also score the box itself and GrabCut from the box")
    parser.add_argument("--save", type=Path, help="folder for contact sheets (PNG), worst first")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = build_parser()
    args = parser.parse_args(argv)
    if not any((args.data / name / "index.json").is_file() for name in ("coco", "alphamatting")):
        parser.error(f"--data: {args.data} holds neither coco/index.json nor alphamatting/index.json")
    if "{}" not in args.template:
        parser.error(f"--template: {args.template!r} must contain {{}}, the place of the name")
    if args.limit is not None and args.limit < 1:
        parser.error("--limit: must be at least 1")
    from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor

    source = args.model or str(LITE_CHECKPOINT)
    overrides = {"encoder_size": args.encoder_size} if hasattr(args, "encoder_size") else {}
    model = FCLMForImageMatting.from_pretrained(source, dtype=torch.float32, **overrides)
    processor = FCLMProcessor.from_pretrained(source)
    predictor = Predictor(model, processor, args.template, args.device)
    start = time.perf_counter()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, score in (("coco", score_mask), ("alphamatting", score_matte)):
        folder = args.data / name
        if not (folder / "index.json").is_file():
            continue
        if name == "coco":
            photos = read_coco(folder, args.limit, processor.tokenizer.get_vocab())
        else:
            photos = read_alphamatting(folder, args.limit)
        sheets = (args.save, name) if args.save else None
        try:
            results[name] = evaluate(photos, predictor, args.prompts, score, args.baselines, sheets)
        except (RealPhotoError, OSError) as error:
            parser.exit(1, f"{name}: {error}\n")
    print_table(results)
    summary = {
        "model": source,
        "encoder_size": getattr(model.config, "encoder_size", None),
        "seconds": round(time.perf_counter() - start, 1),
        **results,
    }
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    main()
