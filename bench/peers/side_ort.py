"""ONNX Runtime's forward of the base model (see measure.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

case = measure.arguments()
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = case.threads
session = onnxruntime.InferenceSession(
    f"{case.folder}/{case.name}.onnx", options, providers=["CPUExecutionProvider"])
with np.load(f"{case.folder}/{case.name}.data.npz") as z:
    batches = [(z[f"x{i}"], None) for i in range(4)]
measure.run(lambda x, _: session.run(None, {"x": x})[0], batches, case, {},
            lambda y: float(np.abs(y).mean()))
