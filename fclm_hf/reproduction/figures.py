"""The figures that belong to tables: Fig. 4 and 5 compare mattes, Fig. 6 shows foreground tokens."""

from pathlib import Path

from ..data import open_source
from ..utils.files import write_json
from .comparison import Method, compare, save_comparison
from .options import ReproductionOptions
from .results import list_tests
from .tables import TABLES, Benchmark
from .tokens import describe_tokens, draw_pairs, draw_panels


IMAGES = 4
PAIRS, TOKENS = 32, 1000
PANELS = {"before alignment": "table5_without_alignment", "after alignment": "table5_full"}


def draw_figure(figure: str, options: ReproductionOptions, benchmarks: dict[str, Benchmark]) -> Path | None:
    """Draw a figure of the paper with the runs of the first seed.

    Args:
        figure: "figure4", "figure5" or "figure6".
        options: Options of the reproduction.
        benchmarks: What runs are tested on, by key.

    Returns:
        The picture; None if runs that it needs are not among those that were chosen, or no image has the given names.
    """
    path = options.out / f"{figure}.png"
    if figure == "figure6":
        return _draw_tokens(options, path)
    lines = [
        line
        for key, benchmark in benchmarks.items()
        for line in compare(
            options.data / benchmark.folder,
            benchmark.layout,
            benchmark.split,
            _list_methods(options, key, benchmarks),
            options.images,
            max(1, IMAGES // len(benchmarks)),
            options.device,
            options.dtype,
        )
    ]
    if not lines:
        return None
    save_comparison(lines, path)
    return path


def find_weights(options: ReproductionOptions, experiment: str) -> Path:
    """Return the weights of a run of the first seed."""
    return Path(options.make_arguments(experiment, options.seeds[0]).run.output_dir) / "last"


def _list_methods(options: ReproductionOptions, key: str, benchmarks: dict[str, Benchmark]) -> list[Method]:
    """Return the chosen runs that are tested on a benchmark."""
    return [
        Method(row.name, find_weights(options, each.experiment), each.prompt)
        for row in TABLES[options.table].rows
        for each in row.measurements
        if each.experiment in options.experiments and key in list_tests(each, benchmarks)
    ]


def _draw_tokens(options: ReproductionOptions, path: Path) -> Path | None:
    """Draw the tokens before and after alignment on pairs of the training data; write their values beside."""
    if not set(PANELS.values()) <= set(options.experiments):
        return None
    seed = options.seeds[0]
    arguments = options.make_arguments("table5_full", seed)
    sources = ([open_source(each) for each in part] for part in (arguments.data.sources, arguments.data.backgrounds))
    pairs = draw_pairs(*sources, arguments.data.composition, PAIRS, seed)
    values, panels = {}, {}
    for name, experiment in PANELS.items():
        values[name], points = describe_tokens(find_weights(options, experiment), pairs, TOKENS, seed)
        title = ", ".join(f"{key} {value:.3f}" for key, value in values[name].items())
        panels[f"{name}\n{title}"] = points
    draw_panels(panels, path)
    write_json(path.with_suffix(".json"), {**values, "pairs": PAIRS, "tokens": points.shape[1], "seed": seed})
    return path
