"""Write tests/models/golden/<model>.json with PyTorch: losses, gradient norms and projections.

    PYTHONPATH=src:tests python tests/models/make_golden.py [model ...]

Gradients are kept as their 2-norm and their dot product with a fixed random vector.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from models.common import SCALE, programs, random_adapter
from models.fingerprint import fingerprint
from models.torch_oracle import train
from models.zoo import ZOO

import edgeloop as el

GOLDEN = Path(__file__).parent / "golden"


def oracle(name: str) -> dict:
    """Train one model in PyTorch from the adapters that edgeloop starts with."""
    case = ZOO[name]
    model = case.build()
    x, y = case.data(model)
    like = el.Session(programs(case, model)["sgd"]).adapter()
    adapter = random_adapter(like)
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=case.sgd),
        "adamw": lambda p: torch.optim.AdamW(p, lr=case.adamw, weight_decay=0.01),
    }
    out: dict = {}
    for kind, make in makers.items():
        losses, gradients = train(model, adapter, SCALE, case.loss, x, y, make)
        out[kind] = losses
    out["gradients"] = {k: fingerprint(k, g) for k, g in sorted(gradients.items())}
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:] or ZOO:
        (GOLDEN / f"{name}.json").write_text(json.dumps(oracle(name), indent=1) + "\n")
        print(name)
