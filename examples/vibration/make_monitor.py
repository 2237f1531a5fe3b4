"""Write the vibration example: a model of the machine as it is on the first day, and its program.

    python examples/vibration/make_monitor.py OUT_FOLDER       (needs numpy and onnx)

The network sees the power spectrum of 64 samples (see features.json) and says what the machine is
doing. machine.py tells how the machine changes afterwards.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "quickstart")]

import machine  # noqa: E402
from make_example import forward, train, write_onnx  # noqa: E402

import edgeloop as el  # noqa: E402
from edgeloop.data.features import from_spec  # noqa: E402

SEED = 1


def main(out: Path) -> None:
    """Make vibration.onnx, vibration.elp and a copy of loop.toml in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    record = json.loads((HERE / "features.json").read_text(encoding="utf-8"))
    features = from_spec(record)
    x, y = machine.windows(SEED, 3000, 0.0)
    weights = train(np.random.default_rng(SEED), features.batch(x), y)
    for part in (0.0, 0.5, 1.0):
        x, y = machine.windows(SEED + 1, 500, part)
        right = np.mean(forward(weights, features.batch(x))[-1].argmax(1) == y)
        print(f"after {part:.0%} of the week: {right:.1%} right without learning")
    write_onnx(out / "vibration.onnx", weights)
    program = el.compile(
        out / "vibration.onnx", train=el.LoRA(rank=8), optimizer=el.AdamW(lr=5e-3), batch=16,
        features=record, classes=list(machine.CLASSES))
    program.save(out / "vibration.elp")
    shutil.copy(HERE / "loop.toml", out / "loop.toml")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
