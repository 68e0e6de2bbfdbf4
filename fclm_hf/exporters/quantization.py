"""Weights of ONNX graphs as 8-bit integers or half floats, and convolutions at full size in integers.

A weight becomes `(cast(integers) - zero_points) * scales`, in operators that every runtime evaluates once, when it
loads the graph. So a graph is a quarter or half as large, runs as fast as before, and its activations are not rounded,
to which the depthwise convolutions of EfficientNet are sensitive. So are its narrow layers to the rounding of weights:
small convolutions keep half floats, which costs the embedded checkpoint a sixth more bytes and leaves an eighth of the
error.

The layers that draw at full size take most of the time, and rounding does little harm to them: they can have integer
activations as well.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


MIN_WEIGHTS = 1024  # smaller tensors, such as biases, stay as they are
MIN_INTEGERS = 80_000  # convolutions with fewer weights keep half floats
LARGE_LAYERS = ("detail_path.", "upsamplers.")  # in the names of the weights of layers at strides 8 to 2
_OUTPUT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gather": 0}  # of a weight; MatMul has it last


def quantize_weights(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """Store the weights of a graph with fewer bits.

    Args:
        model: The model; it is changed.
        dtype: "int8" (symmetric, one scale per output channel), "uint8" (the same with a zero point) or "fp16". Of
            convolutions with fewer than `MIN_INTEGERS` weights, it is "fp16" always.

    Returns:
        The model.
    """
    graph = model.graph
    axes = dict(_find_weights(graph))
    convolutions = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    restoring, initializers = [], []
    for tensor in graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if tensor.name not in axes or weight.size < MIN_WEIGHTS or weight.dtype != np.float32:
            initializers.append(tensor)
            continue
        is_small = tensor.name in convolutions and weight.size < MIN_INTEGERS
        parts = _quantize(weight, axes[tensor.name], "fp16" if is_small else dtype)
        initializers += [numpy_helper.from_array(part, f"{tensor.name}.{name}") for name, part in parts.items()]
        restoring += _restore(tensor.name, parts)
    nodes = [*restoring, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend(nodes)
    return model


def quantize_large_layers(model: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]]) -> onnx.ModelProto:
    """Let the convolutions of `LARGE_LAYERS` compute in 8-bit integers: uint8 activations and int8 weights.

    Weights have 7 bits, as processors without VNNI add two products in 16 bits.

    Args:
        model: The model.
        feeds: Inputs by name, whose activations give the ranges; larger ones are clipped.

    Returns:
        A new model, or the same one if it has no such layers.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    layers = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(name in node.input[1] for name in LARGE_LAYERS)
    ]
    if not layers:
        return model

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            names = {each.name for each in model.graph.input}
            self.feeds = iter([{name: each[name] for name in names} for each in feeds])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    # the exporter has fused what can be; without this mark there is a warning
    add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            path,
            Reader(),
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=layers,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load(path)
    del quantized.metadata_props[:]
    return quantized


def _find_weights(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Yield the names of the weights of layers with the axis of their output channels."""
    for node in graph.node:
        if node.op_type in _OUTPUT_AXES:
            weight = 0 if node.op_type == "Gather" else 1
            yield node.input[weight], _OUTPUT_AXES[node.op_type]
        elif node.op_type == "MatMul":
            yield from ((name, -1) for name in node.input)
        elif node.op_type == "Gemm":
            is_transposed = any(each.name == "transB" and each.i for each in node.attribute)
            yield node.input[1], 0 if is_transposed else 1


def _quantize(weight: np.ndarray, axis: int, dtype: str) -> dict[str, np.ndarray]:
    """Return the stored weights and, of integers, what restores them, shaped for broadcasting."""
    if dtype == "fp16":
        return {"half": weight.astype(np.float16)}
    others = tuple(each for each in range(weight.ndim) if each != axis % weight.ndim)
    low, high = weight.min(others, keepdims=True), weight.max(others, keepdims=True)
    if dtype == "int8":
        scale = np.maximum(np.maximum(high, -low), np.finfo(np.float32).tiny * 127) / np.float32(127)
        return {"int8": np.rint(weight / scale).astype(np.int8), "scale": scale}
    scale = np.maximum(high - low, np.finfo(np.float32).tiny * 255) / np.float32(255)
    zero_point = -low / scale
    return {
        "uint8": np.rint(weight / scale + zero_point).clip(0, 255).astype(np.uint8),
        "zero": zero_point,
        "scale": scale,
    }


def _restore(name: str, parts: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """Return the nodes that compute the weight of this name from its parts."""
    stored, *rest = parts
    steps = [("Cast", [f"{name}.{stored}"], {"to": TensorProto.FLOAT})]
    steps += [({"zero": "Sub", "scale": "Mul"}[part], [f"{name}.{part}"], {}) for part in rest]
    nodes, previous = [], []
    for index, (operator, inputs, attributes) in enumerate(steps):
        output = name if index == len(steps) - 1 else f"{name}.{operator.lower()}"
        nodes.append(helper.make_node(operator, [*previous, *inputs], [output], f"{name}.{operator}", **attributes))
        previous = [output]
    return nodes


__all__ = ["quantize_large_layers", "quantize_weights"]
