"""Seeded weights by name and shape: the same numbers in PyTorch and in the skeletons."""

from __future__ import annotations

import math
import zlib

import numpy as np


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the tensor ``name`` of a state dict: scaled by fan-in, norms near one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        out = rng.uniform(0.7, 1.3, shape)
    elif leaf == "running_mean" or len(shape) <= 1 or leaf.startswith("bias"):
        out = rng.normal(0, 0.1, shape)
    elif "embed" in name or leaf in ("position", "cls_token") or ".wte" in name or ".wpe" in name:
        out = rng.normal(0, 0.5, shape)
    else:
        gain = 1.3 if len(shape) > 2 else 1.0
        out = rng.normal(0, math.sqrt(gain / math.prod(shape[1:])), shape)
    return out.astype(np.float32)


def adapter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a LoRA matrix: random B too, for at B = 0 the gradients of A are all zero."""
    rng = np.random.default_rng(zlib.crc32(f"adapter {name}".encode()))
    std = 0.05 if name.endswith("lora_B") else 1 / math.sqrt(math.prod(shape[1:]))
    return rng.normal(0, std, shape).astype(np.float32)
