"""Summaries: what the rows amount to, spread over checkpoints, and how to read it."""

import math
import platform
from collections.abc import Iterator
from importlib.metadata import version
from statistics import stdev
from typing import Any

from ..metrics.accumulator import mean
from .options import EvaluationOptions


def make_summary(
    options: EvaluationOptions, layout: str, protocol: str, results: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything that a reader of the figures needs, as JSON.

    Checkpoints of one call count as runs by different seeds: `spread` holds mean and standard deviation (of a sample,
    n - 1) over them for each kind of prompt.
    """
    summary = {
        "benchmark": {
            "data": options.data,
            "layout": layout,
            "split": options.split,
            "protocol": protocol,
            "limit": options.limit,
        },
        "settings": options.list_settings(),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "scipy")},
        "python": platform.python_version(),
        "results": results,
    }
    checkpoints = [result for result in results if result["kind"] == "checkpoint"]
    if len(options.models) > 1:
        summary["spread"] = [
            measure_spread([result for result in checkpoints if result["prompt"] == prompt])
            for prompt in options.prompts
        ]
    return summary


def measure_spread(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each measure over the results of several checkpoints."""
    values = {name: [result["measures"][name] for result in results] for name in results[0]["measures"]}
    return {
        "prompt": results[0]["prompt"],
        "checkpoints": len(results),
        "measures": {name: {"mean": mean(each), "std": stdev(each)} for name, each in values.items()},
    }


def make_table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text, one row per method and kind of prompt, then those of the spread."""
    names = list(dict.fromkeys(name for result in summary["results"] for name in result["measures"]))
    header = ["method", "prompt", "objects", "missing", *names]
    rows = [
        [
            result["method"],
            result["prompt"],
            str(result["objects"]),
            str(result["missing"]),
            *(format_figure(result["measures"].get(name)) for name in names),
        ]
        for result in summary["results"]
    ]
    for spread in summary.get("spread", ()):
        figures = [spread["measures"].get(name) for name in names]
        cells = [f"{format_figure(each['mean'])} ± {format_figure(each['std'])}" if each else "" for each in figures]
        rows.append([f"mean ± std of {spread['checkpoints']}", spread["prompt"], "", "", *cells])
    return header, rows


def format_figure(value: float | None) -> str:
    """Four significant digits, without an exponent."""
    if value is None:
        return ""
    if value == 0 or isinstance(value, int):
        return f"{value:g}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def list_remarks(summary: dict[str, Any]) -> Iterator[str]:
    """What the table does not show, or hides in a column."""
    for result in summary["results"]:
        method, objects = result["method"], result["objects"]
        if result["skipped"]:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in result["skipped"].items())
            yield f"{method}: {result['prompt']} cannot name some objects ({reasons})"
        if result["missing"]:
            yield f"{method}: {result['missing']} of {objects} mattes are missing: they count as empty or as missed"
        if unused := result["unused"]:
            yield f"{method}: {len(unused)} mattes belong to no object that was asked for, the first is {unused[0]}"
        if 0 < result["trimaps"] < objects:
            yield f"{method}: figures of trimaps are of {result['trimaps']} of {objects} objects"
