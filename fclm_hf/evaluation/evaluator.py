"""Evaluation loop: run each method on the samples that have no results yet, then summarize all results."""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.accumulator import mean
from ..metrics.inputs import TRIMAP_VALUES
from ..utils.files import write_json
from .clicks import click_through, describe_clicks
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
from .prompts import PromptedTarget, PromptRules, prompt_targets
from .protocols import PROTOCOLS, Protocol, Rows
from .results import ResultFolder, check_settings, write_rows
from .samples import EvaluationSample, read_image, read_matte
from .summary import make_summary
from .workers import ScoringPool


Track = Callable[[Iterable[EvaluationSample], str, int | None], Iterable[EvaluationSample]]


def evaluate(options: EvaluationOptions, track: Track = lambda samples, description, total: samples) -> dict[str, Any]:
    """Measure methods on a benchmark.

    Writes settings.json, summary.json and, for each method and kind of prompt, a folder `<method>/<prompt>/` with
    parts/, a table of rows and, if requested, mattes/ to `options.out`. An interrupted run is resumed, and a complete
    one only summarized again. Sums are exact and rows are in the order of the data set, so the result does not depend
    on the number of workers, shards and interruptions, not even in the last digit.

    Args:
        options: Options of the evaluation.
        track: Function that wraps the samples of a method to display progress. It takes the samples, a description, and
            the number of samples (None if unknown).

    Returns:
        The summary that summary.json holds. Its `results` list one dict per method and kind of prompt, with the metrics
        by name in `measures`. With shards, the summary is empty until the last one is done.

    Raises:
        ValueError: If an argument, the data set or a prediction is invalid, or `options.out` holds results of other
            settings.
        ImportError: If a metric or baseline needs a package that is not installed.
        OSError: If a checkpoint cannot be loaded, or a result cannot be written.

    Example:
        A folder of images and one of mattes, matched by name; a checkpoint would be listed in `models`.

        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from fclm_hf.evaluation import EvaluationOptions, evaluate
        >>> root = Path(tempfile.mkdtemp())
        >>> for role in ("image", "alpha"):
        ...     (root / role).mkdir()
        >>> matte = np.zeros((60, 80), dtype=np.uint8)
        >>> matte[10:50, 20:60] = 255
        >>> matte[10:30, 20:40] = 0
        >>> Image.fromarray(matte).save(root / "alpha" / "corner.png")
        >>> Image.fromarray(matte).convert("RGB").save(root / "image" / "corner.png")
        >>> options = EvaluationOptions(root, out=root / "results", baselines=["box-as-mask"], workers=0)
        >>> summary = evaluate(options)
        >>> [result["measures"]["sad"] for result in summary["results"]]  # the missing corner has 400 pixels
        [0.4]
        >>> sorted(path.name for path in (root / "results").iterdir())
        ['box-as-mask', 'settings.json', 'summary.json']
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
    _update_settings(options.out / "settings.json")
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
    """Open the data set of the options.

    Raises:
        ValueError: If there is no such data set, or it does not match the layout or columns.
    """
    folder = Path(options.data)
    if options.layout not in ("auto", "columns"):
        if not folder.is_dir():
            raise ValueError(f"data must be a folder for layout {options.layout}, got {options.data}.")
        if options.columns:
            raise ValueError(f"columns must be empty for layout {options.layout}, got {options.columns}.")
    if folder.is_dir() and options.layout != "columns" and not options.columns:
        benchmark = open_folder(folder, options.layout, options.split)
        if benchmark is not None:
            return benchmark
    return open_rows(options.data, options.columns, options.split, options.config_name)


def check_feasible(options: EvaluationOptions, benchmark: Benchmark, protocol: str) -> None:
    """Check, before any image is read, that the options fit the data set and the installed packages.

    Raises:
        ValueError: If they do not fit the data set.
        ImportError: If a package is missing.
    """
    if protocol == "instances" and "none" in options.prompts:
        raise ValueError("prompts must not contain none for protocol instances: without a prompt all objects are one.")
    if protocol == "instances" and options.clicks > 1:
        raise ValueError(
            f"clicks must be 1 for protocol instances, whose mattes are scored together, got {options.clicks}."
        )
    PROTOCOLS[protocol].make_metrics()  # raises if a package is missing
    if "closed-form" in options.baselines and importlib.util.find_spec("pymatting") is None:
        raise ImportError('The baseline closed-form needs pymatting: pip install "fclm-hf[eval]".')
    if options.known_words and (options.predictions or not options.models):
        raise ValueError("known_words must be False for predictions and baselines: it needs a checkpoint's vocabulary.")
    if isinstance(benchmark.samples, list):
        check_names([sample.name for sample in benchmark.samples])
    if "text" in options.prompts and isinstance(benchmark.samples, list):
        targets = (target for sample in benchmark.samples for target in sample.targets)
        if all(target.text is None and target.cls is None for target in targets):
            raise ValueError(f"prompts must not contain text: {options.data} has no texts or class names.")


def check_names(names: list[str]) -> None:
    """Raise a ValueError unless all names of samples are different."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"data must have unique names of samples, got {len(repeated)} repeated names, the first is {repeated[0]!r}."
        )


def _update_settings(path: Path) -> None:
    """Update the spelling in the settings of a run of release 0.1, so that it can be resumed."""
    settings = json.loads(path.read_text()) if path.is_file() else {}
    if settings.get("point") == "centre":  # codespell:ignore centre
        write_json(path, {**settings, "point": "center"})


class Method:
    """A checkpoint, baseline or folder of predictions, with its folder of results.

    Args:
        options: Options of the evaluation.
        kind: "checkpoint", "baseline" or "predictions".
        source: Folder or Hub id of the checkpoint, name of the baseline, or folder of predictions.
        name: Name of the folder of results.
        protocol: Name of the protocol.

    Raises:
        ValueError: If the folder holds results of another version of the method.
    """

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
        check_settings(self.path / "method.json", identity, f"Delete {self.path} to measure it from scratch.")

    def load(self) -> Any:
        """Return the predictor."""
        if self.kind == "checkpoint":
            options = self.options
            return CheckpointPredictor(
                self.source, options.longest_edge, options.config_overrides, options.device, options.dtype
            )
        if self.kind == "baseline":
            return BoxPredictor(self.source)
        return FolderPredictor(Path(self.source), self.protocol.per_image)

    def folder(self, prompt: str) -> ResultFolder:
        """Return the results for one kind of prompt."""
        return ResultFolder(self.path / prompt, self.options.save_mattes and self.kind != "predictions")

    def run(self, benchmark: Benchmark, pool: ScoringPool, track: Track) -> list[str]:
        """Measure the samples that have no result yet; return the names of all samples in order."""
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
        self,
        predictor: Any,
        sample: EvaluationSample,
        folders: dict[str, ResultFolder],
        rules: PromptRules,
        pool: ScoringPool,
    ) -> None:
        """Predict and score the objects of one image for the kinds of prompts in `folders`."""
        image = read_image(sample.image, sample.name)
        size = (image.height, image.width)
        mattes = [read_matte(target.alpha, f"the matte {target.name}", size) for target in sample.targets]
        prompted, skipped = {}, {}
        for prompt in folders:
            prompted[prompt], skipped[prompt] = prompt_targets(sample, mattes, prompt, rules)
        for prompt, alphas in predictor.predict(sample, image, prompted):
            preds = [None if alpha is None else self.protocol.quantize(alpha) for alpha in alphas]
            folder, objects, clicks = folders[prompt], prompted[prompt], []
            if prompt == "point" and self.options.clicks > 1 and self.kind == "checkpoint" and objects:
                scores = click_through(predictor.encode(image), objects, self.options.clicks)
                clicks = [describe_clicks(each) for each in scores]
            if folder.save_mattes:
                for each, pred in zip(objects, preds, strict=True):
                    folder.write_matte(each.target.name, pred)
            if self.protocol.per_image:  # objects without a prompt still count as targets
                objects = [PromptedTarget(*pair) for pair in zip(sample.targets, mattes, strict=True)]
            pool.submit(
                self.protocol_name,
                preds,
                [each.alpha for each in objects],
                [_read_trimap(each, size) for each in objects],
                partial(self._write, folder, sample.name, objects, preds, skipped[prompt], clicks),
            )

    def _write(
        self,
        folder: ResultFolder,
        sample: str,
        objects: list[PromptedTarget],
        preds: list[np.ndarray | None],
        skipped: dict[str, int],
        clicks: Rows,
        rows: Rows,
    ) -> None:
        """Write the part of a sample."""
        if self.protocol.per_image:
            missing = [max(0, len(objects) - len(preds))]
            named = [sample]
        else:
            missing = [int(pred is None) for pred in preds]
            named = [each.target.name for each in objects]
        part = {"targets": named, "missing": missing, "skipped": skipped, "rows": rows}
        folder.write(sample, part | ({"clicks": clicks} if clicks else {}))

    def collect(self, prompt: str, names: list[str]) -> dict[str, Any] | None:
        """Write the table of rows and return the result over all of them; None while parts are missing."""
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
            raise ValueError(f"prompts: no object has a prompt of kind {prompt} ({reasons}).")
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
            "measures": self.protocol.summarize(rows) | _summarize_clicks(parts.values()),
        }

    def _list_unused(self, parts: dict[str, dict[str, Any]]) -> list[str]:
        """Return the predictions that belong to nothing in the data set, usually because their names are wrong."""
        if self.kind != "predictions" or self.options.limit is not None:
            return []
        return self.load().list_unused(name for part in parts.values() for name in part["targets"])


def _read_trimap(prompted: PromptedTarget, size: tuple[int, int]) -> np.ndarray | None:
    """Read the trimap of an object, if it has one."""
    source, name = prompted.target.trimap, f"the trimap of {prompted.target.name}"
    if source is None:
        return None
    trimap = read_matte(source, name, size)
    if wrong := set(np.unique(trimap).tolist()) - set(TRIMAP_VALUES):
        raise ValueError(f"{name} must hold only 0, 128 and 255, got {sorted(wrong)[:5]}.")
    return trimap


def _summarize_clicks(parts: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the means of what was measured over clicks in a row, if anything was."""
    rows = [row for part in parts for row in part.get("clicks", ())]
    return {name: mean(row[name] for row in rows) for name in (rows[0] if rows else ())}


def _make_table(parts: dict[str, dict[str, Any]], protocol: Protocol) -> Iterator[dict[str, Any]]:
    """Yield a row of metrics for each object, or for each image if the protocol scores whole images."""
    for sample, part in parts.items():
        clicks = part.get("clicks") or [{}] * len(part["rows"])
        for target, missing, row, more in zip(part["targets"], part["missing"], part["rows"], clicks, strict=True):
            yield {"sample": sample, "target": target, "missing": missing, **protocol.summarize([row]), **more}
