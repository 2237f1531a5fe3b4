"""How whole models are trained in the tests, the same for golden files and live comparison."""

from __future__ import annotations

import numpy as np
from models.zoo import Case

import edgeloop as el

RANK, SCALE, STEPS = 4, 2.0, 10


def programs(
    case: Case, model, *, isa: str = "auto", optimizers: tuple[str, ...] = ("sgd", "adamw")
) -> dict[str, el.Program]:
    """Compile for SGD and AdamW, with the entries that the comparison needs."""
    return {
        name: el.compile(model, loss=case.loss, train=el.LoRA(rank=RANK), optimizer=optimizer,
                         batch=case.batch, entries=("train", "grad", "predict"), isa=isa)
        for name, optimizer in (("sgd", el.SGD(lr=case.sgd)), ("adamw", el.AdamW(lr=case.adamw)))
        if name in optimizers
    }


def random_adapter(like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adapters with a random, small B: at B = 0 the gradients of A would all be zero."""
    rng = np.random.default_rng(11)
    return {
        k: v if k.endswith("lora_A") else (rng.standard_normal(v.shape) * 0.05).astype(np.float32)
        for k, v in sorted(like.items())
    }
