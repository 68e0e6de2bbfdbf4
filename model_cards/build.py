"""Build the model cards from summary files, and optionally the summary files first.

    python model_cards/build.py                  # all cards, from the summaries in model_cards/
    python model_cards/build.py --data DIR --training-set SET --training "What was done."

With --data, fclm-lite and what a user might use instead are measured on DIR/alphamatting and DIR/coco (with the layout
that research/real_photos.py describes); the summaries, facts and comparison in model_cards/fclm-lite/ are
replaced. An interrupted run is resumed. --training-set is a folder made by research/build_training_set.py, whose
sources and licenses are counted; --training is a note on the training. Both are kept until they are given again.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData

from fclm_hf import FCLMConfig, FCLMForImageMatting
from fclm_hf.cli.evaluate import track_with_rich
from fclm_hf.evaluation import EvaluationOptions, evaluate
from fclm_hf.evaluation.card_tables import (
    METHODS,
    METRICS,
    format_markdown,
    make_command,
    make_eval_results,
    make_markdown,
    make_paper_results,
)
from fclm_hf.evaluation.comparison import draw_comparison, save_picture, stack_pictures
from fclm_hf.evaluation.layouts import open_folder
from fclm_hf.evaluation.predictors import fingerprint_checkpoint
from fclm_hf.evaluation.summary import format_value
from fclm_hf.utils.files import write_bytes, write_json


HERE = Path(__file__).parent
LITE = "fclm-lite"
CHECKPOINT = Path("fclm_hf") / "checkpoints" / LITE
BASELINES = list(METHODS)
PROMPTS = ["box", "point", "text", "none", "mask", "trimap"]
SHOWN = {"alphamatting": ["sad", "mse", "gradient", "connectivity", "connectivity_gca"], "coco": ["iou", "solidity"]}
TAGS = ["fclm", "image-matting", "referring-matting"]


def measure_lite(data: Path, runs: Path, folder: Path) -> None:
    """Measure fclm-lite and replace the summaries, the comparison and the facts of the checkpoint in `folder`."""
    pictures = []
    fingerprint = fingerprint_checkpoint(str(CHECKPOINT))
    for name in SHOWN:
        earlier = runs / name / LITE
        if (earlier / "method.json").is_file() and read_json(earlier / "method.json")["fingerprint"] != fingerprint:
            shutil.rmtree(earlier)  # of another checkpoint; the results of the baselines are still valid
        options = EvaluationOptions(
            data=str(data / name),
            out=runs / name,
            models=[str(CHECKPOINT)],
            baselines=BASELINES,
            prompts=PROMPTS,
            template="{CLS}",
            known_words=name == "coco",  # the few photos of alphamatting.com should all be named
            save_mattes=True,
        )
        summary = evaluate(options, track_with_rich)
        summary["benchmark"]["data"] = name  # paths of this machine are not published
        for result in summary["results"]:
            result["source"] = result["method"]
        write_json(folder / f"{name}.json", summary)
        benchmark = open_folder(data / name)
        pictures.append(draw_comparison(benchmark, runs / name / LITE / "box", benchmark.protocol))
    save_picture(stack_pictures(pictures), folder / "comparison.jpg")
    model = FCLMForImageMatting.from_pretrained(CHECKPOINT)
    write_json(
        folder / "checkpoint.json",
        {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "bytes": sum(path.stat().st_size for path in CHECKPOINT.glob("*.safetensors")),
            "vocabulary": model.config.text_config.vocab_size,
            "fingerprint": fingerprint,
        },
    )


def read_license(row: dict[str, str]) -> str:
    """Return the license of an image of a training set; sets of release 0.1 spell the key differently."""
    return row["license"] if "license" in row else row["licence"]  # codespell:ignore licence


def describe_training(path: Path, training_set: Path | None, note: str | None) -> None:
    """Replace the sources of the training set and the note in the facts on training, if they are given."""
    facts = read_json(path) if path.is_file() else {"note": "", "foregrounds": [], "backgrounds": []}
    if note is not None:
        facts["note"] = note
    if training_set is not None:
        entries = {name: read_json(training_set / f"{name}.json") for name in ("foregrounds", "backgrounds")}
        foregrounds = Counter((row["origin"], read_license(row)) for row in entries["foregrounds"])
        backgrounds = Counter((row["origin"], read_license(row)) for row in entries["backgrounds"])
        for key, counts in (("foregrounds", foregrounds), ("backgrounds", backgrounds)):
            facts[key] = [
                {"origin": origin, "license": name, "count": count} for (origin, name), count in counts.most_common()
            ]
    write_json(path, facts)


def build_lite(facts: Path, out: Path) -> None:
    """Write the card of fclm-lite from the files in `facts`."""
    summaries = {name: read_json(facts / f"{name}.json") for name in SHOWN}
    checkpoint = read_json(facts / "checkpoint.json")
    data = ModelCardData(
        model_name=LITE,
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-segmentation",
        base_model="timm/tf_efficientnet_lite0.in1k",
        tags=TAGS,
        eval_results=[result for summary in summaries.values() for result in make_eval_results(summary)],
    )
    sections = {
        name: {
            "table": make_markdown(summary, list_shown(name, summary)),
            "command": make_command(summary, f"DIR/{name}", f"OUT/{name}", str(CHECKPOINT)),
            "images": find_result(summary, LITE, "box")["images"],
        }
        for name, summary in summaries.items()
    }
    versions = summaries["coco"]["versions"]
    card = ModelCard.from_template(
        data,
        template_path=str(HERE / "templates" / f"{LITE}.md"),
        parameters=f"{checkpoint['parameters'] / 1e6:.1f}",
        megabytes=f"{checkpoint['bytes'] / 1e6:.1f}",
        vocabulary=checkpoint["vocabulary"],
        torch=f"torch {versions['torch']}, transformers {versions['transformers']}, on a CPU",
        training=read_json(facts / "training.json"),
        weaker_than=list(compare_with_baselines(summaries)),
        **sections,
    )
    write_card(card, out)


def list_shown(name: str, summary: dict[str, Any]) -> list[str]:
    """Return the metrics that the card shows of a data set, as far as its summary has them."""
    return [metric for metric in SHOWN[name] if any(metric in each["measures"] for each in summary["results"])]


def compare_with_baselines(summaries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each baseline that beats the checkpoint when prompted with boxes."""
    for name, summary in summaries.items():
        metric = SHOWN[name][0]
        sign = 1 if metric == "iou" else -1
        own = find_result(summary, LITE, "box")["measures"][metric]
        for baseline in BASELINES:
            other = find_result(summary, baseline, "box")["measures"][metric]
            if sign * (other - own) > 0:
                label = METHODS[baseline].strip("*")
                yield (
                    f"With boxes, {label} beats it on the {name} photos: {METRICS[metric]} {format_value(other)}"
                    f" against {format_value(own)}."
                )


def build_paper_card(name: str, facts: dict[str, Any], source: dict[str, str], out: Path) -> None:
    """Write the card of one of the paper's models: settings and results as printed, no weights."""
    entries = facts["results"]
    with torch.device("meta"):
        model = FCLMForImageMatting(FCLMConfig.from_preset(facts["preset"]))
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    data = ModelCardData(
        model_name=name,
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=[*TAGS, "no-weights"],
        eval_results=[result for entry in entries for result in make_paper_results(entry, source)],
    )
    rows = [["data set", "prompt", "metric", "the paper's result", "table"]]
    rows += [
        [entry["dataset"], entry["prompt"], METRICS[metric], f"{value:g}", entry["table"]]
        for entry in entries
        for metric, value in entry["measures"].items()
    ]
    card = ModelCard.from_template(
        data,
        template_path=str(HERE / "templates" / "paper.md"),
        name=name,
        source=source,
        table=format_markdown(rows),
        parameters=f"{sum(size for size, _ in sizes) / 1e6:.1f}",
        trainable=f"{sum(size for size, trained in sizes if trained) / 1e6:.1f}",
        **{**facts, "commands": "\n".join(facts["commands"])},
    )
    write_card(card, out)


def find_result(summary: dict[str, Any], method: str, prompt: str) -> dict[str, Any]:
    """Return the result of a method and kind of prompt."""
    return next(r for r in summary["results"] if (r["method"], r["prompt"]) == (method, prompt))


def write_card(card: ModelCard, path: Path) -> None:
    """Write a card atomically and print its path."""
    write_bytes(path, (str(card).rstrip() + "\n").encode())
    print(path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with alphamatting/ and coco/, to measure fclm-lite first")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "model_cards", help="folder for the evaluations")
    parser.add_argument("--training-set", type=Path, help="folder with foregrounds.json and backgrounds.json")
    parser.add_argument("--training", help="note on how the checkpoint was trained, for the card")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    facts = HERE / LITE
    if not CHECKPOINT.is_dir():
        parser.error(f"{CHECKPOINT} does not exist: run this script from the root of the repository")
    for option, folder, names in (
        ("--data", args.data, [f"{name}/index.json" for name in SHOWN]),
        ("--training-set", args.training_set, ["foregrounds.json", "backgrounds.json"]),
    ):
        if missing := [name for name in names if folder is not None and not (folder / name).is_file()]:
            parser.error(f"{option}: {folder} lacks {', '.join(missing)}")
    if args.data is not None:
        measure_lite(args.data, args.runs, facts)
    describe_training(facts / "training.json", args.training_set, args.training)
    if read_json(facts / "checkpoint.json")["fingerprint"] != fingerprint_checkpoint(str(CHECKPOINT)):
        sys.exit(f"{facts} must hold results of {CHECKPOINT}, got those of another checkpoint: measure it with --data.")
    build_lite(facts, facts / "README.md")
    paper = read_json(HERE / "paper.json")
    for name, card in paper["cards"].items():
        build_paper_card(name, card, paper["source"], HERE / name / "README.md")


if __name__ == "__main__":
    main()
