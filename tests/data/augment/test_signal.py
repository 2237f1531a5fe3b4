import numpy as np
import pytest

from edgeloop.data.augment import Augment

WAVE = np.sin(np.arange(400, dtype=np.float32) / 5)


def test_same_seed_same_view():
    change = Augment(shift=20, gain_db=(-6, 6), snr_db=(10, 20))
    before = WAVE.copy()
    assert (change.raw(WAVE, 1, "v", 3) == change.raw(WAVE, 1, "v", 3)).all()
    assert (change.raw(WAVE, 1, "v", 3) != change.raw(WAVE, 1, "v", 4)).any()
    assert (before == WAVE).all()
    assert change.raw(WAVE, 1).dtype == np.float32


def test_nothing_asked_nothing_changed():
    assert (Augment().raw(WAVE, 1) == WAVE).all()


def test_shift_moves_and_fills_with_zeros():
    x = np.arange(1, 9, dtype=np.float32).reshape(8, 1)
    seen = set()
    for seed in range(60):
        out = Augment(shift=2).raw(x, seed)[:, 0]
        used = out[out != 0]
        seen.add(8 - len(used) if out[0] == 0 else len(used) - 8)
        assert (np.diff(used) == 1).all()
    assert seen == {-2, -1, 0, 1, 2}


def test_gain_stays_in_range():
    gains = [20 * np.log10(Augment(gain_db=(-6, 3)).raw(WAVE, s)[50] / WAVE[50]) for s in range(60)]
    assert -6.01 < min(gains) < -4
    assert 1 < max(gains) < 3.01


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_has_the_power_asked_for(snr):
    wave = np.sin(np.arange(20_000, dtype=np.float32) / 5)
    noise = Augment(snr_db=(snr, snr)).raw(wave, 3) - wave
    ratio = 10 * np.log10(float((wave**2).mean() / (noise**2).mean()))
    assert ratio == pytest.approx(snr, abs=0.2)


def test_one_change_does_not_disturb_the_draw_of_another():
    shifted = Augment(shift=20).raw(WAVE, 5)
    both = Augment(shift=20, gain_db=(6, 6)).raw(WAVE, 5)
    assert np.allclose(both, shifted * 10 ** (6 / 20))


def test_silence_stays_finite():
    assert (Augment(snr_db=(10, 10)).raw(np.zeros(8, np.float32), 1) == 0).all()
