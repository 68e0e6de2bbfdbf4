"""Opens a folder that build_training_set.py wrote, its objects weighted as for the embedded checkpoint."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fclm_hf.data import Source, SourceConfig, open_source


RECIPE = Path(__file__).parents[1] / "examples" / "train_lite.yaml"
GENERAL_NAMES = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["sources"][0]["general_names"]
WEIGHTS = {"tux": 3.0, "wesnoth": 1.5, "Smileys & Emotion": 0.3}


def read_entries(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of foregrounds.json: file, name, and where each object comes from."""
    return json.loads((folder / "foregrounds.json").read_text(encoding="utf-8"))


def list_names(entries: list[dict[str, Any]]) -> list[str]:
    """Return the name of each entry, followed by the more general names that apply to it."""
    names = []
    for entry in entries:
        keys = (entry["name"], entry.get("cls"))
        general = (name for key in keys for name in GENERAL_NAMES.get(key, ()))
        names += dict.fromkeys((entry["name"], *general))
    return names


def open_foregrounds(folder: Path, weights: Mapping[str, float] | None = None) -> list[Source]:
    """Open the objects of a training set.

    Args:
        folder: The training set.
        weights: Maps an entry's `source`, `kind` or `cls` to a factor on its sampling weight. Default: `WEIGHTS`.

    Returns:
        One source per distinct weight, so that each object is drawn in proportion to its weight.
    """
    weights = WEIGHTS if weights is None else weights
    files: dict[float, list[str]] = {}
    for entry in read_entries(folder):
        factors = (weights.get(entry.get(key), 1.0) for key in ("source", "kind", "cls"))
        files.setdefault(math.prod(factors), []).append(entry["file"])
    return [
        open_source(
            SourceConfig(
                str(folder),
                "rgba",
                weight=weight * len(names),
                keep={"file": names} if len(files) > 1 else {},
                general_names=GENERAL_NAMES,
            )
        )
        for weight, names in files.items()
    ]


def open_backgrounds(folder: Path) -> list[Source]:
    """Open the backgrounds of a training set."""
    return [open_source(SourceConfig(str(folder), "background"))]
