"""Arguments of a training run: dataclasses whose values are checked before any heavy work."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from ..configuration_fclm import FCLMConfig
from ..data import PAPER_TEMPLATE, BatchSettings, CompositionSettings, PairSettings, PromptSettings, SourceConfig
from ..hub.checkpoints import check_repo_id
from .objective.settings import TrainingSettings
from .parsing import build_dataclass, check_known, parse_yaml


RESERVED_SETTINGS = ("image_mean", "image_std")  # set from the image processor
# fields whose values are mappings, or lists of mappings, of the fields of another dataclass
NESTED_FIELDS = {
    "settings": TrainingSettings,
    "composition": CompositionSettings,
    "prompts": PromptSettings,
    "sources": SourceConfig,
    "backgrounds": SourceConfig,
    "validation": SourceConfig,
    "validation_backgrounds": SourceConfig,
}


def _check_minimum(arguments: Any, minimum: float, *names: str) -> None:
    """Raise a `ValueError` unless each of the named fields is `None` or a finite number of at least `minimum`."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not minimum <= value < float("inf"):
            raise ValueError(f"{name} must be at least {minimum:g}, got {value}.")


@dataclass
class ModelArguments:
    """Student, teacher and training objective; each field is described by its help text in `fclm train --help`."""

    _argument_group_name = "model"

    model: str = field(
        default="lite",
        metadata={
            "help": "Model to start from: 'matting-small' or 'dis-base' (the paper's models), 'lite', or the "
            "folder or Hub id of an FCLM checkpoint."
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={"help": "DINOv2 checkpoint for the backbone of the paper's models. Default: the official one."},
    )
    text_encoder: str | None = field(
        default=None,
        metadata={"help": "CLIP checkpoint for the text encoder of the paper's models. Default: the official one."},
    )
    teacher: str | None = field(
        default=None,
        metadata={"help": "Depth Anything checkpoint that serves as the teacher. Default: Depth Anything V2 Large."},
    )
    semantic_teacher: str | None = field(
        default=None,
        metadata={
            "help": "FCLM checkpoint whose semantic map the model is held to with settings.semantic_weight. Default: "
            "the model that training starts from."
        },
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer of the lite model. Default: the one of the embedded checkpoint."}
    )
    pretrained: bool = field(
        default=True, metadata={"help": "Initialize the backbone of the lite model with ImageNet weights."}
    )
    config: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "Fields of FCLMConfig to override, for example --config.decoder_layers 1."},
    )
    settings: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "Fields of TrainingSettings to override, for example --settings.distillation none."},
    )
    freeze_stages: int = field(
        default=0,
        metadata={
            "help": "Number of backbone stages of the lite model to freeze, in addition to the stem; 0 freezes nothing."
        },
    )
    encoder_sizes: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Side lengths of the padded encoder input in pixels, one of which is drawn at each step. "
            "Default: the encoder_size of the model."
        },
    )

    def __post_init__(self) -> None:
        self.config = parse_yaml(self.config, "config")
        if not isinstance(self.config, dict):
            raise ValueError(f"config must be a mapping, got {self.config!r}.")
        check_known(self.config, [each.name for each in fields(FCLMConfig)], "config")
        settings = parse_yaml(self.settings, "settings")
        self.settings = build_dataclass(TrainingSettings, settings, "settings", RESERVED_SETTINGS)
        if self.semantic_teacher is not None and not self.settings.semantic_weight:
            raise ValueError("semantic_teacher requires a positive settings.semantic_weight, got 0.")
        _check_minimum(self, 0, "freeze_stages")
        if any(size < 1 for size in self.encoder_sizes):
            raise ValueError(f"encoder_sizes must be positive, got {self.encoder_sizes}.")


@dataclass
class DataArguments:
    """Training and validation data; each field is described by its help text in `fclm train --help`."""

    _argument_group_name = "data"
    RENAMED: ClassVar[dict[str, str]] = {
        "automatic": "empty_prompt_prob",
        "whole_photo": "whole_photo_prob",
        "max_fault_share": "max_invalid_fraction",
        "num_workers": "dataloader_num_workers",
        "prefetch_factor": "dataloader_prefetch_factor",
    }

    sources: list[str] = field(
        default_factory=list,
        metadata={"help": "Data sets of objects and photos, each a mapping of SourceConfig fields."},
    )
    backgrounds: list[str] = field(
        default_factory=list,
        metadata={"help": "Data sets of backgrounds, each a mapping of SourceConfig fields with kind: background."},
    )
    validation: list[str] = field(
        default_factory=list, metadata={"help": "Held-out data sets, in the format of sources."}
    )
    validation_backgrounds: list[str] = field(
        default_factory=list, metadata={"help": "Backgrounds for validation. Default: the training backgrounds."}
    )
    validation_batches: int = field(
        default=8, metadata={"help": "Validation batches per process, composed once before training starts."}
    )
    composition: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "Fields of CompositionSettings to override, for example --composition.size 512."},
    )
    prompts: dict | str | None = field(
        default_factory=lambda: {"templates": [PAPER_TEMPLATE]},
        metadata={"help": "Fields of PromptSettings to override."},
    )
    prompts_per_image: int = field(default=3, metadata={"help": "Prompts per pair of images."})
    contrast_names: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Names that named objects are contrasted with by settings.name_weight, besides those in the batch."
        },
    )
    empty_prompt_prob: float = field(
        default=0.2,
        metadata={"help": "Probability that a prompt is empty, which asks for everything in the foreground."},
    )
    whole_photo_prob: float = field(
        default=0.3, metadata={"help": "Probability that a photo is used in full instead of a random crop of it."}
    )
    max_invalid_fraction: float = field(
        default=0.05, metadata={"help": "Training stops when a larger fraction of the samples is invalid."}
    )
    stream_shards: int = field(
        default=0,
        metadata={
            "help": "Parts that the sources are split into, which decides the order of the samples. A multiple of "
            "processes times workers lets each worker read only rows of its own. 0: up to 8, by the number of files."
        },
    )
    dataloader_num_workers: int = field(default=1, metadata={"help": "Data loading workers per training process."})
    dataloader_prefetch_factor: int = field(
        default=2, metadata={"help": "Batches that each worker prepares in advance."}
    )

    def __post_init__(self) -> None:
        for name in ("sources", "backgrounds", "validation", "validation_backgrounds"):
            values = [parse_yaml(value, name) for value in getattr(self, name)]
            setattr(self, name, [build_dataclass(SourceConfig, each, f"{name}[{i}]") for i, each in enumerate(values)])
        if not self.sources or not self.backgrounds:
            raise ValueError("sources and backgrounds must each name at least one data set.")
        for name in ("composition", "prompts"):
            values = parse_yaml(getattr(self, name), name)
            setattr(self, name, build_dataclass(NESTED_FIELDS[name], values, name))
        _check_minimum(self, 1, "validation_batches", "prompts_per_image", "dataloader_prefetch_factor")
        _check_minimum(self, 0, "stream_shards", "dataloader_num_workers")
        for name in ("empty_prompt_prob", "whole_photo_prob", "max_invalid_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")

    def make_pair_settings(self, seed: int) -> PairSettings:
        """Return the settings of the pairs (A, B)."""
        return PairSettings(self.composition, self.whole_photo_prob, seed, self.max_invalid_fraction)

    def make_batch_settings(self, batch_size: int, has_regions: bool = False) -> BatchSettings:
        """Return the settings of the batches."""
        return BatchSettings(
            batch_size,
            self.prompts_per_image,
            self.empty_prompt_prob,
            self.prompts,
            has_regions,
            tuple(self.contrast_names),
        )


@dataclass
class RunArguments:
    """Optimization, logging and saving; each field is described by its help text in `fclm train --help`.

    Fields that `transformers.TrainingArguments` has too have the same name here.
    """

    _argument_group_name = "run"
    RENAMED: ClassVar[dict[str, str]] = {
        "batch_size": "per_device_train_batch_size",
        "encoder_factor": "backbone_lr_multiplier",
        "schedule": "lr_scheduler_type",
        "gradient_checkpointing": "activation_checkpointing",
        "log_steps": "logging_steps",
        "trackers": "report_to",
        "hub_private": "hub_private_repo",
    }

    output_dir: str = field(metadata={"help": "Output folder of the run. Required."})
    max_steps: int = field(default=10_000, metadata={"help": "Total number of optimizer steps."})
    per_device_train_batch_size: int = field(
        default=8, metadata={"help": "Pairs of images per process and forward pass."}
    )
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per optimizer step."})
    learning_rate: float = field(
        default=1e-5, metadata={"help": "Peak learning rate of all parameters except the backbone."}
    )
    backbone_lr_multiplier: float = field(
        default=1.0, metadata={"help": "Learning rate of the backbone as a multiple of learning_rate."}
    )
    weight_decay: float = field(
        default=0.01,
        metadata={
            "help": "AdamW weight decay of the backbone and of all other matrices; biases and norms outside the "
            "backbone have none."
        },
    )
    adam_beta2: float = field(default=0.999, metadata={"help": "AdamW beta2."})
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = field(
        default="constant", metadata={"help": "Learning rate schedule; 'constant' is the paper's."}
    )
    warmup_steps: int = field(default=0, metadata={"help": "Steps of linear warmup from 0 to the peak learning rate."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Maximum gradient norm; 0 disables clipping."})
    mixed_precision: Literal["no", "fp16", "bf16"] = field(default="no", metadata={"help": "Precision of autocast."})
    activation_checkpointing: bool = field(
        default=False, metadata={"help": "Recompute activations in the backward pass to save memory."}
    )
    fsdp: bool = field(
        default=False,
        metadata={"help": "Divide weights, gradients and optimizer state among the processes with FSDP2."},
    )
    sync_batch_norm: bool = field(
        default=False,
        metadata={
            "help": "Take the statistics of batch norms over the images of all processes, which then train as one "
            "with the same global batch does."
        },
    )
    torch_compile: bool = field(
        default=False,
        metadata={"help": "Compile the modules of the model with torch.compile; the first steps then take minutes."},
    )
    torch_compile_backend: str = field(default="inductor", metadata={"help": "Backend of torch.compile."})
    ema_decay: float = field(
        default=0.0,
        metadata={
            "help": "Decay of the exponential moving average of the weights, which is what is validated and "
            "saved; 0 disables it."
        },
    )
    seed: int = field(
        default=0, metadata={"help": "Random seed; a run with the same seed and arguments gives the same result."}
    )
    threads: int | None = field(default=None, metadata={"help": "PyTorch threads on a CPU. Default: PyTorch's choice."})
    logging_steps: int = field(
        default=20, metadata={"help": "Steps between two log entries; losses are averaged over them."}
    )
    eval_steps: int = field(default=1000, metadata={"help": "Steps between two validations."})
    save_steps: int = field(default=500, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int = field(
        default=2,
        metadata={"help": "Number of checkpoints to keep; older ones are deleted. best/ and last/ are always kept."},
    )
    save_dtype: Literal["float32", "float16"] = field(
        default="float32", metadata={"help": "Data type of the weights in best/ and last/."}
    )
    report_to: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Trackers to log to besides history.jsonl: tensorboard, trackio, wandb, ..., 'all' that are "
            "installed, or 'none'."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint to resume from: a file in checkpoints/, or 'latest', which starts from scratch if "
            "there is none."
        },
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "Upload the best weights at the end, or the last ones without validation."}
    )
    push_steps: int = field(default=0, metadata={"help": "Steps between uploads during training; 0 disables them."})
    hub_model_id: str | None = field(
        default=None,
        metadata={"help": "Hub repository to upload to: name or namespace/name. Default: the name of output_dir."},
    )
    hub_private_repo: bool = field(default=False, metadata={"help": "Make a newly created Hub repository private."})

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name the output folder of the run, got an empty string.")
        if Path(self.output_dir).exists() and not Path(self.output_dir).is_dir():
            raise ValueError(f"output_dir must be a folder, got the file {self.output_dir}.")
        _check_minimum(self, 1, "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "threads")
        _check_minimum(self, 1, "logging_steps", "eval_steps", "save_steps", "save_total_limit")
        _check_minimum(self, 0, "learning_rate", "backbone_lr_multiplier", "weight_decay", "warmup_steps", "seed")
        _check_minimum(self, 0, "max_grad_norm", "ema_decay", "adam_beta2", "push_steps")
        for name in ("ema_decay", "adam_beta2"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be less than 1, got {getattr(self, name)}.")
        if self.fsdp and self.ema_decay:
            raise ValueError(f"ema_decay must be 0 with fsdp, got {self.ema_decay}.")
        if self.sync_batch_norm and self.torch_compile:
            raise ValueError("sync_batch_norm must be False with torch_compile, got True.")
        self._check_trackers()
        if self.torch_compile:  # the list takes seconds to import
            check_known([self.torch_compile_backend], torch.compiler.list_backends(()), "torch_compile_backend")
        if self.push_to_hub or self.push_steps:
            self.hub_model_id = self.hub_model_id or Path(self.output_dir).resolve().name
            check_repo_id(self.hub_model_id, "hub_model_id is not accepted")

    def _check_trackers(self) -> None:
        """Resolve 'all' and 'none', and check that the trackers are installed."""
        installed = [str(each) for each in get_available_trackers()]
        if self.report_to in (["all"], ["none"]):
            self.report_to = installed if self.report_to == ["all"] else []
        for name in self.report_to:
            check_known([name], LOGGER_TYPE_TO_CLASS, "report_to")
            if name not in installed:
                raise ValueError(f"report_to must name installed trackers, {name} is not installed.")


@dataclass
class Arguments:
    """All arguments of a run.

    Args:
        model: Student, teacher and objective.
        data: Training and validation data.
        run: Optimization, logging and saving.
    """

    model: ModelArguments
    data: DataArguments
    run: RunArguments

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name, as plain numbers, strings, lists and dicts."""
        plain = json.loads(json.dumps({**asdict(self.model), **asdict(self.data), **asdict(self.run)}))
        for name in RESERVED_SETTINGS:
            plain["settings"].pop(name)
        return plain

    def to_yaml(self) -> str:
        """Return all fields as a YAML file that `fclm train` accepts."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


__all__ = ["Arguments", "DataArguments", "ModelArguments", "RunArguments"]
