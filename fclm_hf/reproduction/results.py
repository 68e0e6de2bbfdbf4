"""Tables of results: the paper's figures beside ours, as Markdown and JSON."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..evaluation.summary import format_value
from ..utils.files import write_bytes, write_json
from .tables import (
    BENCHMARKS,
    METRICS,
    TABLES,
    Benchmark,
    Measurement,
    Row,
    is_measured,
    list_columns,
    list_paper_figures,
)


Measures = Mapping[tuple[str, str, str], Mapping[int, Mapping[str, float]]]  # experiment, benchmark, prompt > seed
Column = tuple[str, str]  # key of a benchmark, name of a metric


def write_table(
    folder: Path,
    table: str,
    experiments: list[str],
    benchmarks: dict[str, Benchmark],
    measures: Measures,
    about: dict[str, Any],
) -> str:
    """Write `<table>.md` and `<table>.json` atomically.

    Args:
        folder: Folder of the files.
        table: Key of TABLES.
        experiments: The runs that were chosen.
        benchmarks: What they are tested on, by key.
        measures: Metrics by run, benchmark and prompt, and by seed.
        about: What the JSON file says about the runs.

    Returns:
        The Markdown.
    """
    rows = [describe_row(row, benchmarks, measures, experiments) for row in TABLES[table].rows]
    text = make_markdown(table, benchmarks, rows)
    summary = {
        "table": table,
        "title": TABLES[table].title,
        "rows": [{"name": row["name"], "paper": _nest(row["paper"]), "here": _nest(row["here"])} for row in rows],
        **about,
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "python": platform.python_version(),
    }
    write_json(folder / f"{table}.json", summary)
    write_bytes(folder / f"{table}.md", text.encode())
    return text


def describe_row(
    row: Row, benchmarks: dict[str, Benchmark], measures: Measures, experiments: list[str]
) -> dict[str, Any]:
    """Return the name of a row, and by column the paper's figure and mean, spread and values of ours.

    Args:
        row: The row.
        benchmarks: What runs are tested on, by key.
        measures: Metrics by run, benchmark and prompt, and by seed.
        experiments: The runs that were chosen.
    """
    here: dict[Column, dict[str, Any]] = {}
    for each in row.measurements:
        for key in list_tests(each, benchmarks):
            found = measures.get((each.experiment, key, each.prompt), {})
            for metric in benchmarks[key].metrics:
                values = {seed: metrics[metric] for seed, metrics in found.items() if metric in metrics}
                if values:
                    here[key, metric] = _summarize(values)
    return {
        "name": row.name,
        "paper": list_paper_figures(row),
        "here": here,
        "chosen": is_measured(row, experiments),
    }


def list_tests(measurement: Measurement, benchmarks: dict[str, Benchmark]) -> list[str]:
    """Return the keys of what a run is tested on: the paper's benchmark, or all that the user chose instead."""
    return [key for key in benchmarks if key == measurement.benchmark or key not in BENCHMARKS]


def _summarize(values: dict[int, float]) -> dict[str, Any]:
    """Return mean, standard deviation (of a sample) and values by seed."""
    numbers = list(values.values())
    spread = {"std": stdev(numbers)} if len(numbers) > 1 else {}
    return {"mean": mean(numbers), **spread, "seeds": {str(seed): value for seed, value in values.items()}}


def make_markdown(table: str, benchmarks: dict[str, Benchmark], rows: list[dict[str, Any]]) -> str:
    """Return a table as Markdown: the paper's figures and ours in lines of their own, or in one where both fit.

    Args:
        table: Key of TABLES.
        benchmarks: What runs are tested on, by key.
        rows: Rows as [`describe_row`] returns them.
    """
    paper = {key: BENCHMARKS[key] for key in TABLES[table].benchmarks}
    columns = list_columns({**paper, **benchmarks})
    titles = [_title({**paper, **benchmarks}[key].title, metric) for key, metric in columns]
    are_separate = not paper.keys() & benchmarks.keys()
    if are_separate:
        titles = [f"paper: {title}" if key in paper else title for title, (key, _) in zip(titles, columns, strict=True)]
    lines = [f"**{TABLES[table].title}**", "", f"| | {' | '.join(titles)} |", "|---|" + "---|" * len(columns)]
    for name, cells in (line for row in rows for line in _list_lines(row, are_separate)):
        lines.append(f"| {name} | {' | '.join(cells.get(column, '') for column in columns)} |")
    return "\n".join(lines) + "\n"


def _title(benchmark: str, metric: str) -> str:
    """Return the heading of a column."""
    name, is_higher_better = METRICS[metric]
    return f"{benchmark} {name} {'↑' if is_higher_better else '↓'}"


def _list_lines(row: dict[str, Any], are_separate: bool) -> list[tuple[str, dict[Column, str]]]:
    """Return the lines of a row with the text of their cells: two, or one if our figures have columns of their own."""
    paper = {column: f"{figure:g}" for column, figure in row["paper"].items()}
    here = {column: _describe(result) for column, result in row["here"].items()}
    if not row["chosen"]:
        return [(row["name"], paper)] if paper else []
    if not paper or are_separate:
        return [(row["name"], {**paper, **here})]
    return [(f"{row['name']}, paper", paper), (f"{row['name']}, here", here)]


def _describe(result: dict[str, Any]) -> str:
    """Return mean and standard deviation as text."""
    spread = f" ± {result['std']:.2g}" if "std" in result else ""
    return f"{format_value(result['mean'])}{spread}"


def _nest(cells: dict[Column, Any]) -> dict[str, dict[str, Any]]:
    """Return cells by benchmark and metric, as JSON needs it."""
    nested: dict[str, dict[str, Any]] = {}
    for (key, metric), value in cells.items():
        nested.setdefault(key, {})[metric] = value
    return nested
