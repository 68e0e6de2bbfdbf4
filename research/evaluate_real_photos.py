"""Shows how well a checkpoint mattes real photos, by kind of prompt; takes minutes on a CPU and photos with mattes.

    python research/evaluate_real_photos.py --data DIR [--model CHECKPOINT] [--baselines] [--save SHEETS]

DIR contains coco/, alphamatting/ or both, laid out as real_photos.py describes. COCO photos are scored by the IoU of
`alpha > 0.5` with the mask, averaged over objects. Text prompts are limited to objects that are the only one of their
class in the photo and whose name is in the tokenizer's vocabulary; without a prompt, the target is the union of all
objects in the photo.
The photos of alphamatting.com are scored by SAD (sum of absolute differences / 1000) and MSE at the size of the photo.
The last line of the output is JSON. `fclm evaluate` measures the same folders with all metrics, and other benchmarks.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheets import ContactSheets
from real_photos import Photo, read_photos

from fclm_hf import LITE_CHECKPOINT
from fclm_hf.evaluation.baselines import fill_box, run_grabcut
from fclm_hf.evaluation.predictors import CheckpointPredictor
from fclm_hf.evaluation.prompts import PromptedTarget, PromptRules
from fclm_hf.metrics import mask_iou, mse, sad


PROMPTS = ("box", "point", "text", "none")
BASELINES = {"box as mask": fill_box, "GrabCut from box": run_grabcut}
Scores = dict[str, float]


def score_mask(alpha: np.ndarray, target: np.ndarray) -> Scores:
    """Return the metrics of the COCO photos."""
    return {"iou": mask_iou(alpha, target)}


def score_matte(alpha: np.ndarray, target: np.ndarray) -> Scores:
    """Return the metrics of the photos of alphamatting.com."""
    return {"sad": sad(alpha, target), "mse": mse(alpha, target)}


SCORES = {"coco": score_mask, "alphamatting": score_matte}


def predict(
    photo: Photo, predictor: CheckpointPredictor, prompts: list[str], baselines: bool
) -> Iterator[tuple[str, PromptedTarget, np.ndarray]]:
    """Yield the kind of prompt or baseline, the object, and its matte: float32 (height, width) in [0, 1]."""
    targets = {prompt: photo.prompted[prompt] for prompt in prompts}
    for prompt, mattes in predictor.predict(photo.sample, photo.image, targets):
        yield from ((prompt, prompted, alpha) for prompted, alpha in zip(targets[prompt], mattes, strict=True))
    for prompted in photo.prompted["box"] if baselines else ():
        yield from ((name, prompted, run(photo.image, prompted.box)) for name, run in BASELINES.items())


def evaluate(
    photos: Iterable[Photo],
    predictor: CheckpointPredictor,
    prompts: list[str],
    score: Callable[[np.ndarray, np.ndarray], Scores],
    baselines: bool = False,
    sheets: ContactSheets | None = None,
) -> dict[str, Scores]:
    """Return the mean scores and the number of objects ("count") by kind of prompt and baseline."""
    scores: dict[str, list[Scores]] = defaultdict(list)
    for photo in photos:
        for column, prompted, alpha in predict(photo, predictor, prompts, baselines):
            values = score(alpha, prompted.alpha / np.float32(255))
            scores[column].append(values)
            if sheets:
                sheets.add(photo.image, prompted, column, alpha, values)
    columns = [column for column in [*prompts, *BASELINES] if scores[column]]
    if sheets:
        paths = sheets.write(columns)
        print(f"wrote {len(paths)} contact sheets to {sheets.folder}: {', '.join(path.name for path in paths)}")
    return {
        column: {key: float(np.mean([each[key] for each in scores[column]])) for key in scores[column][0]}
        | {"count": len(scores[column])}
        for column in columns
    }


def print_table(results: dict[str, dict[str, Scores]]) -> None:
    """Print a line per set of photos and kind of prompt."""
    print(f"\n{'photos':<14}{'prompt':<18}{'IoU':>8}{'SAD':>9}{'MSE':>9}{'count':>7}")
    for name, means in results.items():
        for prompt, values in means.items():
            cells = "".join(
                f"{values[key]:>{width}.{digits}f}" if key in values else " " * width
                for key, width, digits in (("iou", 8, 3), ("sad", 9, 2), ("mse", 9, 4))
            )
            print(f"{name:<14}{prompt:<18}{cells}{values['count']:>7}")


def parse_encoder_size(value: str) -> int | None:
    """Return a number of pixels, or None for "none"."""
    if value.lower() == "none":
        return None
    size = int(value)
    if size < 1:
        raise argparse.ArgumentTypeError("must be a positive number of pixels or 'none'")
    return size


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with coco/ and/or alphamatting/")
    add("--model", default=str(LITE_CHECKPOINT), help="checkpoint: folder or Hub id (default: the embedded fclm-lite)")
    add("--limit", type=int, help="use only the first LIMIT photos of each set")
    # SUPPRESS: None is a value of its own, so an option that is not given must leave no attribute at all
    add(
        "--encoder-size",
        type=parse_encoder_size,
        default=argparse.SUPPRESS,
        help="override config.encoder_size (pixels, or none)",
    )
    add("--prompts", nargs="+", choices=PROMPTS, default=list(PROMPTS))
    add("--template", default="{}", help='text around the name, e.g. "a photo of a {}." (default: {})')
    add("--baselines", action="store_true", help="also score the box itself and GrabCut from the box")
    add("--save", type=Path, help="folder for contact sheets (PNG), worst first")
    add("--device", default="cpu")
    return parser


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the command line; return the summary that the last line of the output holds."""
    parser = build_parser()
    args = parser.parse_args(argv)
    folders = [folder for name in SCORES if (folder := args.data / name).joinpath("index.json").is_file()]
    if not folders:
        parser.error(f"--data must contain coco/index.json or alphamatting/index.json, got {args.data}")
    if "{}" not in args.template:
        parser.error(f"--template must contain {{}} in place of the name, got {args.template!r}")
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit must be at least 1, got {args.limit}")
    overrides = {"encoder_size": args.encoder_size} if hasattr(args, "encoder_size") else {}
    predictor = CheckpointPredictor(args.model, overrides=overrides, device=args.device)
    template = args.template.replace("{}", "{CLS}")
    rules = {
        "coco": PromptRules(template, vocabulary=predictor.vocabulary),
        "alphamatting": PromptRules(template),
    }
    kinds = dict.fromkeys([*args.prompts, "box"])  # baselines need boxes in any case
    start = time.perf_counter()
    results: dict[str, dict[str, Scores]] = {}
    for folder in folders:
        name = folder.name
        photos = read_photos(folder, kinds, rules[name], args.limit)
        sheets = ContactSheets(args.save, name) if args.save else None
        try:
            results[name] = evaluate(photos, predictor, args.prompts, SCORES[name], args.baselines, sheets)
        except (ValueError, OSError) as error:
            parser.exit(1, f"{name}: {error}\n")
    print_table(results)
    summary = {
        "model": args.model,
        "encoder_size": predictor.model.config.encoder_size,
        "seconds": round(time.perf_counter() - start, 1),
        **results,
    }
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    main()
