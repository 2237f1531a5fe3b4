"""Write dynamic_map.npz: the maps of bitsandbytes 0.50.2, which the 8-bit optimizer shares.

    python tests/golden/make_dynamic_map.py     # in an environment with bitsandbytes and torch
"""

from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np

if __name__ == "__main__":
    maps = {name: bnb.create_dynamic_map(signed=name == "signed").numpy()
            for name in ("signed", "unsigned")}
    np.savez_compressed(Path(__file__).parent / "dynamic_map.npz", **maps)
