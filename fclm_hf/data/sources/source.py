"""Data sets on the Hub or on disk as sources of training data: what they hold and in which columns."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import pyarrow

from .retry import Backoff, is_temporary


@dataclass(frozen=True)
class Roles:
    """What the columns of a kind of source are for."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ("id",)


KINDS = {
    "image_alpha": Roles(("image", "alpha"), ("name", "text", "id")),  # P3M, AM-2k, DIS5K
    "rgba": Roles(("image",), ("name", "text", "cls", "cut_sides", "id")),  # Composition-1k, RefMatte's foregrounds
    "background": Roles(("image",)),  # BG20K
    "instances": Roles(("image", "alphas"), ("names", "instance", "unique", "complete", "id")),  # HIM2K, COCO
    "text": Roles(("image", "alphas", "texts"), ("names", "instance", "unique", "complete", "id")),  # RefMatte
}
MASK_QUALITIES = ("alpha", "coarse")
_IMAGES, _IMAGE_LISTS = ("image", "alpha"), ("alphas",)
# the folder layout of research/build_training_set.py: list of entries, and its keys by role
_INDEX_FILES = {"rgba": "foregrounds.json", "background": "backgrounds.json"}
_INDEX_COLUMNS = {"image": "file", "cut_sides": "truncated_LTRB"}


@dataclass
class SourceConfig:
    """A data set and how to read it.

    Args:
        path: id on the Hub, local folder (images with metadata, Parquet, WebDataset, or a training set with
            foregrounds.json / backgrounds.json), or a loader of `datasets` such as "parquet", with `data_files`.
        kind: "image_alpha" (photo and its alpha), "rgba" (cut-out objects), "background" (photos without objects of
            interest), "instances" (photo and one alpha per object) or "text" (the same and expressions per object).
        columns: role to column. Roles: image, alpha, alphas, name, names (of the objects), text, texts (expressions per
            object, used as they are), cls (key of `general_names`), cut_sides (left, top, right, bottom: whether the
            object is cut off there) and id (how reports call a sample). A role that is not given is the column of the
            same name, where there is one. Of objects there may also be lists of bools: instance (the mask is one object,
            so that boxes and clicks make sense; default: all) and unique (the name denotes this mask alone; default:
            names that come once); and complete (all objects of the photo are annotated, so that their union is what an
            empty prompt asks for; default: yes). "json.name" is the field `name` of column `json`. alphas and texts also take
            a list of columns, one per object, of which the empty ones are left out.
        split, config_name, data_files, revision: as [`datasets.load_dataset`] takes them.
        weight: how often the source is drawn, relative to the others.
        streaming: read while training; False downloads the data set first.
        mask_quality: "alpha", or "coarse" for photos whose masks are not mattes: 255 is the object, 0 is not, 128 is
            unknown. Neither unknown pixels nor a band along the edges then count in the loss.
        absent_names: names of which each object is annotated in complete photos: those that a photo lacks may be asked
            for, with an empty target, see [`PromptSettings`].
        keep: column to values; rows with other values are left out.
        general_names: from a row's name or cls to names that also fit it ("poodle": ["dog"]).
        shuffle_rows, shuffle_megabytes: rows are shuffled in blocks that hold at most so many encoded rows; two blocks
            are in memory. 1 row keeps the order.

    Raises:
        ValueError: unknown kind or mask quality, roles that the kind does not have, or a weight or block that is not
            positive.
    """

    path: str
    kind: str
    columns: dict[str, str | list[str]] = field(default_factory=dict)
    split: str = "train"
    config_name: str | None = None
    data_files: str | list[str] | None = None
    revision: str | None = None
    weight: float = 1.0
    streaming: bool = True
    mask_quality: str = "alpha"
    absent_names: list[str] = field(default_factory=list)
    keep: dict[str, list[Any]] = field(default_factory=dict)
    general_names: dict[str, list[str]] = field(default_factory=dict)
    shuffle_rows: int = 4096
    shuffle_megabytes: float = 32.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.label}: kind {self.kind!r} is unknown, accepted are {', '.join(KINDS)}.")
        if self.mask_quality not in MASK_QUALITIES:
            raise ValueError(
                f"{self.label}: mask_quality must be one of {', '.join(MASK_QUALITIES)}, got {self.mask_quality!r}."
            )
        if self.mask_quality == "coarse" and self.kind in ("rgba", "background"):
            raise ValueError(f"{self.label}: kind {self.kind!r} has no masks that could be coarse.")
        roles = (*KINDS[self.kind].required, *KINDS[self.kind].optional)
        if wrong := [role for role in self.columns if role not in roles]:
            raise ValueError(
                f"{self.label}: columns maps {', '.join(map(repr, wrong))}, but kind {self.kind!r} takes"
                f" {', '.join(roles)}."
            )
        for name in ("weight", "shuffle_rows", "shuffle_megabytes"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{self.label}: {name} must be positive, got {getattr(self, name)}.")

    @property
    def label(self) -> str:
        """How errors and reports call the source."""
        return self.path if self.config_name is None else f"{self.path} ({self.config_name})"


@dataclass
class Source:
    """An opened source: undecoded rows, and where to find the values of each role in them."""

    config: SourceConfig
    dataset: datasets.IterableDataset
    columns: dict[str, list[str]]
    classes: dict[str, list[str]]
    base: str

    def accepts(self, row: dict[str, Any]) -> bool:
        return all(_look_up(row, column) in values for column, values in self.config.keep.items())

    def read_roles(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row's values by role; ClassLabels as their names. Of a list of columns, a list without the empty ones."""
        values = {}
        for role, columns in self.columns.items():
            found = [_look_up(row, column) for column in columns]
            if role in self.classes and found[0] is not None:
                found = [self.classes[role][found[0]]]
            given = isinstance(self.config.columns.get(role), list)
            values[role] = [value for value in found if value is not None] if given else found[0]
        values.setdefault("id", row.get("__key__"))
        return values


def open_source(config: SourceConfig, backoff: Backoff | None = None) -> Source:
    """Finds the data set and checks its columns; at most its first row is read.

    Raises:
        ValueError: it does not exist, has no such split, lacks a column (the error lists those found), or a column does
            not hold what its role needs.
        LostConnectionError: the connection stays down.
    """
    backoff = backoff or Backoff()
    if datasets.config.HF_HUB_OFFLINE:
        backoff = Backoff(retries=0)
    index = None if config.data_files else _INDEX_FILES.get(config.kind)
    if index and os.path.isfile(os.path.join(config.path, index)):
        arguments = {"path": "json", "data_files": os.path.join(config.path, index)}
    else:
        index = None
        arguments = {"path": config.path, "data_files": config.data_files}
    arguments |= {"name": config.config_name, "split": config.split, "revision": config.revision}
    dataset = backoff.run(lambda: _load(config, arguments), f"Opening {config.label}")
    features = dataset.features or backoff.run(lambda: _infer_features(dataset), f"Reading {config.label}")
    if dataset.features:
        # not cast_column: remote images are decoded ahead in threads unless this is called
        dataset = dataset.decode(False)
    columns = _match_columns(config, features, _INDEX_COLUMNS if index else {})
    classes = {
        role: feature.names
        for role, names in columns.items()
        if isinstance(feature := _look_up(features, names[0]), datasets.ClassLabel)
    }
    return Source(config, dataset, columns, classes, _find_base(config))


def _load(config: SourceConfig, arguments: dict[str, Any]) -> datasets.IterableDataset:
    try:
        if config.streaming:
            return datasets.load_dataset(**arguments, streaming=True)
        dataset = datasets.load_dataset(**arguments)
        return dataset.to_iterable_dataset(num_shards=min(64, max(len(dataset), 1)))
    except (ValueError, FileNotFoundError) as error:
        if is_temporary(error):
            raise
        raise ValueError(f"{config.label}: {error}") from error


def _infer_features(dataset: datasets.IterableDataset) -> datasets.Features:
    # not iter(dataset), which would split the rows among the workers of a DataLoader
    row = next(iter(dataset.iter(batch_size=1)), {})
    return datasets.Features.from_arrow_schema(pyarrow.table(row).schema)


def _find_base(config: SourceConfig) -> str:
    """What relative paths in cells are relative to: the folder of the file that lists them, or the data set's root."""
    files = config.data_files
    folder = os.path.dirname(files) if isinstance(files, str) else ""
    is_loader = "/" not in config.path and not os.path.isdir(config.path)
    if "://" in folder or os.path.isabs(folder) or is_loader:
        return folder
    revision = f"@{config.revision}" if config.revision else ""
    is_local = os.path.isdir(config.path)
    root = os.path.abspath(config.path) if is_local else f"hf://datasets/{config.path}{revision}"
    return f"{root}/{folder}".rstrip("/")


def _match_columns(config: SourceConfig, features: Mapping[str, Any], defaults: dict[str, str]) -> dict[str, list[str]]:
    columns = {}
    roles = KINDS[config.kind]
    for role in (*roles.required, *roles.optional):
        given = config.columns.get(role, defaults.get(role, role))
        names = given if isinstance(given, list) else [given]
        missing = [name for name in names if _look_up(features, name) is None]
        if not names or (missing and (role in roles.required or role in config.columns)):
            wanted = f"column {missing[0]!r}" if missing else "a column"
            raise ValueError(
                f"{config.label} (kind {config.kind!r}): {wanted} for {role!r} does not exist. Columns found:"
                f" {', '.join(features)}. Name the right one with columns={{{role!r}: ...}}."
            )
        if missing:
            continue
        for name in names:
            _check_type(config, role, name, _look_up(features, name), features, as_list=isinstance(given, list))
        columns[role] = names
    for name in config.keep:
        if _look_up(features, name) is None:
            raise ValueError(
                f"{config.label}: column {name!r} of keep does not exist. Columns found: {', '.join(features)}."
            )
    return columns


def _check_type(
    config: SourceConfig, role: str, name: str, feature: Any, features: Mapping[str, Any], as_list: bool
) -> None:
    if role in _IMAGE_LISTS and not as_list:
        element = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        right, wanted = element is not None and _holds_images(element), "a list of images"
    elif role in (*_IMAGES, *_IMAGE_LISTS):
        right, wanted = _holds_images(feature), "images"
    else:
        return
    if not right:
        raise ValueError(
            f"{config.label} (kind {config.kind!r}): column {name!r} for {role!r} must hold {wanted}, it holds"
            f" {feature}. Columns found: {', '.join(features)}."
        )


def _holds_images(feature: Any) -> bool:
    """Images, their bytes, or paths to them."""
    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, Mapping):
        return "bytes" in feature or "path" in feature
    return isinstance(feature, datasets.Value) and feature.dtype.removeprefix("large_") in ("binary", "string")


def _look_up(row: Mapping[str, Any], column: str) -> Any:
    """`row[column]`, or the field that "column.field" names; None where there is none."""
    if column in row:
        return row[column]
    for name in column.split("."):
        if not isinstance(row, Mapping) or name not in row:
            return None
        row = row[name]
    return row
