import subprocess
import sys

import numpy as np
import pytest

from edgeloop.data.rng import Draw, unit_of


def test_named_streams_are_reproducible_and_distinct():
    assert Draw(1, "a", 2).uniform() == Draw(1, "a", 2).uniform()
    assert Draw(1, "a", 2).uniform() != Draw(1, "a", 3).uniform()
    assert Draw(1, "a").uniform() != Draw("1a").uniform()


def test_the_very_bits_are_pinned():
    """A resumed run may run under another NumPy: these must never change."""
    draw = Draw(0, "pinned")
    assert draw.below(1 << 32) == 1341766998
    assert Draw(0, "pinned").permutation(6).tolist() == [0, 3, 5, 4, 1, 2]
    assert unit_of(0, "x") == 0.5787077205215493


def test_words_are_splitmix64():
    """The published test vector: seed 1234567."""
    draw = Draw()
    draw._start = 1234567
    assert draw._words(3).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert draw._words(2).tolist() == [4593380528125082431, 16408922859458223821]


def test_a_device_is_spared_numpy_random():
    code = "import sys, edgeloop.loop; sys.exit('numpy.random' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_below_is_in_range_and_even():
    draw = Draw(3)
    counts = np.bincount([draw.below(5) for _ in range(5000)], minlength=5)
    assert counts.min() > 900
    assert len(counts) == 5


def test_permutation_holds_every_number():
    assert sorted(Draw(5).permutation(100).tolist()) == list(range(100))
    assert Draw(5).permutation(0).tolist() == []


def test_noise_has_mean_0_and_variance_1():
    noise = Draw(7).noise(100_000)
    assert noise.dtype == np.float32
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.var()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 130])
def test_signs_are_even(columns):
    signs = Draw(9).signs(400, columns)
    assert signs.shape == (400, columns)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.2


def test_unit_of_fills_the_unit_interval():
    values = np.array([unit_of(0, i) for i in range(2000)])
    assert values.min() >= 0
    assert values.max() < 1
    assert np.histogram(values, 4, (0, 1))[0].min() > 400
