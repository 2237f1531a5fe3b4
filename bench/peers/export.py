"""Write each workload's files: python export.py FOLDER W1 [W2 ...], in an environment with torch.

``W.onnx``: the base model; ``W.train.onnx``: with adapters, for ONNX Runtime's training;
``W.weights.npz``: every weight of the adapted model by name; ``W.data.npz``: four batches.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import workloads

ONE_FILE = 1 << 30  # parameters of more bytes than this lie beside the model


def base(name: str, path: Path) -> None:
    """The older exporter: it keeps layer names, which the adapters are matched by."""
    work = workloads.WORKLOADS[name]
    x = torch.zeros(1, *work.shape, dtype=torch.int64 if work.vocab else torch.float32)
    model = workloads.base(name)
    torch.onnx.export(model, x, str(path), input_names=["x"], output_names=["y"], dynamo=False,
                      opset_version=18, dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})
    if sum(p.nbytes for p in model.parameters()) > ONE_FILE:
        import onnx

        found = onnx.load(path)
        onnx.save(found, path, save_as_external_data=True, location=f"{path.name}.data")


def with_adapters(name: str, path: Path) -> None:
    """Nothing folded, so that every parameter keeps its name and B's equal zeros stay apart."""

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.m = workloads.adapted(name)

        def forward(self, x):
            return self.m(x).flatten(0, -2)

    x = torch.from_numpy(workloads.data(name, 1)[0][0])
    torch.onnx.export(Flat(), x, str(path), input_names=["x"], output_names=["y"], dynamo=False,
                      opset_version=17, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.TRAINING)


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        if (folder / f"{name}.weights.npz").exists():
            continue  # written last
        base(name, folder / f"{name}.onnx")
        if name not in ("W7", "W5s"):  # see build.py
            with_adapters(name, folder / f"{name}.train.onnx")
        batches = workloads.data(name)
        np.savez(folder / f"{name}.data.npz", **{f"x{i}": x for i, (x, _) in enumerate(batches)},
                 **{f"y{i}": y for i, (_, y) in enumerate(batches)})
        model = workloads.adapted(name)
        names = {k for k, p in model.named_parameters() if p.requires_grad}
        np.savez(folder / f"{name}.weights.npz", **{
            f"{'p' if k in names else 'w'}:{k}": v.numpy() for k, v in model.state_dict().items()})
        print(f"exported {name}", flush=True)


if __name__ == "__main__":
    main()
