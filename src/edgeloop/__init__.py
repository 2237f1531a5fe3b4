"""edgeloop: learn on the device. Compile an ONNX model's training step, run it, loop around it."""
