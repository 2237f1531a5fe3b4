"""Compile the benchmark's workloads with edgeloop, and lay PyTorch's weights into its sessions.

Modes: how the frozen base is kept and computed. A mode that this edgeloop's ``compile`` does not
know is left out, so that one benchmark serves every version.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

import edgeloop as el
from edgeloop.quantize import Compute

MODES: dict[str, dict[str, str]] = {
    "f32": {},
    "int8": {"quantize": "int8", "compute": "int8"},
    "bf16": {"compute": "bf16"},
    "int4": {"quantize": "int4"},
}
LR = 0.05


@dataclass(frozen=True)
class Job:
    """How edgeloop trains a workload; ``workloads.py`` says the same to PyTorch."""

    targets: tuple[str, ...]
    rank: int
    batch: int
    loss: str = "cross_entropy"
    head: bool = True


ATTENTION = ("*.q", "*.k", "*.v", "*.o")
JOBS = {
    "W1": Job(("layers.*",), 4, 16),
    "W2": Job(("*.pw",), 4, 8),
    "W3": Job(("fc.*",), 4, 16, "mse", head=False),
    "W4": Job(ATTENTION, 8, 4),
    "W5": Job(("*.q", "*.v"), 8, 8),
    "W6": Job(ATTENTION, 8, 8, head=False),
    "W7": Job(("*.q", "*.v"), 8, 1, head=False),
    "W5s": Job(("*.q", "*.v"), 8, 4),
}


def modes() -> list[str]:
    """Those of MODES that this edgeloop knows."""
    known = get_args(Compute)
    return [m for m, options in MODES.items() if options.get("compute", "exact") in known]


def train_program(folder: Path, name: str, mode: str, threads: int, **more: Any) -> el.Program:
    """The training step of a workload."""
    job = JOBS[name]
    lora = el.LoRA(rank=job.rank, targets=job.targets)
    options = {"batch": job.batch, "entries": ("train",), "train":
               [lora, el.LastLayers(1)] if job.head else lora} | MODES[mode] | more
    return el.compile(folder / f"{name}.onnx", loss=job.loss, optimizer=el.SGD(lr=LR),
                      threads=threads, **options)


def predict_program(folder: Path, name: str, mode: str, threads: int) -> el.Program:
    """The forward pass of the base alone: what is named to train adds no work."""
    train = el.Bias() if name in ("W1", "W2", "W3") else el.Sparse({"norm": "all"})
    return el.compile(folder / f"{name}.onnx", train=train, loss=JOBS[name].loss, threads=threads,
                      predict_batch=JOBS[name].batch, entries=("predict",), **MODES[mode])


def ours(like: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]) -> dict:
    """PyTorch's trainable tensors under our names and in our layout."""
    out = {}
    for name, array in params.items():
        a = np.array(array)
        module, _, leaf = name.rpartition(".")
        key = (f"{module[:-2]}.lora_{module[-1]}" if module[-2:] in (".A", ".B")
               else f"{module}.{leaf}")
        if a.ndim > 2:  # [o, c, kh, kw] -> [o, kh, kw, c]
            a = a.transpose(0, *range(2, a.ndim), 1)
        out[key] = a.reshape(like[key].shape).copy()
    assert set(out) == set(like), (sorted(out), sorted(like))
    return out


def write(models: Path, out: Path, name: str, mode: str, task: str, threads: int) -> None:
    """Compile what side_edgeloop.py runs, and store data and adapters where it looks for them."""
    make = train_program if task == "train" else predict_program
    program = make(models, name, mode, threads)
    out.mkdir(parents=True, exist_ok=True)
    program.save(out / f"{name}.{mode}.{task}.elp")
    with np.load(models / f"{name}.data.npz") as z:
        arrays = dict(z)
    if task == "train":
        with np.load(models / f"{name}.weights.npz") as z:
            params = {k[2:]: z[k] for k in z.files if k.startswith("p:")}
        arrays |= {f"p:{k}": v for k, v in ours(el.Session(program).adapter(), params).items()}
        np.savez(out / f"{name}.npz", **arrays)
    elif not (out / f"{name}.npz").exists():
        np.savez(out / f"{name}.npz", **arrays)


def main() -> None:
    """``python compiled.py MODELS OUT THREADS W1.f32.train ...``, in a process of its own."""
    models, out, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for wanted in sys.argv[4:]:
        begin = time.perf_counter()
        write(models, out, *wanted.split("."), threads)
        print(f"compiled {wanted} in {time.perf_counter() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
