"""A gradient in two numbers, so that golden files stay small."""

from __future__ import annotations

import zlib

import numpy as np


def fingerprint(name: str, gradient: np.ndarray) -> list[float]:
    """[2-norm, projection on a unit vector that depends on the name alone]."""
    v = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(gradient.size)
    flat = gradient.astype(np.float64).reshape(-1)
    return [float(np.linalg.norm(flat)), float(flat @ v / np.linalg.norm(v))]
