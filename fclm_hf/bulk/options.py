"""Options of a run over a whole data set, validated before anything is loaded."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data import Source, SourceConfig


DTYPES = ("float32", "float16", "bfloat16")
ENGINES = ("local", "ray")
# arguments of the pipeline that hold prompts, which are roles of columns of photos, too
PROMPT_ROLES = ("text", "input_boxes", "input_points", "input_labels", "input_masks")


@dataclass
class BulkOptions:
    """Options of a run that mattes a whole data set. They are validated when the object is created.

    Args:
        source: The data set, of kind "photo".
        out: Folder of the Parquet files. Shards that are in it already are not done again.
        model: Checkpoint, as a folder or Hub id. Defaults to fclm-lite, which is included.
        prompts: Prompts for every photo, by argument of the pipeline. Without them, they come from the columns of the
            source, and photos without prompts get a matte of the salient object.
        cutout: Whether to write RGBA cutouts instead of alpha mattes.
        batch_size: Number of photos encoded at once, at least 1.
        rows_per_shard: Number of rows of an output file, at least 1; the last ones of an input file may have fewer.
        device: Device of the model, such as "cpu" or "cuda:0". Defaults to the first GPU, to that of the process where
            several run, or to the CPU.
        dtype: Precision of the model: "float32", "float16" or "bfloat16".
        workers: Number of threads that load and encode photos beside the model, at least 1.
        threads: Number of PyTorch threads on a CPU. Mattes are bit-identical only for the same number. Defaults to
            PyTorch's choice, or 1 with Ray.
        engine: "local" for the processes of this machine, or "ray" for a Ray cluster.
        address: Address of a running Ray cluster. By default the one that `ray start` began on this machine, if any, or
            else a new one.
        actors: Number of Ray actors, each with a model. Defaults to one per GPU, or per node without GPUs.

    Raises:
        ValueError: If an option is invalid; the error names it and the accepted values.

    Example:
        >>> from fclm_hf.bulk import BulkOptions
        >>> from fclm_hf.data import SourceConfig
        >>> source = SourceConfig("user/photos", "photo", columns={"image": "photo", "text": "caption"})
        >>> BulkOptions(source, "mattes", batch_size=8).describe()["model"]
        'fclm-lite'
        >>> BulkOptions(source, "mattes", prompts={"text": "dog"})
        Traceback (most recent call last):
        ValueError: prompts must be the same for all photos or come from columns, got text of both.
    """

    source: SourceConfig
    out: Path
    model: str | None = None
    prompts: dict[str, Any] = field(default_factory=dict)
    cutout: bool = False
    batch_size: int = 1
    rows_per_shard: int = 512
    device: str | None = None
    dtype: str = "float32"
    workers: int = 2
    threads: int | None = None
    engine: str = "local"
    address: str | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        self.out = Path(self.out)
        if self.source.kind != "photo":
            raise ValueError(f"source must be of kind 'photo', got {self.source.kind!r}.")
        for name, accepted in (("dtype", DTYPES), ("engine", ENGINES)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r}.")
        for name in ("batch_size", "rows_per_shard", "workers", "threads", "actors"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        for name in ("address", "actors"):
            if getattr(self, name) is not None and self.engine != "ray":
                raise ValueError(f"{name} must be used with engine 'ray', got engine {self.engine!r}.")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out must be a folder, got the file {self.out}.")
        self._check_prompts()

    def _check_prompts(self) -> None:
        """Raise a ValueError unless prompts are known and come from one place."""
        if unknown := [name for name in self.prompts if name not in PROMPT_ROLES]:
            raise ValueError(f"prompts must be {', '.join(PROMPT_ROLES)}, got {', '.join(unknown)}.")
        named = [name for name in self.source.columns if name in PROMPT_ROLES]
        if self.prompts and named:
            raise ValueError(f"prompts must be the same for all photos or come from columns, got {named[0]} of both.")

    def list_prompt_roles(self, source: Source) -> list[str]:
        """Return the roles of the columns that prompts are read from.

        Args:
            source: The opened source.
        """
        return [] if self.prompts else [name for name in PROMPT_ROLES if name in source.columns]

    def describe(self) -> dict[str, Any]:
        """Return the options that determine the mattes, as plain values."""
        names = ("path", "config_name", "split", "data_files", "revision", "columns", "keep")
        source = {name: value for name, value in asdict(self.source).items() if name in names}
        shown = {name: getattr(self, name) for name in ("prompts", "cutout", "dtype", "rows_per_shard")}
        return {"source": source, "model": self.model or "fclm-lite", **shown}
