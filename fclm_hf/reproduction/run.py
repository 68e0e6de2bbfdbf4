"""Reproduction of a table: runs are trained where they are missing, tested, and written as the paper prints them."""

import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.evaluator import Track, evaluate
from ..evaluation.options import EvaluationOptions
from ..training.arguments import Arguments
from ..training.checkpointing import CheckpointFolder
from ..training.trainer import Trainer
from ..utils.files import write_bytes
from .checks import check_everything, choose_benchmarks
from .figures import draw_figure
from .options import ReproductionOptions
from .results import list_tests, write_table
from .tables import TABLES, Benchmark, Measurement


Say = Callable[[str], None]


class StoppedError(Exception):
    """Raised when a signal stopped a run, after a checkpoint was saved.

    Args:
        signal: Number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"A signal ({signal}) stopped the run; the same command continues it.")
        self.signal = signal


def reproduce(
    options: ReproductionOptions,
    say: Say = print,
    track: Track = lambda samples, description, total: samples,
) -> str:
    """Reproduce a table of the paper: train what is missing, test it, and write the table and its figure.

    Whatever is in the output folder is continued: runs at their last checkpoint, tests at the next image. The table is
    written after each run, with what is known by then.

    Args:
        options: Options of the reproduction.
        say: Function that shows what is done next.
        track: Function that wraps samples to show progress, see [`~fclm_hf.evaluation.evaluate`].

    Returns:
        The table as Markdown.

    Raises:
        ValueError: If data is missing, or an option does not fit that of a run in the output folder.
        ImportError: If a package is missing.
        OSError: If a checkpoint cannot be loaded, or a file cannot be written.
        RuntimeError: If a launched run failed.
        StoppedError: If a signal stopped a run.

    Example:
        >>> from fclm_hf.reproduction import ReproductionOptions, reproduce
        >>> reproduce(ReproductionOptions("table5", data="nowhere", out="out"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: nowhere must hold the data of table5, but:
        ...
    """
    work = Reproduction(options, track)
    for seed in options.seeds:  # all rows by the first seed before any by the second
        for experiment in options.experiments:
            work.train(experiment, seed, say)
            work.measure(experiment, seed, say)
            text = work.write()
    if options.figures and (figure := TABLES[options.table].figure):
        say(f"Drawing {figure}")
        draw_figure(figure, options, work.benchmarks)
    return text


class Reproduction:
    """The runs of a table and their metrics. Creating it checks everything that can be checked before any work.

    Args:
        options: Options of the reproduction.
        track: Function that wraps samples to show progress.

    Raises:
        ValueError: See [`reproduce`].
        ImportError: See [`reproduce`].
    """

    def __init__(self, options: ReproductionOptions, track: Track) -> None:
        self.options, self.track = options, track
        self.runs = {
            (experiment, seed): options.make_arguments(experiment, seed)
            for experiment in options.experiments
            for seed in options.seeds
        }
        self.benchmarks = choose_benchmarks(options)
        check_everything(options, self.runs.values(), self.benchmarks.values())
        self.measures: dict[tuple[str, str, str], dict[int, dict[str, float]]] = {}

    def train(self, experiment: str, seed: int, say: Say) -> None:
        """Train a run unless it is complete."""
        arguments = self.runs[experiment, seed]
        folder = Path(arguments.run.output_dir)
        if is_trained(arguments):
            return
        say(f"Training {folder}")
        stop = launch(arguments, self.options.launcher) if self.options.launcher else Trainer(arguments).train()
        if stop:
            raise StoppedError(stop)

    def measure(self, experiment: str, seed: int, say: Say) -> None:
        """Test a run as each of its measurements asks for."""
        for each in self._list_measurements(experiment):
            for key in list_tests(each, self.benchmarks):
                found = self.measures.setdefault((experiment, key, each.prompt), {})
                if seed not in found:
                    found[seed] = self._test(experiment, seed, self.benchmarks[key], each.prompt, say)

    def write(self) -> str:
        """Write the table; return it as Markdown."""
        options = self.options
        about = {
            "runs": {
                experiment: self.runs[experiment, options.seeds[0]].run.output_dir.rpartition("/")[0]
                for experiment in options.experiments
            },
            "steps": {name: self.runs[name, options.seeds[0]].run.max_steps for name in options.experiments},
            "tests": {key: each.folder for key, each in self.benchmarks.items()},
            "limit": options.limit,
        }
        return write_table(options.out, options.table, options.experiments, self.benchmarks, self.measures, about)

    def _list_measurements(self, experiment: str) -> list[Measurement]:
        """Return the measurements of a run in the table."""
        rows = TABLES[self.options.table].rows
        return [each for row in rows for each in row.measurements if each.experiment == experiment]

    def _test(self, experiment: str, seed: int, benchmark: Benchmark, prompt: str, say: Say) -> dict[str, Any]:
        """Return the metrics of a run on a benchmark; finished images are not measured again."""
        options, run = self.options, self.runs[experiment, seed].run
        folder = Path(run.output_dir)
        place = options.out / "results" / folder.parent.name / folder.name / f"step-{run.max_steps}"
        say(f"Testing {folder} on {benchmark.title} by {prompt}")
        summary = evaluate(
            EvaluationOptions(
                data=str(options.data / benchmark.folder),
                out=place / benchmark.title,
                layout=benchmark.layout,
                split=benchmark.split,
                models=[str(folder / "last")],
                prompts=[prompt],
                limit=options.limit,
                workers=options.workers,
                device=options.device,
                dtype=options.dtype,
            ),
            self.track,
        )
        return summary["results"][0]["measures"]


def launch(arguments: Arguments, launcher: Sequence[str]) -> int:
    """Train a run in processes of its own, by `fclm train` with a configuration that is written beside the run.

    Args:
        arguments: Arguments of the run.
        launcher: Words before `-m fclm_hf.cli train`, such as `["accelerate", "launch", "--num_processes", "4"]`.

    Returns:
        The number of the signal that stopped it, or 0.

    Raises:
        RuntimeError: If it failed.
    """
    path = Path(arguments.run.output_dir).with_suffix(".yaml")
    write_bytes(path, arguments.to_yaml().encode())
    command = [*launcher, "-m", "fclm_hf.cli", "train", str(path)]
    code = subprocess.run(command, check=False).returncode  # noqa: S603  the user's own command
    stop = code - 128 if code > 128 else -code
    if stop in (signal.SIGINT, signal.SIGTERM):
        return stop
    if code:
        raise RuntimeError(f"{shlex.join(command)} failed with exit code {code}.")
    return 0


def is_trained(arguments: Arguments) -> bool:
    """Return whether a run has a checkpoint of its last step, which is written after the weights."""
    steps = CheckpointFolder(Path(arguments.run.output_dir) / "checkpoints", 1).list_steps()
    return bool(steps) and steps[-1] >= arguments.run.max_steps
