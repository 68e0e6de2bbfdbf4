"""Compares ONNX Runtime with PyTorch on the embedded checkpoint; run by benchmark.py."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import Bench, describe_seconds, divide, fit_side


FURTHER = 5  # prompts that are timed together, as a single one is too fast to time


def load_graphs(folder: Path, quantize: str | None) -> Any:
    """Return the exported embedded checkpoint, run with as many threads as torch."""
    import onnxruntime

    from fclm_hf import LITE_CHECKPOINT
    from fclm_hf.exporters import export_onnx
    from fclm_hf.onnx import OnnxFCLMForImageMatting

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    graphs = export_onnx(LITE_CHECKPOINT, folder / f"lite-{quantize}", quantize)
    return OnnxFCLMForImageMatting(graphs, ["CPUExecutionProvider"], options)


def measure_onnx(bench: Bench) -> None:
    """Compare the first prompt of PyTorch and ONNX, and measure a further prompt as a share of the first."""
    from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting

    side = fit_side(bench.side, 32)
    image, boxes = bench.image(side).float(), bench.boxes(side)
    with tempfile.TemporaryDirectory() as temporary:
        models = {
            "pytorch": FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval(),
            "onnx fp32": load_graphs(Path(temporary), None),
            "onnx int8": load_graphs(Path(temporary), "int8"),
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
