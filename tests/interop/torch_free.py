"""What the suites without torch share."""

from __future__ import annotations

import numpy as np


def noise(program, seed=0, scale=0.2):
    """An adapter of the program with noise on its initial values."""
    rng = np.random.default_rng(seed)
    initial = program.initial()
    return {
        k: (initial[k] + rng.standard_normal(initial[k].shape) * scale).astype(np.float32)
        for k in program.params
    }
