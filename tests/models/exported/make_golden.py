"""Write the golden files of the exported models with PyTorch: skeletons, losses, gradients.

    PYTHONPATH=src:tests python -m models.exported.make_golden [--golden] [model ...]

With ``--golden`` the skeletons stay and only PyTorch's numbers are made again.

PyTorch 2.13.0, onnxscript 0.7.2, transformers 5.23.0. Each model is exported by the TorchScript
exporter (opset 17) and the dynamo exporter (opset 20), transformers with both implementations of
attention; the batch is dynamic, and the sequence too in kinds that end in ``.seq``.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from models.exported.cases import CASES, SCRIPT, UNTRAINED, Case
from models.exported.live import build, candidates, train
from models.exported.skeleton import FOLDER, load, strip
from models.exported.training import params_of, program
from models.fingerprint import fingerprint


def export(name: str, case: Case, kind: str) -> onnx.ModelProto:
    """Export one model as a user would."""
    exporter, attention = [*kind.split("."), "eager"][:2]
    module = build(name, attention)
    xs, _ = case.data()
    names = [i.name for i in case.inputs_of(kind)]
    args = tuple(torch.tensor(xs[n]) for n in names)
    free = {0: "batch", 1: "seq"} if kind.endswith(".seq") else {0: "batch"}
    if exporter == SCRIPT:
        buffer = io.BytesIO()
        torch.onnx.export(
            module, args, buffer, dynamo=False, opset_version=17, input_names=names,
            output_names=["y"], dynamic_axes=dict.fromkeys([*names, "y"], free))
        return onnx.load_from_string(buffer.getvalue())
    dims = {axis: torch.export.Dim(d, min=axis + 1, max=32) for axis, d in free.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        torch.onnx.export(
            module, args, path, dynamo=True, input_names=names, output_names=["y"],
            dynamic_shapes=(dims,) * len(names), external_data=False, verbose=False)
        return onnx.load(path)


def exports(name: str) -> None:
    """Write the skeletons of one model."""
    recipes = candidates(build(name))
    case = CASES[name] if name in CASES else UNTRAINED[name]
    for kind in (*case.exports, *case.free):
        data, kept = strip(export(name, case, kind), recipes)
        (FOLDER / f"{name}.{kind}.onnx.gz").write_bytes(data)
        print(f"{name}.{kind}: {len(data)} bytes", *(f"\n  kept {k}" for k in kept))


def golden(name: str) -> dict:
    """Train one model in PyTorch."""
    case = CASES[name]
    made = program(case, load(f"{name}.{case.exports[0]}"))
    losses, gradients = train(name, case, params_of(made))
    return {
        "adamw": losses,
        "gradients": {k: fingerprint(k, g) for k, g in sorted(gradients.items())},
    }


def main(arguments: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = [a for a in arguments if a != "--golden"] or [*CASES, *UNTRAINED]
    if "--golden" not in arguments:
        for name in names:
            exports(name)
    for name in set(names) - set(UNTRAINED):
        made = golden(name)
        (FOLDER / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
        print(name, made["adamw"][0], made["adamw"][-1])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
