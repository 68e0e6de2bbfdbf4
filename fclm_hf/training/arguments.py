"""What a training run is asked to do: dataclasses that a YAML file and flags fill, checked before any heavy work."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from transformers import HfArgumentParser

from ..configuration_fclm import FCLMConfig
from ..data import PAPER_TEMPLATE, BatchSettings, CompositionSettings, PairSettings, PromptSettings, SourceConfig
from ..hub.checkpoints import check_repo_id
from .objective.settings import TrainingSettings
from .parsing import build_dataclass, refuse_unknown


USAGE = "%(prog)s CONFIG.yaml [--field value ...] [--field.key value ...]"
RESERVED_SETTINGS = ("image_mean", "image_std")  # the processor's


def _describe(text: str, **kwargs: Any) -> Any:
    return field(metadata={"help": text}, **kwargs)


def _read_mapping(value: Any, name: str) -> Any:
    """What a field holds that is a mapping, or on the command line its text."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError as error:
        raise ValueError(f"{name} cannot be read as YAML: {error}") from error


def _require(arguments: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not least <= value < float("inf"):
            raise ValueError(f"{name} must be at least {least:g}, got {value}.")


@dataclass
class ModelArguments:
    """The student, its teacher and the objective."""

    model: str = _describe(
        "matting-small or dis-base (the paper's), lite, or a checkpoint of FCLM: folder or Hub id.", default="lite"
    )
    backbone: str | None = _describe("DINOv2 that the paper's presets start from. Default: theirs.", default=None)
    text_encoder: str | None = _describe("CLIP that they start from. Default: theirs.", default=None)
    teacher: str | None = _describe("Depth-Anything. Default: V2 Large.", default=None)
    tokenizer: str | None = _describe("Of lite. Default: the embedded checkpoint's.", default=None)
    pretrained: bool = _describe("lite starts from ImageNet weights.", default=True)
    config: dict | str | None = _describe("Fields of FCLMConfig to change.", default_factory=dict)
    settings: dict | str | None = _describe(
        "Fields of TrainingSettings: --settings.distillation none.", default_factory=dict
    )
    freeze_stages: int = _describe("Stages of lite's encoder that keep their weights, besides the stem.", default=0)
    encoder_sizes: list[int] = _describe("Sides of the encoder's canvas, drawn anew each step.", default_factory=list)

    def __post_init__(self) -> None:
        self.config = _read_mapping(self.config, "config")
        if not isinstance(self.config, dict):
            raise ValueError(f"config must be a mapping, got {self.config!r}.")
        refuse_unknown(self.config, [each.name for each in fields(FCLMConfig)], "config")
        settings = _read_mapping(self.settings, "settings")
        self.settings = build_dataclass(TrainingSettings, settings, "settings", RESERVED_SETTINGS)
        _require(self, 0, "freeze_stages")
        if any(size < 1 for size in self.encoder_sizes):
            raise ValueError(f"encoder_sizes must be positive, got {self.encoder_sizes}.")


@dataclass
class DataArguments:
    """What it learns from and is measured on."""

    sources: list[str] = _describe("Mappings of SourceConfig's fields: objects and photos.", default_factory=list)
    backgrounds: list[str] = _describe("The same, of kind background.", default_factory=list)
    validation: list[str] = _describe("Held-out sources, as sources.", default_factory=list)
    validation_backgrounds: list[str] = _describe("Default: backgrounds.", default_factory=list)
    validation_batches: int = _describe("Batches per process, drawn once and kept.", default=8)
    composition: dict | str | None = _describe(
        "Fields of CompositionSettings: --composition.size 512.", default_factory=dict
    )
    prompts: dict | str | None = _describe(
        "Fields of PromptSettings.", default_factory=lambda: {"templates": [PAPER_TEMPLATE]}
    )
    prompts_per_image: int = _describe("Prompts for each pair.", default=3)
    automatic: float = _describe("Share of prompts that are empty.", default=0.2)
    whole_photo: float = _describe("How often a photo is shown whole instead of a part of it.", default=0.3)
    max_fault_share: float = _describe("Training stops when more of the samples are faulty.", default=0.05)
    num_workers: int = _describe("Processes that compose pairs, per training process.", default=1)
    prefetch_factor: int = _describe("Batches that each makes ahead.", default=2)

    def __post_init__(self) -> None:
        for name in ("sources", "backgrounds", "validation", "validation_backgrounds"):
            values = [_read_mapping(value, name) for value in getattr(self, name)]
            setattr(self, name, [build_dataclass(SourceConfig, each, f"{name}[{i}]") for i, each in enumerate(values)])
        if not self.sources or not self.backgrounds:
            raise ValueError("sources and backgrounds must each name at least one data set.")
        composition = _read_mapping(self.composition, "composition")
        self.composition = build_dataclass(CompositionSettings, composition, "composition")
        self.prompts = build_dataclass(PromptSettings, _read_mapping(self.prompts, "prompts"), "prompts")
        _require(self, 1, "validation_batches", "prompts_per_image", "prefetch_factor")
        _require(self, 0, "num_workers", "automatic", "whole_photo", "max_fault_share")
        for name in ("automatic", "whole_photo", "max_fault_share"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is a share in [0, 1], got {getattr(self, name)}.")

    def make_pair_settings(self, seed: int) -> PairSettings:
        return PairSettings(self.composition, self.whole_photo, seed, self.max_fault_share)

    def make_batch_settings(self, batch_size: int) -> BatchSettings:
        return BatchSettings(batch_size, self.prompts_per_image, self.automatic, self.prompts)


@dataclass
class RunArguments:
    """How it learns, and what is kept."""

    output_dir: str = _describe("Folder of the run.", default="")
    max_steps: int = _describe("Updates of the weights.", default=10_000)
    batch_size: int = _describe("Pairs per process and forward pass.", default=8)
    gradient_accumulation_steps: int = _describe("Batches per step.", default=1)
    learning_rate: float = _describe("Of all but the encoder.", default=1e-5)
    encoder_factor: float = _describe("The encoder's rate over the others'.", default=1.0)
    weight_decay: float = _describe("AdamW's, on matrices and on all of the encoder.", default=0.01)
    adam_beta2: float = _describe("AdamW's.", default=0.999)
    schedule: Literal["constant", "cosine"] = _describe("Constant is the paper's.", default="constant")
    warmup_steps: int = _describe("Steps over which the rate rises from 0.", default=0)
    max_grad_norm: float = _describe("Gradients are clipped to it; 0 for not.", default=1.0)
    mixed_precision: Literal["no", "fp16", "bf16"] = _describe("Of autocast.", default="no")
    gradient_checkpointing: bool = _describe("Compute activations again to save memory.", default=False)
    ema_decay: float = _describe("Of the averaged weights that are measured and saved; 0 for none.", default=0.0)
    seed: int = _describe("The same seed gives the same run.", default=0)
    threads: int | None = _describe("Of torch on a CPU. Default: its own choice.", default=None)
    log_steps: int = _describe("Losses are means over so many steps.", default=20)
    eval_steps: int = _describe("Steps between validations.", default=1000)
    save_steps: int = _describe("Steps between checkpoints.", default=500)
    save_total_limit: int = _describe("Checkpoints to resume from that are kept.", default=2)
    save_dtype: Literal["float32", "float16"] = _describe("Of the weights in best/ and last/.", default="float32")
    trackers: list[str] = _describe("tensorboard, trackio, wandb, ... where installed.", default_factory=list)
    resume_from_checkpoint: str | None = _describe(
        "latest (begins anew where there is none), or a file in checkpoints/.", default=None
    )
    push_to_hub: bool = _describe("Upload the best weights (without validation, the last) at the end.", default=False)
    push_steps: int = _describe("Also upload every so many steps; 0 for not.", default=0)
    hub_model_id: str | None = _describe("name or namespace/name. Default: the name of output_dir.", default=None)
    hub_private: bool = _describe("Hide a new repository from others.", default=False)

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name the folder of the run.")
        if Path(self.output_dir).exists() and not Path(self.output_dir).is_dir():
            raise ValueError(f"output_dir must be a folder, {self.output_dir} is a file.")
        _require(self, 1, "max_steps", "batch_size", "gradient_accumulation_steps", "threads", "log_steps")
        _require(self, 1, "eval_steps", "save_steps", "save_total_limit")
        _require(self, 0, "learning_rate", "encoder_factor", "weight_decay", "warmup_steps", "max_grad_norm", "seed")
        _require(self, 0, "ema_decay", "adam_beta2", "push_steps")
        for name in ("ema_decay", "adam_beta2"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}.")
        installed = [str(each) for each in get_available_trackers()]
        for name in self.trackers:
            refuse_unknown([name], LOGGER_TYPE_TO_CLASS, "trackers")
            if name not in installed:
                raise ValueError(f"trackers: {name} is not installed.")
        if self.push_to_hub or self.push_steps:
            self.hub_model_id = self.hub_model_id or Path(self.output_dir).resolve().name
            check_repo_id(self.hub_model_id, "hub_model_id is not accepted")


@dataclass
class Arguments:
    """All of a run, with what is needed to write it down."""

    model: ModelArguments
    data: DataArguments
    run: RunArguments

    def to_dict(self) -> dict[str, Any]:
        """Field to value, as plain numbers, strings, lists and dicts."""
        plain = json.loads(json.dumps({**asdict(self.model), **asdict(self.data), **asdict(self.run)}))
        for name in RESERVED_SETTINGS:
            plain["settings"].pop(name)
        return plain

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


class _Parser(HfArgumentParser):
    def error(self, message: str) -> None:
        raise ValueError(message)


def parse_arguments(argv: Sequence[str], program: str = "fclm train") -> Arguments:
    """Arguments of a run.

    Args:
        argv: optionally a YAML file of `field: value`, then flags, which win: `--field value ...`; `--field.key value`
            changes one key of a mapping.
        program: its name in `--help`.

    Raises:
        ValueError: one line that names the field, what is wrong with it and what is accepted.
        OSError: there is no such file.
    """
    argv = list(argv)
    parser = _Parser((ModelArguments, DataArguments, RunArguments), prog=program, usage=USAGE, allow_abbrev=False)
    names = [action.dest for action in parser._actions if action.dest != "help"]
    config: dict[str, Any] = {}
    if argv and not argv[0].startswith("-"):
        path = argv.pop(0)
        config = _read_mapping(Path(path).read_text(encoding="utf-8"), path)
        if not isinstance(config, dict):
            raise ValueError(f"{path} must hold a mapping of fields to values.")
        refuse_unknown(config, names, path)
    flags = _take_keys(argv, config)
    # YAML goes through the parser too, which checks it as it does flags
    parsed = parser.parse_args_into_dataclasses(
        [*_make_flags(config), *flags], return_remaining_strings=True, look_for_args_file=False
    )
    for word in parsed[3]:
        if word.startswith("-"):
            refuse_unknown([word.lstrip("-").partition("=")[0]], names, program)
        raise ValueError(f"{program} does not know what {word!r} belongs to.")
    return Arguments(*parsed[:3])


def _take_keys(argv: list[str], config: dict[str, Any]) -> list[str]:
    """Moves `--field.key value` and `--field.key=value` into `config`; returns the other words."""
    rest = []
    words = iter(argv)
    for word in words:
        name, is_joined, value = word.partition("=")
        if not (name.startswith("--") and "." in name):
            rest.append(word)
            continue
        section, _, key = name[2:].partition(".")
        mapping = config.setdefault(section, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"{name}: {section} is not a mapping.")
        mapping[key] = _read_mapping(value if is_joined else next(words, None), name)
    return rest


def _make_flags(config: dict[str, Any]) -> list[str]:
    def write(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    flags = []
    for name, value in config.items():
        if isinstance(value, list):
            flags += [f"--{name}", *map(write, value)] if value else []
        elif value is not None:
            flags.append(f"--{name}={write(value)}")
    return flags


__all__ = ["Arguments", "DataArguments", "ModelArguments", "RunArguments", "parse_arguments"]
