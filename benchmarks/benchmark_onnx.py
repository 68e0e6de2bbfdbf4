"""Compares ONNX Runtime with PyTorch on the embedded checkpoint; run by benchmark.py."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench import Bench, describe_seconds, divide, fit_side


FURTHER = 5  # prompts that are timed together, as a single one is too fast to time


PROVIDERS = ["CPUExecutionProvider"]


def make_options() -> Any:
    """Return options for as many threads as torch has."""
    from fclm_hf.onnx.graphs import make_session_options

    options = make_session_options()
    options.intra_op_num_threads = torch.get_num_threads()
    return options


def load_graphs(folder: Path, quantize: str | None) -> Any:
    """Return the embedded checkpoint exported into a folder, if it is not there."""
    from fclm_hf import LITE_CHECKPOINT
    from fclm_hf.exporters import export_onnx
    from fclm_hf.onnx import OnnxFCLMForImageMatting

    graphs = folder / f"lite-{quantize or 'fp32'}"
    if not graphs.exists():
        export_onnx(LITE_CHECKPOINT, graphs, quantize)
    return OnnxFCLMForImageMatting(graphs, PROVIDERS, make_options())


def open_peer(path: str, side: int) -> Callable[[], Any]:
    """Return a function that runs a network without prompts on noise, of the size that it takes or of this side."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, make_options(), PROVIDERS)
    (given,) = session.get_inputs()
    shape = [side if index > 1 and not isinstance(size, int) else size for index, size in enumerate(given.shape)]
    pixels = torch.rand(1, *shape[1:]).numpy()
    return lambda: session.run(None, {given.name: pixels})


def measure_onnx(bench: Bench, peers: Sequence[str] = (), exports: str | None = None) -> None:
    """Compare the first prompt of PyTorch and ONNX, and measure a further prompt as a share of the first.

    Args:
        bench: The benchmark.
        peers: ONNX files of networks without prompts.
        exports: Folder for exports, which are used again; by default a temporary one.
    """
    from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting

    side = fit_side(bench.side, 32)
    image, boxes = bench.image(side).float(), bench.boxes(side)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(exports or temporary)
        models = {
            "pytorch": FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval(),
            "onnx fp32": load_graphs(folder, None),
            "onnx int8": load_graphs(folder, "int8"),
        }
        runs: dict[str, Callable[[], None]] = {}
        for name, model in models.items():
            embeddings = model.get_image_embeddings(image)

            def first(model: Any = model) -> None:
                model(pixel_values=image, input_boxes=boxes)

            def further(model: Any = model, embeddings: Any = embeddings) -> None:
                for _ in range(FURTHER):
                    model(image_embeddings=embeddings, input_boxes=boxes)

            runs |= {name: first, f"{name} further": further}
        runs |= {path: open_peer(path, side) for path in peers}
        seconds = bench.time_rounds(runs)
    for name in models:
        prompts = [value / FURTHER for value in seconds[f"{name} further"]]
        note = describe_seconds(first=seconds[name], further=prompts)
        share = 100 * divide(prompts, seconds[name])
        bench.record("onnx", f"further prompt / first run, lite, {name}, {side} px", share, 15, "%", note)
    for name in ("onnx fp32", "onnx int8"):
        note = describe_seconds(**{key.replace(" ", "_"): seconds[key] for key in ("pytorch", name)})
        speedup = divide(seconds["pytorch"], seconds[name])
        bench.record("onnx", f"PyTorch / {name}, lite, first run, {side} px", speedup, 1.5, "x", note, at_most=False)
    for path in peers:
        note = describe_seconds(peer=seconds[path], lite=seconds["onnx fp32"])
        share = divide(seconds[path], seconds["onnx fp32"])
        bench.record("onnx", f"{Path(path).name} / onnx fp32, lite, first run, {side} px", share, None, "x", note)
