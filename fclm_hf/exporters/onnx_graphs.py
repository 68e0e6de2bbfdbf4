"""ONNX graphs of the parts of a model.

`transformers.exporters` (5.24 and later) exports the `forward` of a `PreTrainedModel`; the parts are none, so the
exporter of torch is called directly.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset20

from .parts import Part, trace_part
from .quantization import quantize_large_layers, quantize_weights


OPSET = 20
DIMENSIONS = {  # names of dynamic dimensions; those of the maps follow from them
    "pixel_values": {0: "batch_size", 2: "height", 3: "width"},
    "image_sizes": {0: "batch_size"},
    "input_ids": {0: "num_texts", 1: "sequence_length"},
    "text_embeds": {0: "batch_size", 1: "num_objects"},
    "text_mask": {0: "batch_size", 1: "num_objects"},
    "input_points": {0: "batch_size", 1: "num_objects", 2: "num_points"},
    "input_labels": {0: "batch_size", 1: "num_objects", 2: "num_points"},
    "input_boxes": {0: "batch_size", 1: "num_objects"},
    "input_masks": {0: "batch_size", 2: "height", 3: "width"},
    "alphas": {0: "batch_size", 1: "num_objects", 2: "height", 3: "width"},
    "text_scores": {0: "batch_size", 1: "num_objects"},
    "pixel_mask": {0: "batch_size", 2: "height", 3: "width"},
    "detail_basis": {0: "batch_size", 2: "padded_height_2", 3: "padded_width_2"},
    "detail_map_4": {0: "batch_size", 2: "padded_height_4", 3: "padded_width_4"},
    "detail_map_8": {0: "batch_size", 2: "padded_height_8", 3: "padded_width_8"},
    "coarse_map": {0: "batch_size", 2: "coarse_height", 3: "coarse_width"},
    "fine_map": {0: "batch_size", 2: "fine_height", 3: "fine_width"},
    "semantic_map": {0: "batch_size", 2: "map_height", 3: "map_width"},
    "encoder_size": {},
}


def save_graph(
    part: Part, folder: Path, quantize: str | None = None, feeds: Sequence[dict[str, np.ndarray]] = ()
) -> None:
    """Export a part as `<name>.onnx`.

    Args:
        part: The part.
        folder: Folder to write to.
        quantize: How to store weights, see [`~fclm_hf.exporters.quantization.quantize_weights`].
        feeds: Inputs by which the layers at full size are quantized as a whole, see
            [`~fclm_hf.exporters.quantization.quantize_large_layers`]; without them they are not.
    """
    model = make_graph(part)
    if feeds:
        model = quantize_large_layers(model, feeds)
    if quantize is not None:
        model = quantize_weights(model, quantize)
    onnx.save(model, str(folder / f"{part.name}.onnx"))


def make_graph(part: Part) -> onnx.ModelProto:
    """Return the graph of a part, without the traces of its source code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            trace_part(part),
            (),
            dynamo=True,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.mul.Scalar: _multiply},
            verbose=False,
        )
    model = program.model_proto
    strip_metadata(model)
    name_dimensions(model.graph)
    return model


def _multiply(maps: Any, factor: Any) -> Any:
    """Translate the product of a tensor and a number, which is computed from sizes: torch expects a constant."""
    return opset20.Mul(maps, opset20.CastLike(factor, maps))


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove names of modules, source lines and intermediate shapes: a third of the file, read by nobody."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for each in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        each.ClearField("doc_string")
        del each.metadata_props[:]


def name_dimensions(graph: onnx.GraphProto) -> None:
    """Name the dynamic dimensions of inputs and outputs; those of the exporter are symbols such as s12."""
    for value in (*graph.input, *graph.output):
        name = value.name.removeprefix("masked_")
        names = DIMENSIONS["detail_basis" if name.startswith("detail_basis") else name]
        for index, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.HasField("dim_param") and index in names:
                dimension.dim_param = names[index]


__all__ = ["make_graph", "save_graph"]
