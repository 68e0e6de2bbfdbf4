"""Options of an evaluation, validated before anything is loaded."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..utils.renaming import warn_renamed
from .baselines import BASELINES
from .columns import ROLES
from .layouts import LAYOUTS
from .prompts import DEFAULT_TEMPLATE, POINT_RULES, PROMPTS
from .protocols import PROTOCOLS
from .results import ROW_FORMATS


DTYPES = ("float32", "float16", "bfloat16")


@dataclass
class EvaluationOptions:
    """Options of an evaluation: methods, data and settings. They are validated when the object is created.

    Args:
        data: Folder of a benchmark or data set, or Hub id of a data set.
        out: Folder for results. If it holds results of the same settings, they are continued.
        layout: Layout of the data: "refmatte-rw100", "him2k", "dis5k", "alphamatting", "dev-coco", "dev-alphamatting",
            "columns" for any other data set, or "auto" to detect it.
        split: Split of the benchmark or of the Hub data set. By default the only split of a benchmark, and "test" of a
            Hub data set.
        columns: For other data sets, the column or subfolder of each role: image, alpha, id, text, cls, box, point,
            trimap.
        config_name: Configuration of the Hub data set.
        protocol: "matting", "masks", "dichotomous", "instances", or "auto" for that of the layout ("matting" for other
            data sets).
        models: Checkpoints, as folders or Hub ids. Several count as runs with different seeds.
        baselines: Methods that need only a box: "box-as-mask", "grabcut", "closed-form".
        predictions: Folders of mattes that another program made for the one kind of prompt in `prompts`.
        prompts: Kinds of prompts: "text", "point", "box", "mask", "trimap", "none".
        template: Text around a class name, with {CLS} in its place.
        point: Where clicks are derived from true mattes: at the "center" of the box, or as far "inside" as possible.
        clicks: Number of clicks in a row for prompt "point", each in the middle of the largest error and with the matte
            before it as a mask prompt. With more than 1, the IoU after each click and the number of clicks to an IoU of
            0.85 and 0.90 are measured, too; all other metrics are those of the first click.
        known_words: Whether to skip texts with a word that is not a single token of the checkpoint's vocabulary.
        longest_edge: Longer side in pixels to which images are shrunk; by default that of the processor.
        config_overrides: Fields of the checkpoint's config to change, such as `encoder_size`.
        limit: Number of samples to stop after.
        shard: (i, n) to measure every n-th sample from the i-th on, counted from 1. Processes with the same `out` share
            a data set this way.
        workers: Number of processes that compute metrics while the model works; 0 computes them in the main process.
        save_mattes: Whether to write the mattes, as 8-bit PNG.
        rows: Format of the table of single images: "parquet" or "csv".
        device: Device of the model, such as "cpu" or "cuda:0".
        dtype: Precision of the model: "float32", "float16" or "bfloat16".

    Raises:
        ValueError: If an option is invalid; the error names it and the accepted values.

    Example:
        >>> from fclm_hf.evaluation import EvaluationOptions
        >>> options = EvaluationOptions("DIS5K", out="results", models=["runs/seed0", "runs/seed1"], prompts=["box"])
        >>> options.list_methods()
        [('checkpoint', 'runs/seed0', 'seed0'), ('checkpoint', 'runs/seed1', 'seed1')]
        >>> EvaluationOptions("DIS5K", out="results", baselines=["grabcut"], prompts=["text"])
        Traceback (most recent call last):
        ValueError: prompts must contain box for baselines, got text.
    """

    data: str
    out: Path
    layout: str = "auto"
    split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    config_name: str | None = None
    protocol: str = "auto"
    models: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)
    predictions: list[Path] = field(default_factory=list)
    prompts: list[str] = field(default_factory=lambda: ["box"])
    template: str = DEFAULT_TEMPLATE
    point: str = "center"
    clicks: int = 1
    known_words: bool = False
    longest_edge: int | None = None
    config_overrides: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    shard: tuple[int, int] = (1, 1)
    workers: int = 1
    save_mattes: bool = False
    rows: str = "parquet"
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self.data, self.out = str(self.data), Path(self.out)
        self.predictions = [Path(folder) for folder in self.predictions]
        if self.point == "centre":  # codespell:ignore centre
            warn_renamed(f'point="{self.point}"', 'point="center"', stacklevel=4)
            self.point = "center"
        _check_choice("layout", self.layout, ("auto", "columns", *LAYOUTS))
        _check_choice("protocol", self.protocol, ("auto", *PROTOCOLS))
        _check_choice("point", self.point, POINT_RULES)
        _check_choice("rows", self.rows, ROW_FORMATS)
        _check_choice("dtype", self.dtype, DTYPES)
        for name, values, accepted in (
            ("prompts", self.prompts, PROMPTS),
            ("baselines", self.baselines, tuple(BASELINES)),
            ("columns", list(self.columns), ROLES),
        ):
            for value in values:
                _check_choice(name, value, accepted)
            if len(set(values)) < len(values) or (name == "prompts" and not values):
                raise ValueError(f"{name} must be unique and not empty, got {values}.")
        if "{CLS}" not in self.template:
            raise ValueError(f"template must contain {{CLS}} in place of the class name, got {self.template!r}.")
        for name, low in (("longest_edge", 1), ("limit", 1), ("workers", 0), ("clicks", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}.")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise ValueError(f"shard must be (i, n) with 1 <= i <= n, got {self.shard}.")
        self._check_methods()
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out must be a folder, got the file {self.out}.")

    def list_settings(self) -> dict[str, Any]:
        """Return the options that determine how methods are prompted and run, for the record."""
        names = ("template", "point", "known_words", "longest_edge", "config_overrides", "dtype")
        settings = {name: getattr(self, name) for name in names}
        # as in the settings of earlier releases, so that their runs resume
        return settings | ({"clicks": self.clicks} if self.clicks > 1 else {})

    def list_methods(self) -> list[tuple[str, str, str]]:
        """Return kind ("checkpoint", "baseline" or "predictions"), source and folder name of each method."""
        predictions = [str(folder) for folder in self.predictions]
        names = name_sources([*self.models, *predictions])
        return [
            *(("checkpoint", source, names[source]) for source in self.models),
            *(("baseline", name, name) for name in self.baselines),
            *(("predictions", source, names[source]) for source in predictions),
        ]

    def _check_methods(self) -> None:
        """Raise a ValueError unless there are methods that fit the prompts and have names of their own."""
        if not (self.models or self.baselines or self.predictions):
            raise ValueError("models, baselines or predictions must be given, got none of them.")
        if self.baselines and "box" not in self.prompts:
            raise ValueError(f"prompts must contain box for baselines, got {', '.join(self.prompts)}.")
        if self.clicks > 1 and ("point" not in self.prompts or not self.models or self.predictions):
            raise ValueError(f"clicks must be 1 without prompt point and a checkpoint, got {self.clicks}.")
        if self.predictions and len(self.prompts) > 1:
            raise ValueError(f"prompts must be the one kind that predictions were made for, got {self.prompts}.")
        for folder in self.predictions:
            if not folder.is_dir():
                raise ValueError(f"predictions must be folders, got {folder}.")
        names = [name for _, _, name in self.list_methods()]
        if len(set(names)) < len(names):
            raise ValueError(f"models, baselines and predictions must have different names, got {names}.")


def name_sources(sources: list[str]) -> dict[str, str]:
    """Name sources by the shortest ends of their paths (or Hub ids) that tell them apart, as names of folders.

    Raises:
        ValueError: If a source is given twice.
    """
    if len(set(sources)) < len(sources):
        raise ValueError(f"models and predictions must be unique, got {sources}.")
    parts = {source: _list_parts(source) for source in sources}
    for length in range(1, max([2, *(len(part) + 1 for part in parts.values())])):
        names = {source: re.sub(r"[^\w.#-]+", "_", "_".join(part[-length:])) for source, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    raise ValueError(f"models and predictions must be unique, got {sources}.")


def _list_parts(source: str) -> tuple[str, ...]:
    """Return the parts of a path, resolved where it ends in "." or "..", which would lead out of the results."""
    path = PurePath(source)
    return (Path(source).resolve() if path.name in ("", "..") else path).parts


def _check_choice(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    """Raise a ValueError unless the value of an option is accepted."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}.")
