"""Each kind against what librosa, SciPy and Pillow say: golden files, and the libraries live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.features.oracles import CASES, ORACLES, window

from edgeloop.data.features import from_spec

GOLDEN = Path(__file__).parent / "golden"
EVERY = [(kind, i) for kind, cases in CASES.items() for i in range(len(cases))]
# librosa's mel filters are float32, and Pillow's sums: levels and pixels are about 100.
TOLERANCE = {"log-mel": 2e-5, "mfcc": 2e-4, "image": 1e-5}


def ours(kind, i):
    options, shape = CASES[kind][i]
    pipeline = from_spec({"kind": kind, **options})
    return pipeline.spec(), pipeline(window(shape, i))


def close(kind, made, wanted):
    rtol = 1e-5
    atol = TOLERANCE.get(kind, 1e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(made, wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("kind", "i"), EVERY)
def test_golden(kind, i):
    with np.load(GOLDEN / f"{kind}.npz") as golden:
        wanted = golden[str(i)]
    _, made = ours(kind, i)
    close(kind, made, wanted)


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "i"), EVERY)
def test_live(kind, i):
    record, made = ours(kind, i)
    close(kind, made, ORACLES[kind](record, window(CASES[kind][i][1], i)))


@pytest.mark.parametrize("kind", CASES)
def test_the_comparison_notices_a_small_error(kind):
    with np.load(GOLDEN / f"{kind}.npz") as golden:
        wanted = golden["0"]
    _, made = ours(kind, 0)
    with pytest.raises(AssertionError):
        close(kind, made * 1.001, wanted)
