"""Three training steps whose bits are compared between machines (see aarch64.sh)."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

import edgeloop as el


def build(folder: str) -> None:
    """Compile a small convolutional model for any machine."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from models.zoo import ZOO

    model = ZOO["ds_cnn"].build()
    program = el.compile(model, train=el.LoRA(rank=4), optimizer=el.AdamW(lr=1e-3), batch=2,
                         isa="neon")
    program.save(Path(folder) / "step.elp")


def run(folder: str) -> None:
    """Print each loss and the digest of the adapter."""
    session = el.Session(el.load(Path(folder) / "step.elp"))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 49, 10)).astype(np.float32)
    for _ in range(3):
        print(float(session.step(x, np.array([1, 2]))).hex())
    digest = hashlib.sha256()
    for _, a in sorted(session.adapter().items()):
        digest.update(a.tobytes())
    print(digest.hexdigest())


def close(left: str, right: str) -> None:
    """Fail unless the losses of two runs agree to 1e-5."""
    a, b = ([float.fromhex(v) for v in Path(p).read_text().split()[:3]] for p in (left, right))
    np.testing.assert_allclose(a, b, rtol=1e-5)


if __name__ == "__main__":
    {"compile": build, "run": run, "close": close}[sys.argv[1]](*sys.argv[2:])
