"""What holds for every change of the registry, and what each of them does."""

import math

import numpy as np
import pytest

from edgeloop.data.augment import CHANGES, Augment, Layout
from edgeloop.data.augment.sensor import rotation
from edgeloop.data.rng import Draw
from edgeloop.errors import ConfigError

# For each change: a strength that does much, the one that does nothing, and one out of range.
STRENGTHS = {
    "shift": (7, 0, -1),
    "crop": (0.5, 1.0, 0.0),
    "crop_pad": (0.5, 1.0, 1.5),
    "flip": ((0, 1), (), None),
    "quarter_turn": (True, False, None),
    "turn_deg": (40.0, 0.0, 200.0),
    "rotate_deg": (60.0, 0.0, -1.0),
    "scale": (0.2, 0.0, -0.1),
    "gain_db": ((-6.0, 6.0), (0.0, 0.0), (6.0, -6.0)),
    "jitter": (0.5, 0.0, -1.0),
    "snr_db": ((5.0, 10.0), (300.0, 300.0), (2.0, 1.0)),
    "drop_channel": (0.5, 0.0, 1.0),
    "drop_token": ((0.3, 9), (0.0, 9), (0.3, 0.5)),
    "time_mask": ((2, 5), (0, 5), (-1, 5)),
    "freq_mask": ((2, 3), (2, 0), (1, -1)),
}
X = (1 + np.arange(24 * 24, dtype=np.float32).reshape(24, 24) % 17) / 17


def both(augment, x, *seed):
    return augment.features(augment.raw(x, *seed), *seed)


def test_every_change_is_swept():
    assert list(STRENGTHS) == list(CHANGES)


@pytest.mark.parametrize("key", CHANGES)
def test_determined_by_the_seed_and_the_shape_is_kept(key):
    augment = Augment(**{key: STRENGTHS[key][0]})
    before = X.copy()
    views = [both(augment, X, 1, "augment", 3, v) for v in range(8)]
    again = [both(augment, X, 1, "augment", 3, v) for v in reversed(range(8))]
    assert all((a == b).all() for a, b in zip(views, reversed(again), strict=True))
    assert len({v.tobytes() for v in views}) > 1
    assert all(v.shape == X.shape and v.dtype == X.dtype and v is not X for v in views)
    assert (before == X).all()


@pytest.mark.parametrize("key", CHANGES)
def test_no_strength_no_change(key):
    augment = Augment(**{key: STRENGTHS[key][1]})
    assert all((both(augment, X, s) == X).all() for s in range(8))


@pytest.mark.parametrize("key", [k for k in CHANGES if STRENGTHS[k][2] is not None])
def test_out_of_range_is_refused_by_name(key):
    with pytest.raises(ConfigError, match=rf"train\.augment\.{key}: is .*; it must be"):
        Augment(**{key: STRENGTHS[key][2]})


def test_unknown_changes_are_refused():
    with pytest.raises(ConfigError, match="warp: unknown change; known are shift"):
        Augment(warp=1)


@pytest.mark.parametrize("key", CHANGES)
def test_the_draws_do_not_depend_on_other_changes(key, monkeypatch):
    """What a change draws is the same alone and with all the others on."""
    drawn = {}

    class Recorded(Draw):
        def __init__(self, *parts):
            super().__init__(*parts)
            drawn[parts[-1]] = self._start

    monkeypatch.setattr("edgeloop.data.augment.compose.Draw", Recorded)
    both(Augment(**{key: STRENGTHS[key][0]}), X, 1, 2)
    alone = dict(drawn)
    both(Augment(**{k: s for k, (s, _, _) in STRENGTHS.items()}), X, 1, 2)
    assert alone == {key: drawn[key]}
    assert len(set(drawn.values())) == len(CHANGES)


def test_masks_touch_the_features_alone():
    masked = Augment(time_mask=(2, 5), freq_mask=(1, 3))
    assert (masked.raw(X, 1) == X).all()
    out = masked.features(X[None], 1)
    rows, columns = (out[0] != X).any(axis=1), (out[0] != X).any(axis=0)
    assert rows.any()
    assert columns.any()


@pytest.mark.parametrize(("key", "axis"), [("time_mask", 0), ("freq_mask", 1)])
def test_a_mask_covers_whole_lines_with_the_mean(key, axis):
    widths = []
    for seed in range(200):
        out = Augment(**{key: (1, 5)}).features(X, seed)
        changed = np.flatnonzero((out != X).any(axis=1 - axis))
        widths.append(len(changed))
        if len(changed):
            assert (np.diff(changed) == 1).all()
            assert np.take(out, changed, axis) == pytest.approx(float(X.mean()))
    assert set(widths) == {0, 1, 2, 3, 4, 5}
    assert np.mean(widths) == pytest.approx(2.5, abs=0.4)


def test_a_rotation_keeps_lengths_and_turns_all_threes_alike():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    out = Augment(rotate_deg=90.0).raw(x, 4)
    for a in (0, 3):
        assert np.linalg.norm(out[:, a : a + 3], axis=1) == pytest.approx(
            np.linalg.norm(x[:, a : a + 3], axis=1), rel=1e-5)
    turn = np.linalg.lstsq(x[:, :3], out[:, :3], rcond=None)[0]
    assert x[:, 3:] @ turn == pytest.approx(out[:, 3:], abs=1e-4)
    first = Augment(rotate_deg=90.0, layout=Layout(1, 0)).raw(np.ascontiguousarray(x.T), 4)
    assert (out == first.T).all()
    with pytest.raises(ConfigError, match="channels for rotate_deg; the window has 5"):
        Augment(rotate_deg=90.0).raw(x[:, :5], 4)


def test_rotations_are_rotations_of_every_direction_and_angle():
    turns = [rotation(Draw(i), math.pi / 2) for i in range(400)]
    for turn in turns[:20]:
        assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-6)
        assert np.linalg.det(turn) == pytest.approx(1.0, abs=1e-6)
    angles = [math.degrees(math.acos(min(1, (np.trace(t) - 1) / 2))) for t in turns]
    assert max(angles) <= 90.01
    assert np.mean(angles) == pytest.approx(45, abs=5)
    axes = np.array([[t[2, 1] - t[1, 2], t[0, 2] - t[2, 0], t[1, 0] - t[0, 1]] for t in turns])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    assert np.abs(axes.mean(0)).max() < 0.12
    assert (axes**2).mean(0) == pytest.approx(np.full(3, 1 / 3), abs=0.06)


def test_jitter_and_scale_have_the_deviation_asked_for():
    x = np.full((4000, 4), 2.0, np.float32)
    assert (Augment(jitter=0.3).raw(x, 1) - x).std() == pytest.approx(0.3, rel=0.03)
    factors = np.array([Augment(scale=0.2).raw(x[:2], s)[0] / 2 for s in range(800)]).ravel()
    assert factors.mean() == pytest.approx(1.0, abs=0.02)
    assert factors.std() == pytest.approx(0.2, rel=0.05)
    out = Augment(scale=0.2).raw(x, 1)
    assert (out == out[0]).all()


def test_channels_die_as_often_as_asked_and_never_all():
    x = np.ones((3, 8), np.float32)
    dead = [Augment(drop_channel=0.5).raw(x, s)[0] == 0 for s in range(400)]
    assert np.mean(dead) == pytest.approx(0.5 * 7 / 8, abs=0.03)
    assert max(d.sum() for d in dead) < 8


def test_tokens_become_the_token_and_steps_become_silent():
    words = np.arange(100, 2100)
    out = Augment(drop_token=(0.25, 3)).raw(words, 1)
    assert ((out == words) | (out == 3)).all()
    assert (out == 3).mean() == pytest.approx(0.25, abs=0.04)
    rows = Augment(drop_token=(0.25, 3)).raw(np.ones((2000, 2), np.float32), 1)
    assert ((rows == 0).all(1) | (rows == 1).all(1)).all()
    assert (rows == 0).mean() == pytest.approx(0.25, abs=0.04)


def test_crops_keep_as_much_as_asked():
    x = np.arange(1, 101, dtype=np.float32)
    shares = []
    for seed in range(1000):
        out = Augment(crop=0.6).raw(x, seed)
        assert (np.diff(out) > 0).all()
        shares.append((out[-1] - out[0]) / 99)
        left = Augment(crop_pad=0.6).raw(x, seed)
        assert (left[left != 0] == x[left != 0]).all()
        assert (left != 0).sum() >= 60
    assert min(shares) >= 0.599
    assert np.mean(shares) == pytest.approx(0.8, abs=0.02)


def test_images_turn_and_flip():
    image = np.zeros((1, 21, 21), np.float32)
    image[0, 10, 16] = 1
    turned = Augment(turn_deg=90.0).raw(image, 3)
    row, column = np.unravel_index(turned[0].argmax(), (21, 21))
    assert math.hypot(row - 10, column - 10) == pytest.approx(6, abs=0.8)
    assert turned.sum() == pytest.approx(1, abs=0.35)
    wide = np.arange(6, dtype=np.float32).reshape(2, 3)
    seen = {Augment(flip=(1,)).raw(wide, s).tobytes() for s in range(20)}
    assert seen == {wide.tobytes(), wide[:, ::-1].tobytes()}
    square = np.arange(9, dtype=np.float32).reshape(3, 3)
    seen = {Augment(quarter_turn=True).raw(square, s).tobytes() for s in range(60)}
    assert seen == {np.rot90(square, k).tobytes() for k in range(4)}
    with pytest.raises(ConfigError, match="not square"):
        Augment(quarter_turn=True).raw(wide, 1)


def test_the_axes_of_the_window_are_told():
    x = np.ones((3, 50), np.float32)
    out = Augment(shift=20, layout=Layout(1, 0)).raw(x, 1)
    assert (out == out[0]).all()
    assert (out == 0).any()
    with pytest.raises(ConfigError, match=r"time_axis: is 2; it must be an axis of a window"):
        Augment(shift=20, layout=Layout(2, 0)).raw(x, 1)
