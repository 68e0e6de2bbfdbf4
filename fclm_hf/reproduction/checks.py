"""What a reproduction needs, checked before any work: data sets, packages, and runs that it can continue."""

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data import SourceConfig, open_source
from ..data.sources.layouts import SOURCE_LAYOUTS, find_missing
from ..evaluation.layouts import open_folder
from ..evaluation.protocols import PROTOCOLS
from ..training.arguments import Arguments
from ..training.checkpointing import CheckpointFolder, choose_checkpoint, read_checkpoint
from .options import ReproductionOptions
from .tables import BENCHMARKS, PROTOCOL_METRICS, TABLES, Benchmark


def choose_benchmarks(options: ReproductionOptions) -> dict[str, Benchmark]:
    """Return what the runs are tested on: the benchmarks of the table that the chosen rows need, or other folders.

    Raises:
        ValueError: If one of the other folders is no benchmark.
    """
    if options.tests:
        return {f"tests/{name}": _open_other(options.data / name, name) for name in options.tests}
    table = TABLES[options.table]
    measured = [each for row in table.rows for each in row.measurements if each.experiment in options.experiments]
    return {key: BENCHMARKS[key] for key in table.benchmarks if any(each.benchmark == key for each in measured)}


def _open_other(folder: Path, name: str) -> Benchmark:
    """Return the benchmark in a folder."""
    found = open_folder(folder)
    if found is None:
        raise ValueError(f"tests must be folders of benchmarks that fclm evaluate reads, got {folder}.")
    return Benchmark(Path(name).name, name, found.layout, None, PROTOCOL_METRICS[found.protocol])


def check_everything(options: ReproductionOptions, runs: Iterable[Arguments], tests: Iterable[Benchmark]) -> None:
    """Check that all data sets and packages are there, and that runs in the output folder can be continued.

    Raises:
        ValueError: If data is missing, of which the error lists all, or the output folder holds other runs.
        ImportError: If packages are missing.
    """
    runs, tests = list(runs), list(tests)
    sources = {repr(each): each for run in runs for each in (*run.data.sources, *run.data.backgrounds)}
    problems = [problem for each in sources.values() for problem in _check_source(each)]
    problems += [problem for each in tests for problem in _check_benchmark(options.data, each)]
    if problems:
        listed = "\n".join(f"  {each}" for each in dict.fromkeys(problems))
        raise ValueError(f"{options.data} must hold the data of {options.table}, but:\n{listed}")
    for each in tests:
        PROTOCOLS[_find_protocol(each)].make_metrics()  # raises if a package is missing
    missing = [name for name in ("matplotlib", "sklearn") if importlib.util.find_spec(name) is None]
    if missing and options.figures and TABLES[options.table].figure == "figure6":
        raise ImportError(
            f'Figure 6 needs {" and ".join(missing)}: pip install "fclm-hf[figures]", or add --no-figures.'
        )
    for run in runs:
        _check_run(run)


def _check_run(run: Arguments) -> None:
    """Raise a ValueError if a run has begun with other arguments, in whatever number of processes."""
    checkpoints = CheckpointFolder(Path(run.run.output_dir) / "checkpoints", 1)
    path = checkpoints.find("latest")
    if path is not None:
        choose_checkpoint(checkpoints, run, num_processes=len(read_checkpoint(path, mmap=True)["processes"]))


def _check_source(source: SourceConfig) -> Iterator[str]:
    """Yield what a data set of the training lacks."""
    if source.layout is not None:
        missing = [f"{path} is missing" for path in find_missing(source.layout, Path(source.path), source.split)]
        if missing:
            yield from missing
            return
    try:
        open_source(source)
    except (OSError, ValueError) as error:
        yield str(error)


def _check_benchmark(root: Path, benchmark: Benchmark) -> Iterator[str]:
    """Yield what a data set of the tests lacks."""
    folder = root / benchmark.folder
    if benchmark.layout in SOURCE_LAYOUTS and benchmark.split is not None:
        missing = [f"{path} is missing" for path in find_missing(benchmark.layout, folder, benchmark.split)]
        if missing:
            yield from missing
            return
    try:
        open_folder(folder, benchmark.layout, benchmark.split)
    except ValueError as error:
        yield str(error)


def _find_protocol(benchmark: Benchmark) -> str:
    """Return the protocol of a benchmark."""
    return next(name for name, metrics in PROTOCOL_METRICS.items() if set(benchmark.metrics) & set(metrics))
