"""Write golden.npz: what scipy.signal.resample_poly makes of some noise. Needs SciPy.

python tests/data/streams/make_golden.py
"""

from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

RATIOS = ((1, 2), (2, 1), (3, 2), (5, 8), (16, 21))

x = np.random.default_rng(7).standard_normal(240).astype(np.float32)
made = {
    f"{up}_{down}": resample_poly(x.astype(np.float64), up, down).astype(np.float32)
    for up, down in RATIOS
}
np.savez_compressed(Path(__file__).parent / "golden.npz", x=x, **made)
