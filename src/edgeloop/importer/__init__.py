"""ONNX -> Graph."""
