"""W1 to W3 beside PyTorch eager: step time, start-up, memory. `make bench`, or with arguments

    python bench/run.py [--threads 1,2] [--seconds 2] [--rounds 5] [W1 W2 W3]

Both sides run as fresh processes in turn, pinned to the same cores, on the same weights, adapters
and data; their losses must agree before a time is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
GOALS = {"ratio": 0.30, "first_step_s": 0.25, "peak_rss_mb": 50.0}


def prepare(folder: Path, names: list[str], threads: list[int]) -> None:
    """Export each base model, compile it, and store weights' adapters and data."""
    import numpy as np
    import torch
    import workloads

    import edgeloop as el

    for name in names:
        _, target, batch, shape, classes = workloads.WORKLOADS[name]
        onnx_file = folder / f"{name}.onnx"
        torch.onnx.export(workloads.base(name), torch.zeros(1, *shape), str(onnx_file),
                          input_names=["x"], output_names=["y"], dynamo=False,
                          dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})
        lora = el.LoRA(rank=workloads.RANK, targets=f"{target}*")
        for n in threads:
            program = el.compile(
                onnx_file, loss="mse" if classes is None else "cross_entropy",
                train=lora if classes is None else [lora, el.LastLayers(1)],
                optimizer=el.SGD(lr=workloads.LR), batch=batch, threads=n)
            program.save(folder / f"{name}.t{n}.elp")
        session = el.Session(program)
        arrays = {f"p:{k}": v for k, v in ours(session.adapter(), workloads.adapted(name)).items()}
        for i, (x, y) in enumerate(workloads.data(name)):
            arrays |= {f"x{i}": x, f"y{i}": y}
        np.savez(folder / f"{name}.npz", **arrays)


def ours(like: dict, model) -> dict:
    """PyTorch's trainable tensors under our names and in our layout."""
    out = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        module, _, leaf = name.rpartition(".")
        key = (f"{module[:-2]}.lora_{module[-1]}" if module[-2:] in (".A", ".B")
               else f"{module}.{leaf}")
        a = p.detach().numpy()
        if a.ndim > 2:  # [o, c, kh, kw] -> [o, kh, kw, c]
            a = a.transpose(0, *range(2, a.ndim), 1)
        out[key] = a.reshape(like[key].shape).copy()
    assert set(out) == set(like), (sorted(out), sorted(like))
    return out


def child(*args: str) -> dict:
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE",
                                                          "OPENBLAS_L2_SIZE")}
    run = subprocess.run([sys.executable, *args], cwd=HERE, capture_output=True, text=True,
                         check=False, env=env)
    if run.returncode:
        sys.exit(f"{' '.join(args)} failed:\n{run.stderr}")
    return json.loads(run.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["W1", "W2", "W3"])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", default="2")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    threads = [int(t) for t in args.threads.split(",")]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), args.names, threads)
        print(f"{'':8}{'thr':>4}{'step ms':>10}{'torch ms':>10}{'ratio':>8}{'first s':>9}"
              f"{'torch s':>9}{'RSS MB':>8}{'torch':>8}{'plan KiB':>10}{'GFLOP/s':>9}")
        for name in args.names:
            for n in threads:
                a, b = [], []
                for _ in range(args.rounds):
                    a.append(child("side_edgeloop.py", folder, name, str(n), args.seconds))
                    b.append(child("side_torch.py", name, str(n), args.seconds))
                for key in ("loss_1", "loss_25"):
                    x, y = a[0][key], b[0][key]
                    if abs(x - y) > 1e-4 * abs(y):
                        sys.exit(f"{name}: {key} differs: {x} here, {y} in PyTorch")
                mid = {k: statistics.median(r[k] for r in a) for k in a[0]}
                peer = {k: statistics.median(r[k] for r in b) for k in b[0]}
                ratio = statistics.median(
                    x["step_ms"] / y["step_ms"] for x, y in zip(a, b, strict=True))
                print(f"{name:8}{n:4}{mid['step_ms']:10.3f}{peer['step_ms']:10.3f}{ratio:8.2f}"
                      f"{mid['first_step_s']:9.3f}{peer['first_step_s']:9.2f}"
                      f"{mid['peak_rss_mb']:8.1f}{peer['peak_rss_mb']:8.0f}"
                      f"{mid['ram_bytes'] / 1024:10.1f}"
                      f"{mid['step_flops'] / mid['step_ms'] / 1e6:9.1f}", flush=True)
                got = {"ratio": ratio, **mid}
                missed += [f"{name} {n} thread(s): {k} {got[k]:.3f}, goal {v}"
                           for k, v in GOALS.items() if got[k] > v]
    print("\n".join(missed) if missed else "every goal met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
