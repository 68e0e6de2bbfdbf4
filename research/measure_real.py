"""Everything that the weights are chosen by, of one checkpoint: IoU and SAD by every prompt, clicks, solidity, hair.

    python research/measure_real.py --data REAL_DEV --model CHECKPOINT [--cutouts CUTOUTS] [--clicks 5] [--pictures DIR]

The last line is JSON. COCO photos: IoU by prompt ("mask" is a rough one), `clickN` after N clicks in the middle of the
largest error with the earlier matte fed back, `noc85` and `noc90` the clicks that IoU .85 and .90 take (at most as many
as were given), `solid` the share of alphas above .9 among pixels 5 px or more inside a boxed object, `absent` the share
of names of absent objects whose matte has a mean below .05. alphamatting.com: `sad_*` in thousands. Hair: portraits of
held-out persons over held-out backgrounds, SAD and gradient error in the upper rim, beside those of closed-form matting
(pymatting) with that rim as the unknown part of its trimap; never to be shown. All but the last two are what `fclm
evaluate` measures.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from held_out import held_out_backgrounds, held_out_persons, is_held_out, read_rgba
from PIL import Image
from pyarrow import parquet

from fclm_hf.evaluation import EvaluationOptions, evaluate
from fclm_hf.evaluation.layouts import open_folder
from fclm_hf.evaluation.predictors import CheckpointPredictor
from fclm_hf.evaluation.samples import read_image
from fclm_hf.metrics import gradient_error, sad


PROMPTS = ["box", "point", "text", "none", "mask", "trimap"]
ABSENT = ("zebra", "airplane", "pizza", "toilet", "umbrella", "boat")


def mean(values: list[float]) -> float:
    """Return the mean of values, rounded to four digits."""
    return round(float(np.mean(values)), 4)


def run_evaluation(folder: Path, out: Path, model: str, prompts: list[str], **options: Any) -> dict[str, Any]:
    """Return the metrics of each kind of prompt, by prompt."""
    options = EvaluationOptions(
        str(folder), out, models=[model], prompts=prompts, template="{CLS}", workers=0, **options
    )
    return {result["prompt"]: result["measures"] for result in evaluate(options)["results"]}


def measure_coco(folder: Path, model: str, clicks: int, overrides: dict[str, Any]) -> dict[str, float]:
    """Measure IoU by each kind of prompt, clicks in a row and solidity on COCO photos."""
    with tempfile.TemporaryDirectory() as out:
        measures = run_evaluation(
            folder, Path(out), model, PROMPTS[:-1], clicks=clicks, known_words=True, config_overrides=overrides
        )
    point = {name.removeprefix("iou_"): value for name, value in measures["point"].items()}
    results = {prompt: values["iou"] for prompt, values in measures.items()}
    results |= {name: value for name, value in point.items() if name.startswith(("click", "noc"))}
    return {name: round(value, 4) for name, value in results.items()} | {"solid": round(measures["box"]["solidity"], 4)}


def measure_absent(predictor: CheckpointPredictor, folder: Path) -> dict[str, float]:
    """Measure how often the name of what is not in a photo gives an almost empty matte."""
    scores = []
    for sample in open_folder(folder).samples:
        classes = {target.cls for target in sample.targets}
        names = [name for name in ABSENT if name not in classes][:2]
        matte = predictor.encode(read_image(sample.image, sample.name))
        scores += [float(alpha.mean() < 0.05) for alpha in matte(text=[names])]
    return {"absent": mean(scores)}


def measure_alphamatting(folder: Path, model: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Measure SAD and MSE by each kind of prompt on photos with a true alpha."""
    with tempfile.TemporaryDirectory() as out:
        measures = run_evaluation(folder, Path(out), model, PROMPTS, config_overrides=overrides)
        tables = {path.parent.name: parquet.read_table(path) for path in Path(out).glob("*/*/rows.parquet")}
    results = {f"{name}_{prompt}": round(measures[prompt][name], 4) for prompt in PROMPTS for name in ("sad", "mse")}
    each = {prompt: tables[prompt]["sad"].to_pylist() for prompt in PROMPTS[:3]}
    return results | {f"sad_{prompt}_each": [round(x, 1) for x in values] for prompt, values in each.items()}


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


def run_closed_form(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Return the matte of closed-form matting (Levin et al., 2008) from a trimap, in [0, 1]."""
    from pymatting import estimate_alpha_cf

    return np.clip(estimate_alpha_cf(image / 255.0, np.where(trimap == 128, 0.5, trimap / 255.0)), 0, 1)


def measure_hair(predictor: CheckpointPredictor, folder: Path) -> dict[str, float]:
    """Measure SAD and gradient error in the rim of hair of held-out portraits."""
    scores: dict[str, list[float]] = {}
    for image, alpha in make_portraits(folder):
        rim = find_rim(alpha)
        rows, columns = np.flatnonzero((alpha > 0.1).any(1)), np.flatnonzero((alpha > 0.1).any(0))
        box = [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
        matte = predictor.encode(Image.fromarray(image))
        mattes = {
            "box": matte(input_boxes=[[box]])[0],
            "text": matte(text=[["person"]])[0],
            "none": matte()[0],
            "closed_form": run_closed_form(image, rim).astype(np.float32),
        }
        for name, pred in mattes.items():
            scores.setdefault(f"hair_sad_{name}", []).append(sad(pred, alpha, rim))
            scores.setdefault(f"hair_grad_{name}", []).append(gradient_error(pred, alpha, rim))
    return {name: mean(values) for name, values in scores.items()}


def save_pictures(predictor: CheckpointPredictor, folder: Path) -> None:
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
        alpha = predictor.encode(photo)(**prompt)[0]
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
    parser.add_argument("--tile-size", type=int, help="side of the tiles of soft edges; 0 for none")
    parser.add_argument("--clicks", type=int, default=1)
    parser.add_argument("--only", choices=("coco", "alphamatting", "hair"), nargs="+")
    args = parser.parse_args()
    overrides = {} if args.encoder_size is None else {"encoder_size": args.encoder_size}
    for name in ("refinement_size", "tile_size"):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name) or None
    predictor = CheckpointPredictor(args.model, overrides=overrides)
    wanted = args.only or ("coco", "alphamatting", "hair")
    results: dict[str, Any] = {}
    if "coco" in wanted:
        results |= measure_coco(args.data / "coco", args.model, args.clicks, overrides)
        results |= measure_absent(predictor, args.data / "coco")
    if "alphamatting" in wanted:
        results |= measure_alphamatting(args.data / "alphamatting", args.model, overrides)
    if "hair" in wanted and args.cutouts:
        results |= measure_hair(predictor, args.cutouts)
    if args.pictures:
        save_pictures(predictor, args.pictures)
    sizes = {name: getattr(predictor.model.config, name) for name in ("encoder_size", "refinement_size", "tile_size")}
    print(json.dumps({"model": args.model, **sizes, **results}))


if __name__ == "__main__":
    main()
