"""FCLM in ONNX Runtime, exported by `fclm export-onnx`: numpy in, numpy out, without torch."""

from .graphs import find_graphs, has_only_graphs
from .model import OnnxFCLMForImageMatting, OnnxImageEmbeddings, OnnxImageMattingOutput


__all__ = ["OnnxFCLMForImageMatting", "OnnxImageEmbeddings", "OnnxImageMattingOutput", "find_graphs", "has_only_graphs"]
