"""The evaluation itself: every method on every sample that has no result yet, then the summary of all results."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.inputs import TRIMAP_VALUES
from ..utils.files import write_json
from .columns import open_rows
from .layouts import Benchmark, iterate_limited, open_folder
from .options import EvaluationOptions
from .predictors import (
    BoxPredictor,
    CheckpointPredictor,
    FolderPredictor,
    fingerprint_checkpoint,
    fingerprint_folder,
)
from .prompts import Prompted, PromptRules, ask
from .protocols import PROTOCOLS, Protocol, Rows
from .results import ResultFolder, check_settings, write_rows
from .samples import Sample, read_image, read_matte
from .summary import make_summary
from .workers import ScoringPool


Track = Callable[[Iterable[Sample], str, int | None], Iterable[Sample]]


def evaluate(options: EvaluationOptions, track: Track = lambda samples, description, total: samples) -> dict[str, Any]:
    """Measures methods on a benchmark; see [`EvaluationOptions`].

    In `options.out`: settings.json, `<method>/<prompt>/` with parts/, rows and mattes/, and summary.json. A run that
    was stopped goes on; one that is complete is only summed up. Sums are exact and rows in the order of the data set,
    so that neither workers, shards nor stops change a digit.

    Args:
        options: what to do.
        track: wraps the samples of a method for a progress display; gets a description and, if known, their number.

    Returns:
        The summary, as summary.json holds it; with shards, {} until the last one is done.

    Raises:
        ValueError: an argument, the data set or a prediction is not accepted.
        ImportError: a measure or baseline needs a package that is not installed.
        OSError: a checkpoint cannot be loaded or a result not be written.
    """
    benchmark = open_benchmark(options)
    protocol_name = benchmark.protocol if options.protocol == "auto" else options.protocol
    check_feasible(options, benchmark, protocol_name)
    settings = {
        "data": options.data,
        "layout": benchmark.layout,
        "split": options.split,
        "config_name": options.config_name,
        "columns": options.columns,
        "protocol": protocol_name,
        **options.list_settings(),
    }
    check_settings(options.out / "settings.json", settings, "Choose another folder for other settings.")
    methods = [Method(options, *method, protocol_name) for method in options.list_methods()]
    results = []
    with ScoringPool(options.workers) as pool:
        for method in methods:
            names = method.run(benchmark, pool, track)
            results += [method.collect(prompt, names) for prompt in method.prompts]
    if any(result is None for result in results):
        return {}
    summary = make_summary(options, benchmark.layout, protocol_name, results)
    write_json(options.out / "summary.json", summary)
    return summary


def open_benchmark(options: EvaluationOptions) -> Benchmark:
    """Raises ValueError when there is no such data set."""
    folder = Path(options.data)
    if options.layout not in ("auto", "columns"):
        if not folder.is_dir():
            raise ValueError(f"data: {options.data} must be a folder for layout {options.layout}.")
        if options.columns:
            raise ValueError(f"columns: layout {options.layout} has its own, got {options.columns}.")
    if folder.is_dir() and options.layout != "columns" and not options.columns:
        benchmark = open_folder(folder, options.layout, options.split)
        if benchmark is not None:
            return benchmark
    return open_rows(options.data, options.columns, options.split, options.config_name)


def check_feasible(options: EvaluationOptions, benchmark: Benchmark, protocol: str) -> None:
    """What can be known before any image is read."""
    if protocol == "instances" and "none" in options.prompts:
        raise ValueError("prompts: without a prompt all objects are one, which the protocol instances cannot measure.")
    PROTOCOLS[protocol].make()  # says when a package is missing
    if "closed-form" in options.baselines and importlib.util.find_spec("pymatting") is None:
        raise ImportError('The baseline closed-form needs pymatting: pip install "fclm-hf[eval]".')
    if options.known_words and (options.predictions or not options.models):
        raise ValueError("known_words needs the vocabulary of a checkpoint: predictions and baselines have none.")
    if isinstance(benchmark.samples, list):
        check_names([sample.name for sample in benchmark.samples])
    if "text" in options.prompts and isinstance(benchmark.samples, list):
        targets = (target for sample in benchmark.samples for target in sample.targets)
        if all(target.text is None and target.cls is None for target in targets):
            raise ValueError(f"prompts: {options.data} names no object, so text cannot be a prompt.")


def check_names(names: list[str]) -> None:
    """Raises ValueError unless all samples differ in their names."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"data: {len(twice)} names stand for several samples, the first is {twice[0]!r}.")


class Method:
    """A checkpoint, baseline or folder of predictions, with its folder of results."""

    def __init__(self, options: EvaluationOptions, kind: str, source: str, name: str, protocol: str) -> None:
        self.options, self.kind, self.source = options, kind, source
        self.protocol_name, self.protocol = protocol, PROTOCOLS[protocol]
        self.path = options.out / name
        self.prompts = ["box"] if kind == "baseline" else options.prompts
        self.fingerprint = None
        if kind == "checkpoint":
            self.fingerprint = fingerprint_checkpoint(source)
        elif kind == "predictions":
            self.fingerprint = fingerprint_folder(Path(source))
        identity = {"source": source, "fingerprint": self.fingerprint}
        check_settings(self.path / "method.json", identity, f"Delete {self.path} to measure it anew.")

    def load(self) -> Any:
        if self.kind == "checkpoint":
            options = self.options
            return CheckpointPredictor(
                self.source, options.longest_edge, options.config_overrides, options.device, options.dtype
            )
        if self.kind == "baseline":
            return BoxPredictor(self.source)
        return FolderPredictor(Path(self.source), self.protocol.per_image)

    def folder(self, prompt: str) -> ResultFolder:
        return ResultFolder(self.path / prompt, self.options.save_mattes and self.kind != "predictions")

    def run(self, benchmark: Benchmark, pool: ScoringPool, track: Track) -> list[str]:
        """Measures what has no result yet; returns the names of all samples in their order."""
        folders = {prompt: self.folder(prompt) for prompt in self.prompts}
        predictor, names = None, []
        rules = PromptRules(self.options.template, self.options.point)
        first, of = self.options.shard
        total = benchmark.length if self.options.limit is None else self.options.limit
        samples = iterate_limited(benchmark.samples, self.options.limit)
        for index, sample in enumerate(track(samples, self.path.name, total)):
            names.append(sample.name)
            pending = [prompt for prompt, folder in folders.items() if not folder.has(sample.name)]
            if not pending or index % of != first - 1:
                continue
            if predictor is None:
                predictor = self.load()
                if self.options.known_words and self.kind == "checkpoint":
                    rules = PromptRules(self.options.template, self.options.point, predictor.vocabulary)
            self._run_sample(predictor, sample, {prompt: folders[prompt] for prompt in pending}, rules, pool)
        pool.finish()
        check_names(names)
        return names

    def _run_sample(
        self, predictor: Any, sample: Sample, folders: dict[str, ResultFolder], rules: PromptRules, pool: ScoringPool
    ) -> None:
        image = read_image(sample.image, sample.name)
        size = (image.height, image.width)
        mattes = [read_matte(target.alpha, f"the matte {target.name}", size) for target in sample.targets]
        asked, skipped = {}, {}
        for prompt in folders:
            asked[prompt], skipped[prompt] = ask(sample, mattes, prompt, rules)
        for prompt, alphas in predictor.predict(sample, image, asked):
            preds = [None if alpha is None else self.protocol.quantise(alpha) for alpha in alphas]
            folder, objects = folders[prompt], asked[prompt]
            if folder.save_mattes:
                for each, pred in zip(objects, preds, strict=True):
                    folder.write_matte(each.target.name, pred)
            if self.protocol.per_image:  # what cannot be prompted is there to be found all the same
                objects = [Prompted(*pair) for pair in zip(sample.targets, mattes, strict=True)]
            pool.submit(
                self.protocol_name,
                preds,
                [each.alpha for each in objects],
                [_read_trimap(each, size) for each in objects],
                partial(self._write, folder, sample.name, objects, preds, skipped[prompt]),
            )

    def _write(
        self,
        folder: ResultFolder,
        sample: str,
        objects: list[Prompted],
        preds: list[np.ndarray | None],
        skipped: dict[str, int],
        rows: Rows,
    ) -> None:
        if self.protocol.per_image:
            missing = [max(0, len(objects) - len(preds))]
            named = [sample]
        else:
            missing = [int(pred is None) for pred in preds]
            named = [each.target.name for each in objects]
        folder.write(sample, {"targets": named, "missing": missing, "skipped": skipped, "rows": rows})

    def collect(self, prompt: str, names: list[str]) -> dict[str, Any] | None:
        """Writes the rows and returns what they amount to; None while parts are missing."""
        folder = self.folder(prompt)
        parts = {name: folder.read(name) for name in names}
        if any(part is None for part in parts.values()):
            return None
        rows = [row for part in parts.values() for row in part["rows"]]
        skipped: Counter[str] = Counter()
        for part in parts.values():
            skipped.update(part["skipped"])
        if not rows:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
            raise ValueError(f"prompts: no object can be named by {prompt} ({reasons}).")
        write_rows(folder.path / f"rows.{self.options.rows}", list(_make_table(parts, self.protocol)))
        return {
            "method": self.path.name,
            "kind": self.kind,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "prompt": prompt,
            "images": sum(bool(part["rows"]) for part in parts.values()),
            "objects": sum(row["targets"] for row in rows) if self.protocol.per_image else len(rows),
            "missing": sum(sum(part["missing"]) for part in parts.values()),
            "unused": self._list_unused(parts),
            "trimaps": sum("sad_trimap" in row for row in rows),
            "skipped": dict(sorted(skipped.items())),
            "measures": self.protocol.summarise(rows),
        }

    def _list_unused(self, parts: dict[str, dict[str, Any]]) -> list[str]:
        """Predictions for what is not in the data set: most often a sign of wrong names."""
        if self.kind != "predictions" or self.options.limit is not None:
            return []
        return self.load().list_unused(name for part in parts.values() for name in part["targets"])


def _read_trimap(prompted: Prompted, size: tuple[int, int]) -> np.ndarray | None:
    source, name = prompted.target.trimap, f"the trimap of {prompted.target.name}"
    if source is None:
        return None
    trimap = read_matte(source, name, size)
    if wrong := set(np.unique(trimap).tolist()) - set(TRIMAP_VALUES):
        raise ValueError(f"{name} must hold only 0, 128 and 255, got {sorted(wrong)[:5]}.")
    return trimap


def _make_table(parts: dict[str, dict[str, Any]], protocol: Protocol) -> Iterator[dict[str, Any]]:
    for sample, part in parts.items():
        for target, missing, row in zip(part["targets"], part["missing"], part["rows"], strict=True):
            yield {"sample": sample, "target": target, "missing": missing, **protocol.summarise([row])}
