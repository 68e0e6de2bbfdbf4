"""Foreground colors of this package and of pymatting: error when recomposed, and time.

    pip install ".[matting]"
    python benchmarks/benchmark_foreground.py --data DIR [--cutouts DIR] [--rounds 5]

DIR/alphamatting holds photos with true alphas, laid out as `research/real_photos.py` describes. Their true foreground
colors are not known, so that pymatting's estimate stands for them, which favors pymatting: each photo is recomposed
from it and its alpha over the next photo of the folder. DIR of `--cutouts` holds RGBA images, whose colors are the true
ones.

The first table has the mean error of the colors with the true alpha, times alpha, which is the error of recomposing
over any background, in levels of 255, where the alpha is partial, and the CPU seconds of one thread, medians of rounds
in which the two take turns. The second one has the error, over one more photo, of cutouts with the alpha that the
embedded checkpoint finds by the box: with the colors of the photo as they are, with pymatting's, and with those of this
package. Its "near" columns leave out pixels whose alpha is wrong by more than 0.25, which no color mends.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fclm_hf.foreground_fclm import estimate_foreground, make_cutout


WRONG = 0.25
LONGEST_SIDE = 900


@dataclass
class Composite:
    """A composite whose layers are known.

    Attributes:
        name: Name of the file.
        image: The composite, uint8 of shape `(height, width, 3)`.
        alpha: Its alpha in [0, 1] of shape `(height, width)`.
        colors: The colors of its foreground in [0, 1].
        background: Another background in [0, 1], to recompose it over.
        box: Corners of the object in pixels.
    """

    name: str
    image: np.ndarray
    alpha: np.ndarray
    colors: np.ndarray
    background: np.ndarray
    box: list[int]


def compose(alpha: np.ndarray, colors: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the composite over a background, in [0, 1]."""
    return alpha[..., None] * colors + (1 - alpha[..., None]) * background


def make_composites(layers: list[tuple[str, np.ndarray, np.ndarray]], photos: list[Path]) -> Iterator[Composite]:
    """Yield composites of layers (name, colors, alpha), each over a photo, with another photo as the background."""
    for index, (name, colors, alpha) in enumerate(layers):
        first, second = (read(photos[(index + step) % len(photos)], alpha.shape) for step in (1, 2))
        rows, columns = np.nonzero(alpha > 0.05)
        box = [int(each) for each in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        yield Composite(name, as_bytes(compose(alpha, colors, first)), alpha, colors, second, box)


def read(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return a photo in [0, 1], resized to `shape`."""
    return np.asarray(Image.open(path).convert("RGB").resize(shape[::-1])) / 255


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Return values in [0, 1] as uint8."""
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def read_photos(folder: Path) -> Iterator[Composite]:
    """Yield composites of the photos of alphamatting.com, with the colors that pymatting finds as the true ones."""
    from pymatting import estimate_foreground_ml

    paths = sorted((folder / "input").glob("*.png"))
    layers = []
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB")) / 255
        alpha = np.asarray(Image.open(folder / "alpha" / path.name).convert("L")) / 255
        layers.append((path.stem, estimate_foreground_ml(image, alpha), alpha))
    yield from make_composites(layers, paths)


def read_cutouts(folder: Path, photos: list[Path], limit: int) -> Iterator[Composite]:
    """Yield composites of RGBA images with a soft edge, spread evenly over the files of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".webp"))
    layers = []
    for path in paths[:: max(1, len(paths) // (2 * limit))]:
        image = Image.open(path).convert("RGBA")
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        pixels = np.asarray(image) / 255
        alpha = pixels[..., 3]
        if ((alpha > 0) & (alpha < 1)).mean() > 0.01:
            layers.append((path.stem, pixels[..., :3], alpha))
    yield from make_composites(layers[:limit], photos)


def time_rounds(runs: list[Callable[[], np.ndarray]], rounds: int) -> list[float]:
    """Return the median CPU seconds of each run, after one warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for index in range(rounds + 1):
        for run, spent in zip(runs, seconds, strict=True):
            start = time.process_time()
            run()
            if index:
                spent.append(time.process_time() - start)
    return [statistics.median(spent) for spent in seconds]


def measure_colors(case: Composite, rounds: int) -> dict[str, float]:
    """Return errors and times of both estimators with the true alpha."""
    from pymatting import estimate_foreground_ml

    image, partial = case.image / 255, (case.alpha > 0) & (case.alpha < 1)
    runs = [lambda: estimate_foreground_ml(image, case.alpha), lambda: estimate_foreground(case.image, case.alpha)]
    theirs, own = time_rounds(runs, rounds)
    colors = as_bytes(runs[0]()) / 255, runs[1]() / 255
    errors = [255 * (np.abs(each - case.colors) * case.alpha[..., None])[partial].mean() for each in colors]
    return {
        "pymatting": errors[0],
        "own": errors[1],
        "ratio": errors[1] / errors[0],
        "pymatting_seconds": theirs,
        "own_seconds": own,
        "time_ratio": own / theirs,
    }


def measure_cutouts(case: Composite, found: np.ndarray) -> dict[str, float]:
    """Return errors of recomposing over another background with an alpha that was found, float in [0, 1]."""
    found = as_bytes(found) / 255
    own = make_cutout(case.image, found)
    theirs = make_cutout(case.image, found, method="pymatting")
    truth = compose(case.alpha, case.colors, case.background)
    partial = ((case.alpha > 0) & (case.alpha < 1)) | ((found > 0.02) & (found < 0.98))
    near = partial & (np.abs(found - case.alpha) <= WRONG)
    errors = {}
    for name, colors in (("photo", case.image), ("pymatting", theirs), ("own", own)):
        error = 255 * np.abs(compose(found, np.asarray(colors)[..., :3] / 255, case.background) - truth)
        errors |= {name: error[partial].mean(), f"{name}_near": error[near].mean()}
    return errors


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Print a row for each image and one of means."""
    names = list(next(iter(rows.values())))
    rows = {**rows, "mean": {name: statistics.fmean(row[name] for row in rows.values()) for name in names}}
    print(f"\n| image | {' | '.join(names)} |\n|---{'|---' * len(names)}|")
    for image, row in rows.items():
        print(f"| {image} | {' | '.join(f'{row[name]:.3f}' for name in names)} |", flush=True)


def main(argv: list[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Print both tables, and their values as JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with alphamatting/")
    parser.add_argument("--cutouts", type=Path, help="folder of RGBA images, searched with its subfolders")
    parser.add_argument("--limit", type=int, default=12, help="number of RGBA images (default: 12)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the estimators take turns (default: 5)")
    parser.add_argument("--skip-model", action="store_true", help="print only the table with the true alpha")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder = options.data / "alphamatting"
    cases = list(read_photos(folder))
    if options.cutouts:
        cases += read_cutouts(options.cutouts, sorted((folder / "input").glob("*.png")), options.limit)
    tables = {"true alpha": {case.name: measure_colors(case, options.rounds) for case in cases}}
    print_table(tables["true alpha"])
    if not options.skip_model:
        from transformers import pipeline

        import fclm_hf  # noqa: F401  registers the pipeline

        matting = pipeline("referring-matting", device="cpu")
        rows = {}
        for case in cases:
            result = matting(Image.fromarray(case.image), input_boxes=case.box, cutout=False)
            rows[case.name] = measure_cutouts(case, result["predicted_alpha"].numpy())
        tables["alpha of the model"] = rows
        print_table(rows)
    print(json.dumps(tables))
    return tables


if __name__ == "__main__":
    main()
