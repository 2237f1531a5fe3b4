"""Compile the benchmark's workloads with edgeloop, and lay PyTorch's weights into its sessions.

Modes: how the frozen base is kept and computed. A mode that this edgeloop's ``compile`` does not
know is left out, so that one benchmark serves every version.
"""

from __future__ import annotations

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
}


def modes() -> list[str]:
    """Those of MODES that this edgeloop knows."""
    return [m for m, options in MODES.items() if options.get("compute", "exact") in get_args(Compute)]


def train_program(folder: Path, name: str, mode: str, threads: int, **more: Any) -> el.Program:
    """The training step of a workload."""
    job = JOBS[name]
    lora = el.LoRA(rank=job.rank, targets=job.targets)
    options = {"batch": job.batch, "entries": ("train",), "train":
               [lora, el.LastLayers(1)] if job.head else lora} | MODES[mode] | more
    return el.compile(folder / f"{name}.onnx", loss=job.loss, optimizer=el.SGD(lr=LR),
                      threads=threads, **options)


def ours(like: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]) -> dict:
    """PyTorch's trainable tensors under our names and in our layout."""
    out = {}
    for name, a in params.items():
        module, _, leaf = name.rpartition(".")
        key = (f"{module[:-2]}.lora_{module[-1]}" if module[-2:] in (".A", ".B")
               else f"{module}.{leaf}")
        if a.ndim > 2:  # [o, c, kh, kw] -> [o, kh, kw, c]
            a = a.transpose(0, *range(2, a.ndim), 1)
        out[key] = np.array(a).reshape(like[key].shape)
    assert set(out) == set(like), (sorted(out), sorted(like))
    return out


def load_weights(session: el.Session, folder: Path, name: str) -> None:
    """Start a session from the adapters that every peer starts from."""
    with np.load(folder / f"{name}.weights.npz") as z:
        params = {k[2:]: z[k] for k in z.files if k.startswith("p:")}
    session.load_adapter(ours(session.adapter(), params))


def batches(folder: Path, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four fixed batches of a workload."""
    with np.load(folder / f"{name}.data.npz") as z:
        return [(z[f"x{i}"], z[f"y{i}"]) for i in range(4)]
