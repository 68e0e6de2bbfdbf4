"""Summaries: the results of all methods, their spread over checkpoints, tables and remarks."""

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
    """Return the summary of an evaluation: its data, settings, package versions and results.

    The checkpoints of one evaluation count as runs with different seeds: `spread` holds mean and standard deviation (of
    a sample, with n - 1) over them for each kind of prompt.

    Args:
        options: Options of the evaluation.
        layout: Name of the layout.
        protocol: Name of the protocol.
        results: Results of each method and kind of prompt.

    Returns:
        The summary, which survives a round trip through JSON.
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
    """Return mean and standard deviation of each metric over the results of several checkpoints."""
    values = {name: [result["measures"][name] for result in results] for name in results[0]["measures"]}
    return {
        "prompt": results[0]["prompt"],
        "checkpoints": len(results),
        "measures": {name: {"mean": mean(each), "std": stdev(each)} for name, each in values.items()},
    }


def make_table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of text: a row per method and kind of prompt, then the rows of the spread."""
    names = list(dict.fromkeys(name for result in summary["results"] for name in result["measures"]))
    header = ["method", "prompt", "objects", "missing", *names]
    rows = [
        [
            result["method"],
            result["prompt"],
            str(result["objects"]),
            str(result["missing"]),
            *(format_value(result["measures"].get(name)) for name in names),
        ]
        for result in summary["results"]
    ]
    for spread in summary.get("spread", ()):
        values = [spread["measures"].get(name) for name in names]
        cells = [f"{format_value(each['mean'])} ± {format_value(each['std'])}" if each else "" for each in values]
        rows.append([f"mean ± std of {spread['checkpoints']}", spread["prompt"], "", "", *cells])
    return header, rows


def format_value(value: float | None) -> str:
    """Format a value with four significant digits and without an exponent; None as an empty string."""
    if value is None:
        return ""
    if value == 0 or isinstance(value, int):
        return f"{value:g}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def list_remarks(summary: dict[str, Any]) -> Iterator[str]:
    """Yield remarks on what the table does not show: skipped objects, missing and unused mattes, few trimaps."""
    for result in summary["results"]:
        method, objects = result["method"], result["objects"]
        if result["skipped"]:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in result["skipped"].items())
            yield f"{method}: some objects have no prompt of kind {result['prompt']} ({reasons})"
        if result["missing"]:
            yield f"{method}: {result['missing']} of {objects} mattes are missing and count as empty or missed"
        if unused := result["unused"]:
            yield f"{method}: {len(unused)} mattes belong to no prompted object, the first is {unused[0]}"
        if 0 < result["trimaps"] < objects:
            yield f"{method}: metrics over trimaps cover {result['trimaps']} of {objects} objects"
