"""Table 5 on the lite model: training on pairs without alignment, with each of its two losses, and with both.

    python research/ablate_alignment.py --train SET --real PHOTOS --output RUNS [--steps 60] [--seeds 0 1 2]

SET is a folder as `research/build_training_set.py` writes it, PHOTOS one as `research/real_photos.py` reads.
All runs start from the same checkpoint (`--init`, by default the embedded fclm-lite), take the same number of steps on
the same pairs and differ only in the alignment; there is no distillation. The metrics of finished runs are kept in RUNS
and not measured again. The table is Markdown, mean and standard deviation over seeds; the last line of the output is
JSON.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import evaluate_real_photos
from training_set import GENERAL_NAMES

from fclm_hf import LITE_CHECKPOINT
from fclm_hf.training.command_line import parse_arguments
from fclm_hf.training.trainer import Trainer
from fclm_hf.utils.files import write_bytes


ROWS = {
    "none": "w/o alignment",
    "adversarial": "L_adv",
    "transport": "L_OT",
    "full": "L_adv + L_OT",
}
# heading of a column -> keys of the metric in the results of evaluate_real_photos.py
METRICS = {
    "alphamatting SAD, box": ("alphamatting", "box", "sad"),
    "alphamatting MSE, box": ("alphamatting", "box", "mse"),
    "alphamatting SAD, none": ("alphamatting", "none", "sad"),
    "COCO IoU, box": ("coco", "box", "iou"),
    "COCO IoU, none": ("coco", "none", "iou"),
}


def train(args: argparse.Namespace, alignment: str, seed: int) -> Path:
    """Run `fclm train` for a row of the table; return the folder of its weights. An interrupted run is resumed."""
    out = args.output / f"{alignment}_{seed}"
    options = {
        "model": args.init,
        "freeze_stages": 2,
        "settings": {"distillation": "none", "alignment": alignment},
        "sources": {"path": str(args.train), "kind": "rgba", "general_names": GENERAL_NAMES},
        "backgrounds": {"path": str(args.train), "kind": "background"},
        "composition": {"size": args.size},
        "prompts_per_image": 2,
        "output_dir": str(out),
        "max_steps": args.steps,
        "per_device_train_batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "backbone_lr_multiplier": 0.2,
        "weight_decay": 0.02,
        "lr_scheduler_type": "linear",
        "seed": seed,
        "resume_from_checkpoint": "latest",
    }
    flags = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]
    if stop := Trainer(parse_arguments(flags)).train():
        raise SystemExit(128 + stop)
    return out / "last"


def measure(args: argparse.Namespace, alignment: str, seed: int) -> dict:
    """Return the metrics of a run, from its file if it is finished."""
    path = args.output / f"{alignment}_{seed}.json"
    if not path.is_file():
        model = train(args, alignment, seed) if seed >= 0 else args.init
        command = ["--data", str(args.real), "--model", str(model), "--prompts", "box", "none"]
        result = evaluate_real_photos.main(command)
        write_bytes(path, json.dumps({"steps": args.steps, **result}).encode())
    result = json.loads(path.read_text())
    if result["steps"] != args.steps:
        raise SystemExit(f"--steps must be {result['steps']}, as in {path}, got {args.steps}.")
    return result


def describe(values: list[float]) -> str:
    """Return mean and standard deviation as text."""
    return f"{mean(values):.4g} ± {stdev(values):.2g}" if len(values) > 1 else f"{values[0]:.4g}"


def make_table(results: dict[str, list[dict]]) -> str:
    """Return the Markdown table of the metrics of all rows and seeds."""
    metrics = {
        name: keys for name, keys in METRICS.items() if all(keys[0] in run for runs in results.values() for run in runs)
    }
    lines = [f"| | {' | '.join(metrics)} |", "|---|" + "---|" * len(metrics)]
    for row, runs in results.items():
        cells = [describe([run[photos][prompt][key] for run in runs]) for photos, prompt, key in metrics.values()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, list[dict]]:
    """Train and measure every row; print the table and return the metrics of each run by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="training set")
    parser.add_argument("--real", type=Path, required=True, help="real photos to measure on")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--init", default=LITE_CHECKPOINT, help="checkpoint that all runs start from")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=4, help="pairs per step")
    parser.add_argument("--size", type=int, default=256, help="side of a composite in pixels")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(argv)
    if args.steps < 1 or min(args.seeds) < 0:
        parser.error("--steps must be at least 1, and --seeds not negative")
    for name in ("train", "real"):
        if not getattr(args, name).is_dir():
            parser.error(f"--{name}: {getattr(args, name)} is not a folder")
    args.output.mkdir(parents=True, exist_ok=True)
    results = {"before": [measure(args, "start", -1)]}
    for alignment, row in ROWS.items():
        results[row] = [measure(args, alignment, seed) for seed in args.seeds]
    print(make_table(results))
    print(json.dumps(results))
    return results


if __name__ == "__main__":
    main()
