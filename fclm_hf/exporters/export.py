"""Folders with an exported checkpoint: its parts, config, processor, tokenizer and model card."""

import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub.constants import REPOCARD_NAME
from transformers.utils import CONFIG_NAME

from ..hub import check_checkpoint, load_checkpoint
from ..hub.checkpoints import fetch_checkpoint
from ..hub.export import LOCAL_KEYS
from ..utils.files import check_new_folder, edit_json, write_folder
from .calibration import make_feeds
from .cards import make_export_card
from .parts import Part, make_parts, trace_part


QUANTIZED_DTYPES = ("int8", "uint8", "fp16")


def export_onnx(checkpoint: str | os.PathLike, folder: str | os.PathLike, quantize: str | None = None) -> Path:
    """Export a checkpoint to ONNX graphs, with all sizes dynamic.

    The folder holds `image_encoder.onnx`, `text_encoder.onnx`, `prompt_decoder.onnx` and, for mask prompts,
    `mask_encoder.onnx`, so that an image is encoded once for any number of prompts; beside them the config, the files
    of the processor and a model card. [`~fclm_hf.onnx.OnnxFCLMForImageMatting`] runs them.

    Args:
        checkpoint: Folder, or id of a Hub repository.
        folder: Folder to write, new or empty. It is written atomically.
        quantize: How to store weights: "int8", "uint8" or "fp16"; by default as fp32. With "int8" the layers at full
            size compute in integers, which is faster on a CPU; everything else is computed in fp32.

    Returns:
        The folder.

    Raises:
        ImportError: If onnx, onnxscript or, for "int8", onnxruntime is not installed.
        ValueError: If `quantize` is unknown, `checkpoint` is not an FCLM checkpoint, its backbone runs at the size of
            the images, or the folder is not empty.
        OSError: If there is no such repository, or the Hub cannot be reached.

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.exporters import export_onnx
        >>> export_onnx(LITE_CHECKPOINT, "fclm-lite-onnx", quantize="uint8")  # doctest: +SKIP
        >>> export_onnx(LITE_CHECKPOINT, "fclm-lite-onnx", quantize="int4")
        Traceback (most recent call last):
        ValueError: quantize must be one of int8, uint8, fp16 or None, got 'int4'.
    """
    if quantize is not None and quantize not in QUANTIZED_DTYPES:
        raise ValueError(f"quantize must be one of {', '.join(QUANTIZED_DTYPES)} or None, got {quantize!r}.")
    check_installed("onnx", "onnxscript", *(["onnxruntime"] if quantize == "int8" else []))
    from .onnx_graphs import save_graph

    def save(parts: Sequence[Part], inside: Path) -> None:
        feeds = make_feeds(parts) if quantize == "int8" else {}
        for part in parts:
            save_graph(part, inside, quantize, feeds.get(part.name, ()))

    return _export(checkpoint, folder, save, ".onnx")


def export_programs(checkpoint: str | os.PathLike, folder: str | os.PathLike, compiled: bool = False) -> Path:
    """Export a checkpoint to programs of `torch.export`, with all sizes dynamic.

    The folder holds the same parts as that of [`export_onnx`], as `.pt2` files for `torch.export.load`. The size of the
    encoder input is fixed, so they take one look only.

    Args:
        checkpoint: Folder, or id of a Hub repository.
        folder: Folder to write, new or empty. It is written atomically.
        compiled: Whether to compile the parts for this machine with AOTInductor; the packages are for
            `torch._inductor.aoti_load_package`, and compiling needs a C++ compiler.

    Returns:
        The folder.

    Raises:
        ValueError: If `checkpoint` is not an FCLM checkpoint, its backbone runs at the size of the images, or the
            folder is not empty.
        OSError: If there is no such repository, or the Hub cannot be reached.

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.exporters import export_programs
        >>> export_programs(LITE_CHECKPOINT, "fclm-lite-pt2")  # doctest: +SKIP
        >>> export_programs("not/a/checkpoint", "fclm-lite-pt2")
        Traceback (most recent call last):
        ValueError: checkpoint must be a folder or the id of a Hub repository: Repo id must be ...
    """

    def save(parts: Sequence[Part], inside: Path) -> None:
        for part in parts:
            save_program(part, inside, compiled)

    return _export(checkpoint, folder, save, ".pt2")


def check_installed(*modules: str) -> None:
    """Raise an ImportError that names the extra if a module is not installed."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ImportError(f'Export needs {" and ".join(missing)}: pip install "fclm-hf[export]".')


def save_program(part: Part, folder: Path, compiled: bool = False) -> None:
    """Save a part as `<name>.pt2`.

    Args:
        part: The part.
        folder: Folder to write to.
        compiled: Whether to compile it with AOTInductor.
    """
    path = folder / f"{part.name}.pt2"
    if compiled:
        torch._inductor.aoti_compile_and_package(trace_part(part), package_path=str(path))
    else:
        torch.export.save(trace_part(part), path)


@torch.inference_mode(mode=False)  # tensors of an inference mode cannot be traced
def _export(
    checkpoint: str | os.PathLike, folder: str | os.PathLike, save: Callable[[Sequence[Part], Path], None], suffix: str
) -> Path:
    """Write a folder with the parts of a checkpoint and what belongs to them."""
    check_checkpoint(checkpoint)
    check_new_folder(folder)
    source = fetch_checkpoint(checkpoint)
    model, processor = load_checkpoint(source)
    # who runs the graphs compares the scores: only they know of mask prompts
    model.config.text_score_threshold = None
    if suffix == ".pt2":
        model.config.refinement_size = None  # compiled programs take no numbers, such as another encoder size
    model.requires_grad_(False)
    with write_folder(folder) as inside:
        save(make_parts(model), inside)
        processor.save_pretrained(inside)
        shutil.copyfile(source / CONFIG_NAME, inside / CONFIG_NAME)
        with edit_json(inside / CONFIG_NAME) as config:  # no code of the checkpoint goes with it
            for key in ("auto_map", "custom_pipelines"):
                config.pop(key, None)
        with edit_json(inside / "tokenizer_config.json") as config:
            for key in LOCAL_KEYS:
                config.pop(key, None)
        text = make_export_card(Path(folder).name, suffix)
        (inside / REPOCARD_NAME).write_text(text, encoding="utf-8")
    return Path(folder)
