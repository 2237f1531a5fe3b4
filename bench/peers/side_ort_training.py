"""ONNX Runtime's on-device training (see measure.py) over what ort_artifacts.py made.

``onnxruntime.training`` imports torch, which a training step does not need; an empty package in
its place leaves torch out, and is the best that this peer can do.
"""

import sys
import types
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

case = measure.arguments()
import numpy as np  # noqa: E402

package = types.ModuleType("onnxruntime.training")
package.__path__ = [f"{find_spec('onnxruntime').submodule_search_locations[0]}/training"]
sys.modules["onnxruntime.training"] = package
import onnxruntime  # noqa: E402
from onnxruntime.training.api import CheckpointState, Module, Optimizer  # noqa: E402

made = f"{case.folder}/ort_{case.name}"
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = case.threads
state = CheckpointState.load_checkpoint(f"{made}/checkpoint")
model = Module(f"{made}/training_model.onnx", state, f"{made}/eval_model.onnx",
               session_options=options)
optimizer = Optimizer(f"{made}/optimizer_model.onnx", model)
optimizer.set_learning_rate(0.05)


def step(x, y):
    model.train()
    loss = model(x, y)
    optimizer.step()
    model.lazy_reset_grad()
    return loss


with np.load(f"{case.folder}/{case.name}.data.npz") as z:
    flat = (lambda y: y) if case.name == "W3" else np.ravel
    batches = [(z[f"x{i}"], flat(z[f"y{i}"])) for i in range(4)]
measure.run(step, batches, case, {})
