"""The ONNX graphs of an exported model: where they are, and their sessions in ONNX Runtime."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


IMAGE_ENCODER, TEXT_ENCODER, PROMPT_DECODER = "image_encoder.onnx", "text_encoder.onnx", "prompt_decoder.onnx"
MASK_ENCODER = "mask_encoder.onnx"  # of mask prompts, which few use; models without dense prompts have none
GRAPHS = (IMAGE_ENCODER, TEXT_ENCODER, PROMPT_DECODER)
SUBFOLDER = "onnx"  # of a Hub repository, where transformers.js looks
MISSING_RUNTIME = 'ONNX Runtime is missing: pip install "fclm-hf[export]", or onnxruntime alone.'


def find_graphs(folder: str | os.PathLike) -> Path | None:
    """Return the folder with the ONNX graphs: the given one, its `onnx/`, or None if neither has all three.

    Args:
        folder: A folder; anything else has no graphs.

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.onnx import find_graphs
        >>> find_graphs(LITE_CHECKPOINT) is None
        True
    """
    for candidate in (Path(folder), Path(folder) / SUBFOLDER):
        if all((candidate / name).is_file() for name in GRAPHS):
            return candidate
    return None


def has_only_graphs(folder: str | os.PathLike) -> bool:
    """Return whether a folder is one that `fclm export-onnx` wrote, and not a checkpoint with an `onnx/` in it.

    Args:
        folder: A folder; anything else has no graphs.

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.onnx import has_only_graphs
        >>> has_only_graphs(LITE_CHECKPOINT)
        False
    """
    return find_graphs(folder) == Path(folder) and not any(Path(folder).glob("*.safetensors"))


class OnnxGraphs:
    """Graphs of a folder, each loaded when it is first used: who only clicks needs no text tower.

    Args:
        folder: Folder of the graphs, or one with them in its `onnx/`.
        providers: Execution providers of ONNX Runtime, best first. Defaults to all that are available.
        session_options: `onnxruntime.SessionOptions`. Defaults to those of [`make_session_options`].

    Raises:
        ImportError: If ONNX Runtime is not installed.
        OSError: If there is no such folder, or a graph is missing.
    """

    def __init__(
        self, folder: str | os.PathLike, providers: Sequence[Any] | None = None, session_options: Any = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(MISSING_RUNTIME) from error
        graphs = find_graphs(folder)
        if graphs is None:
            raise OSError(f"{folder} must contain {', '.join(GRAPHS)}, or a folder {SUBFOLDER} with them.")
        self.folder = graphs
        self.providers = list(providers or onnxruntime.get_available_providers())
        self._options = session_options or make_session_options()
        self._sessions: dict[str, Any] = {}

    def run(
        self, name: str, feeds: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Run a graph on those feeds that it takes and return its outputs, or some of them, by name."""
        import onnxruntime

        session = self.open(name)
        accepted = {each.name for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()] if outputs is None else list(outputs)
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = outputs is not None
        values = session.run(names, {name: value for name, value in feeds.items() if name in accepted}, options)
        return dict(zip(names, values, strict=True))

    def open(self, name: str) -> Any:
        """Return the session of a graph."""
        if name not in self._sessions:
            import onnxruntime

            if name == MASK_ENCODER and not (self.folder / name).is_file():
                raise ValueError("input_masks requires config.dense_prompts, got dense_prompts=False.")
            options, levels = self._options, onnxruntime.GraphOptimizationLevel
            level = options.graph_optimization_level
            if name == PROMPT_DECODER and level == levels.ORT_ENABLE_ALL:
                # blocks of 16 channels fit the few channels of its large maps badly
                options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
            self._sessions[name] = onnxruntime.InferenceSession(str(self.folder / name), options, self.providers)
            options.graph_optimization_level = level
        return self._sessions[name]


def make_session_options() -> Any:
    """Return `onnxruntime.SessionOptions` whose threads do not wait busily for more work.

    Each graph has threads of its own. While those of the image encoder waited so, the decoder had to share its
    processors with them, and the first prompt took half as long again.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
