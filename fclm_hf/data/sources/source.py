"""Data sets on the Hub or on disk as sources of training data: their kind, and the role of each column."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from ...utils.renaming import rename_arguments
from .layouts import SOURCE_LAYOUTS, read_layout
from .retry import RetryPolicy, choose_retry_policy, is_temporary


@dataclass(frozen=True)
class Roles:
    """Required and optional roles of the columns of a kind of source."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ("id",)


KINDS = {
    "image_alpha": Roles(("image", "alpha"), ("name", "text", "id")),  # P3M, AM-2k, DIS5K
    "rgba": Roles(("image",), ("name", "text", "cls", "cut_sides", "id")),  # Composition-1k, RefMatte's foregrounds
    "background": Roles(("image",)),  # BG20K
    "instances": Roles(("image", "alphas"), ("names", "instance", "unique", "complete", "id")),  # HIM2K, COCO
    "text": Roles(("image", "alphas", "texts"), ("names", "instance", "unique", "complete", "id")),  # RefMatte
    "photo": Roles(("image",), ("text", "input_boxes", "input_points", "input_labels", "input_masks", "id")),
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
        path: Id on the Hub, local folder (images with metadata, Parquet, WebDataset, or a training set with
            foregrounds.json / backgrounds.json), or a loader of `datasets` such as "parquet", with `data_files`.
        kind: "image_alpha" (photo and its alpha), "rgba" (cut-out objects), "background" (photos without objects of
            interest), "instances" (photo and one alpha per object), "text" (the same and expressions per object) or
            "photo" (photo and prompts, to be matted).
        columns: Maps roles to columns. Roles: image, alpha, alphas, name, names (of the objects), text, texts
            (expressions per object, used verbatim), cls (key of `general_names`), cut_sides (whether the object is cut
            off at the left, top, right and bottom) and id (the sample's name in reports). A role that is not given is
            the column of the same name, if it exists. "json.name" is the field `name` of column `json`. alphas and
            texts also take a list of columns, one per object; empty cells are left out. Kinds with several objects also
            take lists of bools, instance (whether a mask is a single object, which boxes and clicks can mean) and
            unique (whether a name means this mask alone), and complete (whether all objects of the photo are annotated,
            so that their union is the target of an empty prompt); all default to yes. Kind "photo" takes prompts, named
            as the arguments of [`ReferringMattingPipeline`].
        split: Split, as in [`datasets.load_dataset`], or of the layout.
        config_name: Configuration of the data set, as `name` in [`datasets.load_dataset`].
        data_files: Files of the data set, as in [`datasets.load_dataset`].
        revision: Branch, tag or commit on the Hub.
        weight: Sampling weight, relative to the other sources. Must be positive.
        streaming: Whether to read the data set while training; False downloads it first.
        mask_quality: "alpha", or "coarse" for masks that are not mattes: 255 is the object, 0 is not, 128 is unknown.
            Unknown pixels and a band along the edges then do not count in the loss.
        learn_edges: Whether the layers that draw edges learn from this source: the detail path, and the layer of the
            matte head that predicts slopes. If no source says so, only the detail path leaves out photos with unknown
            pixels; once any source does, both leave out those with False, and coarse masks have False by default.
        absent_names: Names of which every object is annotated in complete photos. Photos that lack them may be asked
            for them, with an empty target, see [`PromptSettings`].
        keep: Maps columns to accepted values; rows with other values are left out.
        general_names: Maps a row's name or cls to further names of the object, such as `{"poodle": ["dog"]}`.
        shuffle_rows: Maximum number of rows in the blocks that are shuffled; two blocks are in memory. 1 keeps the
            order.
        shuffle_megabytes: Maximum size of the encoded rows of a block, in MiB.
        layout: Read `path` as the folder that the authors of a data set distribute: "p3m-10k", "bg-20k", "refmatte",
            "him2k" or "dis5k".

    Raises:
        ValueError: If the kind, mask quality or layout is unknown, `columns` names roles that the kind does not have,
            the layout holds another kind, or a weight or block size is not positive.

    Example:
        >>> from fclm_hf.data import SourceConfig
        >>> config = SourceConfig("user/portraits", "image_alpha", columns={"alpha": "matte"}, weight=2.0)
        >>> config.label
        'user/portraits'
        >>> SourceConfig("user/portraits", "matte")
        Traceback (most recent call last):
        ValueError: user/portraits: kind must be one of image_alpha, rgba, background, instances, text, photo, got
        'matte'.
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
    learn_edges: bool | None = None
    absent_names: list[str] = field(default_factory=list)
    keep: dict[str, list[Any]] = field(default_factory=dict)
    general_names: dict[str, list[str]] = field(default_factory=dict)
    shuffle_rows: int = 4096
    shuffle_megabytes: float = 32.0
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.label}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.mask_quality not in MASK_QUALITIES:
            raise ValueError(
                f"{self.label}: mask_quality must be one of {', '.join(MASK_QUALITIES)}, got {self.mask_quality!r}."
            )
        if self.mask_quality == "coarse" and self.kind in ("rgba", "background", "photo"):
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
        if self.layout is not None:
            self._check_layout()

    def _check_layout(self) -> None:
        """Raise a ValueError unless the layout exists and holds the kind and the split."""
        if self.layout not in SOURCE_LAYOUTS:
            raise ValueError(f"{self.label}: layout must be one of {', '.join(SOURCE_LAYOUTS)}, got {self.layout!r}.")
        layout = SOURCE_LAYOUTS[self.layout]
        if self.kind != layout.kind:
            raise ValueError(f"{self.label}: kind must be {layout.kind!r} for layout {self.layout}, got {self.kind!r}.")
        if self.split not in layout.splits:
            splits = ", ".join(layout.splits)
            raise ValueError(
                f"{self.label}: split must be one of {splits} for layout {self.layout}, got {self.split!r}."
            )

    @property
    def learns_edges(self) -> bool:
        """Whether the layers that draw edges learn from the source if any source sets `learn_edges`."""
        return self.mask_quality != "coarse" if self.learn_edges is None else self.learn_edges

    @property
    def label(self) -> str:
        """Name of the source in errors and reports."""
        return self.path if self.config_name is None else f"{self.path} ({self.config_name})"


@dataclass
class Source:
    """An opened source: its undecoded rows, and the columns of each role.

    Args:
        config: Configuration of the source.
        dataset: The rows, with encoded images.
        columns: Maps roles to their columns; several columns hold one value per object each.
        classes: Maps roles to the class names of their columns, for columns of integer labels.
        base: Folder or URL that relative paths in cells start from.

    Example:
        >>> import json, pathlib
        >>> from fclm_hf.data import SourceConfig, open_source
        >>> _ = pathlib.Path("rows.json").write_text(json.dumps([{"photo": "a.png"}, {"photo": "b.png"}]))
        >>> config = SourceConfig("json", "background", columns={"image": "photo"}, data_files="rows.json")
        >>> open_source(config).columns
        {'image': ['photo']}
    """

    config: SourceConfig
    dataset: datasets.IterableDataset
    columns: dict[str, list[str]]
    classes: dict[str, list[str]]
    base: str

    def accepts(self, row: dict[str, Any]) -> bool:
        """Return whether `config.keep` keeps a row."""
        return all(_look_up(row, column) in values for column, values in self.config.keep.items())

    def read_roles(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row's values by role: class labels as names, and for a list of columns a list of non-empty cells."""
        values = {}
        for role, columns in self.columns.items():
            found = [_look_up(row, column) for column in columns]
            if role in self.classes and found[0] is not None:
                found = [self.classes[role][found[0]]]
            given = isinstance(self.config.columns.get(role), list)
            values[role] = [value for value in found if value is not None] if given else found[0]
        values.setdefault("id", row.get("__key__"))
        return values


@rename_arguments({"backoff": "retry"})
def open_source(config: SourceConfig, retry: RetryPolicy | None = None) -> Source:
    """Find a data set and check its columns. At most its first row is read.

    Args:
        config: The data set and how to read it.
        retry: Policy for lost connections. In offline mode nothing is retried.

    Returns:
        The opened source.

    Raises:
        ValueError: If the data set does not exist, has no such split, lacks a column (the error lists those found), or
            a column does not hold what its role requires.
        LostConnectionError: If the connection stays down.

    Example:
        >>> import json, pathlib
        >>> from fclm_hf.data import SourceConfig, open_source
        >>> _ = pathlib.Path("rows.json").write_text(json.dumps([{"image": "a.png"}]))
        >>> source = open_source(SourceConfig("json", "background", data_files="rows.json"))
        >>> [source.read_roles(row)["image"] for row in source.dataset]
        ['a.png']
    """
    retry = choose_retry_policy(retry)
    index = _find_index(config)
    dataset = retry.run(lambda: _load(config, index), f"Opening {config.label}")
    features = dataset.features or retry.run(lambda: _infer_features(dataset), f"Reading {config.label}")
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


def _find_index(config: SourceConfig) -> Path | None:
    """Return the file that lists the images of a training set folder, or None for any other data set."""
    if config.data_files or config.kind not in _INDEX_FILES:
        return None
    path = Path(config.path, _INDEX_FILES[config.kind])
    return path if path.is_file() else None


def _load(config: SourceConfig, index: Path | None) -> datasets.IterableDataset:
    """Return the rows of a data set, or of the file `index` if there is one."""
    if config.layout is not None:
        rows = datasets.Dataset.from_list(read_layout(config.layout, Path(config.path), config.split))
        return rows.to_iterable_dataset(num_shards=min(64, len(rows)))
    arguments = {"name": config.config_name, "split": config.split, "revision": config.revision}
    if index is None:
        arguments |= {"path": config.path, "data_files": config.data_files}
    else:
        arguments |= {"path": "json", "data_files": str(index)}
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
    """Return the features of the first row."""
    # not iter(dataset), which would split the rows among the workers of a DataLoader
    row = next(iter(dataset.iter(batch_size=1)), {})
    return datasets.Features.from_arrow_schema(pyarrow.table(row).schema)


def _find_base(config: SourceConfig) -> str:
    """Return the base of relative paths in cells: the folder of the file that lists them, or the data set's root."""
    files = config.data_files
    folder = os.path.dirname(files) if isinstance(files, str) else ""  # noqa: PTH120  may be a URL
    is_local = Path(config.path).is_dir()
    is_loader = "/" not in config.path and not is_local
    if "://" in folder or Path(folder).is_absolute() or is_loader:
        return folder
    revision = f"@{config.revision}" if config.revision else ""
    root = os.path.abspath(config.path) if is_local else f"hf://datasets/{config.path}{revision}"  # noqa: PTH100  keeps symlinks
    return f"{root}/{folder}".rstrip("/")


def _match_columns(config: SourceConfig, features: Mapping[str, Any], defaults: dict[str, str]) -> dict[str, list[str]]:
    """Return the columns of each role that the data set has; `defaults` are the columns of roles not given."""
    columns = {}
    roles = KINDS[config.kind]
    for role in (*roles.required, *roles.optional):
        given = config.columns.get(role, defaults.get(role, role))
        names = given if isinstance(given, list) else [given]
        if _exist(config, role, names, features, is_needed=role in roles.required or role in config.columns):
            for name in names:
                _check_type(config, role, name, _look_up(features, name), features, as_list=isinstance(given, list))
            columns[role] = names
    for name in config.keep:
        if _look_up(features, name) is None:
            raise ValueError(
                f"{config.label}: column {name!r} of keep does not exist. Columns found: {', '.join(features)}."
            )
    return columns


def _exist(config: SourceConfig, role: str, names: list[str], features: Mapping[str, Any], is_needed: bool) -> bool:
    """Return whether all columns of a role exist; raise ValueError if needed ones do not, or none is named."""
    missing = [name for name in names if _look_up(features, name) is None]
    if not names or (missing and is_needed):
        wanted = f"column {missing[0]!r}" if missing else "a column"
        raise ValueError(
            f"{config.label} (kind {config.kind!r}): {wanted} for {role!r} does not exist. Columns found:"
            f" {', '.join(features)}. Name the right one with columns={{{role!r}: ...}}."
        )
    return not missing


def _check_type(
    config: SourceConfig, role: str, name: str, feature: Any, features: Mapping[str, Any], as_list: bool
) -> None:
    """Check that a column holds images if its role requires them; with `as_list`, those of one of several objects."""
    if role in _IMAGE_LISTS and not as_list:
        element = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        right, wanted = element is not None and _holds_images(element), "a list of images"
    elif role in (*_IMAGES, *_IMAGE_LISTS):
        right, wanted = _holds_images(feature), "images"
    else:
        return
    if not right:
        raise ValueError(
            f"{config.label} (kind {config.kind!r}): column {name!r} for {role!r} must hold {wanted}, got"
            f" {feature}. Columns found: {', '.join(features)}."
        )


def _holds_images(feature: Any) -> bool:
    """Return whether a column holds images, their bytes, or paths to them."""
    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, Mapping):
        return "bytes" in feature or "path" in feature
    return isinstance(feature, datasets.Value) and feature.dtype.removeprefix("large_") in ("binary", "string")


def _look_up(row: Mapping[str, Any], column: str) -> Any:
    """Return `row[column]`, or the field that "column.field" names; None if it does not exist."""
    if column in row:
        return row[column]
    for name in column.split("."):
        if not isinstance(row, Mapping) or name not in row:
            return None
        row = row[name]
    return row
