"""Artifacts for ONNX Runtime's on-device training: python ort_artifacts.py FOLDER W1 [W2 ...].

In an environment with torch and onnxruntime-training (its package imports torch); running them
needs no torch. Three things stand in the way of a model as PyTorch exports it: LayerNormalization's
gradient wants the optional outputs, the runtime reads IR version 9 at most, and equal initializers
must stay apart (export.py sees to that).
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.training import artifacts


def main() -> None:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        out = folder / f"ort_{name}"
        if (out / "optimizer_model.onnx").exists():
            continue
        model = onnx.load(folder / f"{name}.train.onnx")
        model.ir_version = min(model.ir_version, 9)
        for node in model.graph.node:
            if node.op_type == "LayerNormalization" and len(node.output) == 1:
                node.output.extend([f"{node.name}.mean", f"{node.name}.inv_std"])
        with np.load(folder / f"{name}.weights.npz") as z:
            trained = {f"m.{k[2:]}" for k in z.files if k.startswith("p:")}
        names = [i.name for i in model.graph.initializer]
        if missing := trained - set(names):
            sys.exit(f"{name}: the exporter renamed {sorted(missing)}")
        mse = name == "W3"
        out.mkdir(exist_ok=True)
        artifacts.generate_artifacts(
            model, requires_grad=sorted(trained),
            frozen_params=[n for n in names if n not in trained],
            loss=artifacts.LossType.MSELoss if mse else artifacts.LossType.CrossEntropyLoss,
            optimizer=artifacts.OptimType.SGD, artifact_directory=str(out))
        print(f"artifacts of {name}", flush=True)


if __name__ == "__main__":
    main()
