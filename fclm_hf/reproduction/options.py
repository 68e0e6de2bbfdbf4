"""Options of a reproduction, and the configurations that it trains."""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..evaluation.options import DTYPES
from ..training.arguments import RESERVED_SETTINGS, Arguments
from ..training.command_line import merge_configs, parse_arguments, read_config
from ..training.objective.settings import TrainingSettings
from ..training.pretrained import SEEDS
from .tables import TABLES, choose_rows, list_all_experiments


_CLONE = Path(__file__).parents[2] / "examples" / "paper"
_INSTALLED = Path(__file__).parent / "experiments"  # where setup.py puts examples/paper
_SOURCES = ("sources", "backgrounds", "validation", "validation_backgrounds")


def find_experiments() -> Path:
    """Return the folder of the paper's configurations: in the installed package, or examples/paper of a clone.

    Raises:
        FileNotFoundError: If there is neither.
    """
    for folder in (_INSTALLED, _CLONE):
        if (folder / "base.yaml").is_file():
            return folder
    raise FileNotFoundError(f"The configurations of the paper are neither in {_INSTALLED} nor in {_CLONE}.")


@functools.cache
def _read_whole(path: Path) -> dict[str, Any]:
    """Return a configuration of the paper with its defaults."""
    return read_config(path)


@functools.cache
def _read_own(path: Path) -> dict[str, Any]:
    """Return the fields that a configuration of the paper itself has."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name != "defaults"}


@dataclass
class ReproductionOptions:
    """Options of [`reproduce`].

    Args:
        table: "table1" to "table6".
        data: Folder of all data sets, each in a folder as its authors distribute it.
        out: Folder for runs, results, tables and figures. What is in it already is continued.
        rows: Runs of the table, such as "adversarial" for table5_adversarial.yaml. Default: all.
        seeds: Seeds of the runs.
        steps: Steps of each run; by default those of the configuration.
        base: YAML file that replaces what the rows of a table start from: another model and other data.
        tests: Folders below `data` that runs are tested on instead of the paper's, in any layout of `fclm evaluate`.
        limit: Number of images to test on.
        images: Names of the images in the figure of Table 2 or 3. Default: four of them.
        figures: Whether to draw the figure that belongs to the table.
        device: Device for tests, such as "cpu" or "cuda:0".
        dtype: Precision of tests: "float32", "float16" or "bfloat16".
        workers: Processes that compute metrics.
        launcher: Words of a command that starts several processes for each run, such as `["accelerate", "launch",
            "--num_processes", "4"]`. Default: the run is trained in this process.
        flags: Further options of `fclm train`, such as `["--mixed_precision", "no"]`.

    Raises:
        ValueError: If an option is not accepted.
        OSError: If `base` or a configuration does not exist.

    Example:
        >>> from fclm_hf.reproduction import ReproductionOptions
        >>> options = ReproductionOptions("table5", "data", "out", rows=["full"], steps=10)
        >>> options.experiments
        ['table5_full']
        >>> options.make_arguments("table5_full", seed=1).run.output_dir
        'out/runs/table2_refmatte/seed1'
    """

    table: str
    data: Path
    out: Path
    rows: Sequence[str] | None = None
    seeds: Sequence[int] = SEEDS
    steps: int | None = None
    base: Path | None = None
    tests: Sequence[str] = ()
    limit: int | None = None
    images: Sequence[str] = ()
    figures: bool = True
    device: str = "cpu"
    dtype: str = "float32"
    workers: int = 1
    launcher: Sequence[str] = ()
    flags: Sequence[str] = ()
    experiments: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)
        if self.table not in TABLES:
            raise ValueError(f"table must be one of {', '.join(TABLES)}, got {self.table!r}.")
        self.experiments = choose_rows(self.table, None if self.rows is None else list(self.rows))
        if not self.experiments or not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"rows and seeds must be given, seeds different and not negative, got {self.seeds}.")
        for name in ("steps", "limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        self._folder = find_experiments()
        self._base = None if self.base is None else read_config(self.base)
        configs = {name: self._read(name) for name in list_all_experiments()}
        self._names = {name: next(each for each in configs if configs[each] == configs[name]) for name in configs}
        self.make_arguments(self.experiments[0], self.seeds[0])

    def make_arguments(self, experiment: str, seed: int) -> Arguments:
        """Return the arguments of a run of `fclm train`, which resumes if it has begun."""
        folder = self.out / "runs" / self._names[experiment] / f"seed{seed}"
        flags = ["--output_dir", str(folder), "--resume_from_checkpoint", "latest", *self.flags, "--seed", str(seed)]
        if self.steps is not None:
            flags += ["--max_steps", str(self.steps)]
        return parse_arguments(flags, "fclm reproduce", self._place_sources(self._read(experiment)))

    def _read(self, experiment: str) -> dict[str, Any]:
        """Return the configuration of a run: the file and its defaults, or the file's own fields over `base`.

        All settings of the objective are named, so that a row that names its default is the same run as one that does
        not.
        """
        path, settings = self._folder / f"{experiment}.yaml", {"settings": asdict(TrainingSettings())}
        for name in RESERVED_SETTINGS:
            settings["settings"].pop(name)
        if self._base is None:
            return merge_configs(settings, _read_whole(path))
        return merge_configs(settings, merge_configs(self._base, _read_own(path)))

    def _place_sources(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration whose sources lie below the folder of all data sets."""
        placed = {
            name: [self._place_source(each) if isinstance(each, dict) else each for each in config[name]]
            for name in _SOURCES
            if config.get(name)
        }
        return {**config, **placed}

    def _place_source(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return a source whose folder or files are below the folder of all data sets; Hub ids stay as they are."""
        if files := source.get("data_files"):
            several = isinstance(files, list)
            files = [str(self.data / each) for each in (files if several else [files])]
            return {**source, "data_files": files if several else files[0]}
        path = self.data / str(source.get("path"))
        return {**source, "path": str(path)} if source.get("layout") or path.exists() else source
