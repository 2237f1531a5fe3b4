"""Write golden/KIND.npz: what librosa, SciPy or Pillow say of the windows of oracles.py.

    PYTHONPATH=src:tests python tests/data/features/make_golden.py [KIND ...]

Made with librosa 0.11.0, SciPy 1.17.1, Pillow 13.0.0. A file changes only with them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from data.features.oracles import CASES, ORACLES, window

from edgeloop.data.features import from_spec

OUT = Path(__file__).parent / "golden"


def main():
    OUT.mkdir(exist_ok=True)
    for kind in sys.argv[1:] or CASES:
        made = {}
        for i, (options, shape) in enumerate(CASES[kind]):
            record = from_spec({"kind": kind, **options}).spec()
            made[str(i)] = np.asarray(ORACLES[kind](record, window(shape, i)), np.float32)
        np.savez_compressed(OUT / f"{kind}.npz", **made)


if __name__ == "__main__":
    main()
