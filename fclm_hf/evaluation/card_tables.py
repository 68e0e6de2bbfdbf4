"""Content of model cards from summaries: tables in Markdown, results in the metadata, and commands."""

import shlex
from typing import Any

from huggingface_hub import EvalResult

from .summary import format_value


TASK = {"task_type": "image-segmentation", "task_name": "Referring image matting"}
DATASETS = {
    "refmatte-rw100": "RefMatte-RW100",
    "him2k": "HIM2K",
    "dis5k": "DIS5K",
    "alphamatting": "alphamatting.com",
    "dev-coco": "COCO 2017, development photos",
    "dev-alphamatting": "alphamatting.com, development photos",
}
METRICS = {
    "sad": "SAD (thousands)",
    "mse": "MSE",
    "mad": "MAD",
    "gradient": "Grad",
    "connectivity": "Conn",
    "connectivity_gca": "Conn (gca)",
    "iou": "IoU",
    "solidity": "solidity",
    **{f"iou_click{number}": f"IoU, {number} click{'s' if number > 1 else ''}" for number in range(1, 6)},
    "noc85": "NoC@85",
    "noc90": "NoC@90",
    "imq_mad": "IMQ MAD",
    "imq_mse": "IMQ MSE",
    "imq_grad": "IMQ Grad",
    "imq_conn": "IMQ Conn",
    "max_f": "max F",
    "weighted_f": "weighted F",
    "mae": "M",
    "s_measure": "S",
    "mean_e": "mean E",
    "hce": "HCE",
}
PROMPTS = {"none": "none (automatic)"}
METHODS = {
    "box-as-mask": "*the box itself as the mask*",
    "grabcut": "*GrabCut from the box (OpenCV)*",
    "closed-form": "*closed-form matting from a trimap made of the box (pymatting)*",
}


def make_eval_results(summary: dict[str, Any]) -> list[EvalResult]:
    """Return the results of the one checkpoint in a summary, as metadata of a model card.

    Raises:
        ValueError: If the summary holds results of several checkpoints, or of none.
    """
    results = [result for result in summary["results"] if result["kind"] == "checkpoint"]
    if len({result["method"] for result in results}) != 1:
        raise ValueError("summary must hold results of one checkpoint, which the card describes.")
    benchmark = summary["benchmark"]
    return [
        EvalResult(
            **TASK,
            dataset_type=benchmark["layout"],
            dataset_name=DATASETS.get(benchmark["layout"], benchmark["layout"]),
            dataset_split=benchmark["split"],
            dataset_config=f"prompt: {result['prompt']}",
            metric_type=name,
            metric_name=title,
            metric_value=result["measures"][name],
        )
        for result in results
        for name, title in METRICS.items()
        if name in result["measures"]
    ]


def make_paper_results(entry: dict[str, Any], source: dict[str, str]) -> list[EvalResult]:
    """Return results that a paper prints, as metadata of a model card that names the paper as their source."""
    return [
        EvalResult(
            **TASK,
            dataset_type=entry["layout"],
            dataset_name=entry["dataset"],
            dataset_config=f"prompt: {entry['prompt']}",
            metric_type=name,
            metric_name=METRICS[name],
            metric_value=value,
            source_name=f"{source['name']}, Table {entry['table']}",
            source_url=source["url"],
        )
        for name, value in entry["measures"].items()
    ]


def make_markdown(summary: dict[str, Any], metrics: list[str]) -> str:
    """Return a Markdown table of metrics with a row per kind of prompt of the checkpoint, and one per baseline."""
    rows = [["prompt", "objects", *(METRICS[name] for name in metrics)]]
    for result in summary["results"]:
        label = METHODS.get(result["method"], PROMPTS.get(result["prompt"], result["prompt"]))
        values = (format_value(result["measures"].get(name)) for name in metrics)
        rows.append([label, str(result["objects"]), *values])
    return format_markdown(rows)


def format_markdown(rows: list[list[str]]) -> str:
    """Return a Markdown table, whose header is the first row."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def make_command(summary: dict[str, Any], data: str, out: str, model: str) -> str:
    """Return the command that reproduces a summary, with placeholders for the folders of this machine."""
    results, settings = summary["results"], summary["settings"]
    prompts = dict.fromkeys(result["prompt"] for result in results if result["kind"] == "checkpoint")
    words = ["fclm", "evaluate", data, "-o", out, "--model", model]
    words += [word for prompt in prompts for word in ("--prompt", prompt)]
    words += [word for name in METHODS if any(r["method"] == name for r in results) for word in ("--baseline", name)]
    if "text" in prompts:
        words += ["--template", settings["template"]]
    if settings.get("clicks", 1) > 1:
        words += ["--clicks", str(settings["clicks"])]
    if settings["known_words"]:
        words.append("--known-words")
    return shlex.join(words)
