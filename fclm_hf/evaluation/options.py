"""What an evaluation is asked to do, checked before anything is loaded."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .baselines import BASELINES
from .columns import ROLES
from .layouts import LAYOUTS
from .prompts import PAPER_TEMPLATE, POINT_RULES, PROMPTS
from .protocols import PROTOCOLS
from .results import ROW_FORMATS


DTYPES = ("float32", "float16", "bfloat16")


@dataclass
class EvaluationOptions:
    """Args:
        data: folder or Hub id.
        out: folder for results; one that holds results of the same settings is continued.
        layout: one of LAYOUTS, "columns", or "auto".
        split: of the benchmark, or of the Hub data set.
        columns: role to column or subfolder, for other data sets; see `columns.py`.
        config_name: of the Hub data set.
        protocol: one of PROTOCOLS, or "auto" for the layout's own ("matting" for other data sets).
        models: checkpoints, folders or Hub ids.
        baselines: names of BASELINES, which answer box prompts.
        predictions: folders of mattes that other programs made for the one kind of prompt in `prompts`.
        prompts: kinds of prompts, of PROMPTS.
        template: text around a class name, with {CLS}.
        point: "centre" or "inside".
        known_words: leave out texts with a word that is not one token of the checkpoint's vocabulary.
        longest_edge: longer side that images are shrunk to; None for the processor's own.
        config_overrides: fields of the checkpoint's config to change.
        limit: only so many samples.
        shard: (i, n) does every n-th sample from the i-th on, i from 1; processes with one `out` share a data set.
        workers: processes that measure while the model works; 0 measures in the main one.
        save_mattes: also write the mattes, as 8-bit PNG.
        rows: "parquet" or "csv".
        device, dtype: of the model.

    Raises:
        ValueError: names the argument that is not accepted, and what is.
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
    template: str = PAPER_TEMPLATE
    point: str = "centre"
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
        self.out = Path(self.out)
        self.predictions = [Path(folder) for folder in self.predictions]
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
                raise ValueError(f"{name} must be at least one, none of them twice, got {values}.")
        if "{CLS}" not in self.template:
            raise ValueError(f"template must contain {{CLS}}, the place of the class name, got {self.template!r}.")
        for name, low in (("longest_edge", 1), ("limit", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}.")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise ValueError(f"shard must be (i, n) with 1 <= i <= n, got {self.shard}.")
        self._check_methods()
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out must be a folder, {self.out} is a file.")

    def list_settings(self) -> dict[str, Any]:
        """What decides how methods are asked and run, for the record."""
        names = ("template", "point", "known_words", "longest_edge", "config_overrides", "dtype")
        return {name: getattr(self, name) for name in names}

    def list_methods(self) -> list[tuple[str, str, str]]:
        """Kind (checkpoint, baseline or predictions), source and folder name of each method."""
        predictions = [str(folder) for folder in self.predictions]
        names = name_sources([*self.models, *predictions])
        return [
            *(("checkpoint", source, names[source]) for source in self.models),
            *(("baseline", name, name) for name in self.baselines),
            *(("predictions", source, names[source]) for source in predictions),
        ]

    def _check_methods(self) -> None:
        if not (self.models or self.baselines or self.predictions):
            raise ValueError("models, baselines and predictions are all empty: there is nothing to measure.")
        if self.baselines and "box" not in self.prompts:
            raise ValueError(f"baselines answer box prompts only, prompts are {', '.join(self.prompts)}.")
        if self.predictions and len(self.prompts) > 1:
            raise ValueError("predictions were made for one kind of prompt: give exactly one in prompts.")
        for folder in self.predictions:
            if not folder.is_dir():
                raise ValueError(f"predictions: {folder} is not a folder.")
        names = [name for _, _, name in self.list_methods()]
        if len(set(names)) < len(names):
            raise ValueError(f"models, baselines and predictions must differ in their names, got {names}.")


def name_sources(sources: list[str]) -> dict[str, str]:
    """The shortest ends of paths (or Hub ids) that tell them apart, as folder names.

    Raises:
        ValueError: a source is given twice.
    """
    if len(set(sources)) < len(sources):
        raise ValueError(f"models and predictions must differ, got {sources}.")
    parts = {source: PurePath(source).parts for source in sources}
    for length in range(1, max([2, *(len(part) + 1 for part in parts.values())])):
        names = {source: re.sub(r"[^\w.#-]+", "_", "_".join(part[-length:])) for source, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    raise ValueError(f"models and predictions must differ, got {sources}.")


def _check_choice(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}.")
