"""Export of checkpoints to formats that run without this package: ONNX graphs and `torch.export` programs."""

from .export import export_onnx, export_programs


__all__ = ["export_onnx", "export_programs"]
