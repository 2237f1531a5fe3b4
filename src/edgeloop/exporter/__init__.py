"""What was learned, back into ONNX: merged into the model, as its inputs, as an .onnx_adapter."""

from edgeloop.exporter.export import export_onnx, export_onnx_adapter, onnx_inputs

__all__ = ["export_onnx", "export_onnx_adapter", "onnx_inputs"]
