import numpy as np
import pytest

from edgeloop.data.buffers import STORAGES, Novelty, Reservoir, Ring, Sketch
from edgeloop.data.buffers.sketch import UNSEEN


def signature(sketch, x):
    out = np.zeros(sketch.width, np.float32)
    sketch(x, out)
    return out


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ring_of(samples, *, labels=None, storage="f32", sketch=None):
    ring = Ring(len(samples), samples.shape[1:], storage=storage, sketch=sketch)
    for i, x in enumerate(samples):
        ring.push(x, 0 if labels is None else labels[i], str(i))
    return ring


def test_few_numbers_keep_their_distances():
    sketch, x = Sketch(9, seed=0), normal(2, 9)
    found = signature(sketch, x[0]) - signature(sketch, x[1])
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(x[0] - x[1]), rel=1e-6)


@pytest.mark.parametrize("size", [33, 490, 3000])
def test_many_numbers_keep_them_on_average(size):
    a, b = normal(400, size), normal(400, size, seed=1)
    sketch = Sketch(size, seed=0)
    ratios = np.array([
        np.square(signature(sketch, p) - signature(sketch, q)).sum() / np.square(p - q).sum()
        for p, q in zip(a, b, strict=True)
    ])
    assert abs(ratios.mean() - 1.0) < 0.05
    assert ratios.std() < 0.27  # sqrt(2 / 32) is 0.25


def test_neighbouring_numbers_do_not_share_a_sum():
    """A change in one place of a feature map is seen at its own size."""
    sketch, x = Sketch(490, seed=0), np.zeros((49, 10), np.float32)
    x[20:24, 3] = 1.0
    assert np.linalg.norm(signature(sketch, x)) == pytest.approx(2.0, rel=0.5)


def test_the_very_bits_are_pinned():
    """Signatures are made again from the state file by whatever NumPy is there."""
    found = signature(Sketch(100, seed=0), np.arange(100, dtype=np.float32))
    assert found[:6].tolist() == [-140.0, -18.0, 76.0, -56.0, -63.0, 71.0]


@pytest.mark.parametrize("storage", STORAGES)
def test_nearest_is_the_nearest_of_the_class(storage):
    samples = normal(150, 20)  # more than a block of slots
    labels = [i % 3 for i in range(150)]
    sketch = Sketch(20, seed=0)
    ring = ring_of(samples, labels=labels, storage=storage, sketch=sketch)
    kept = np.stack([ring.view(i) for i in range(150)])
    for x, y in zip(normal(30, 20, seed=1), [0, 1, 2] * 10, strict=True):
        distances = np.linalg.norm(kept - x, axis=1)
        distances[np.array(labels) != y] = np.inf
        distance, slot = ring.nearest(signature(sketch, x), y)
        assert slot == distances.argmin()
        assert distance == pytest.approx(distances.min(), rel=1e-5)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_near_duplicate_is_found_and_a_neighbour_is_not(storage):
    samples = normal(100, 16, 16)
    sketch = Sketch(256, seed=0)
    ring = ring_of(samples, storage=storage, sketch=sketch)

    def found(x, y=0, relative=0.05):
        return ring.holds_like(x, signature(sketch, x), y, relative)

    noise = normal(100, 16, 16, seed=1)
    near, beside = samples + np.float32(0.04) * noise, samples + np.float32(0.07) * noise
    assert all(found(x) for x in near)
    assert not any(found(x) for x in beside)
    assert not any(found(x, y=1) for x in near)
    assert not any(found(x) for x in noise)


def test_signatures_alone_would_call_others_alike(monkeypatch):
    """Without the comparison in full (the control): candidates pass as near-duplicates."""
    samples = normal(100, 16, 16)
    sketch = Sketch(256, seed=0)
    ring = ring_of(samples, sketch=sketch)
    beside = samples + np.float32(0.07) * normal(100, 16, 16, seed=1)
    monkeypatch.setattr(Sketch, "square", lambda *_: 0.0)
    assert any(ring.holds_like(x, signature(sketch, x), 0, 0.05) for x in beside)


def test_a_sample_of_zeros_is_like_zeros_only():
    sketch, zero = Sketch(9, seed=0), np.zeros(9, np.float32)
    ring = ring_of(normal(4, 9), sketch=sketch)
    assert not ring.holds_like(zero, signature(sketch, zero), 0, 0.5)
    ring.push(zero, 0, "")
    assert ring.holds_like(zero, signature(sketch, zero), 0, 0.5)


def test_novelty_is_in_typical_distances():
    sketch, samples = Sketch(20, seed=0), normal(100, 20)
    held = Reservoir(100, (20,), seed=0, name="r", sketch=sketch)
    for i, x in enumerate(samples):
        held.offer(x, 0, str(i))
    novelty = Novelty()
    far = samples[0] + 10
    assert novelty(signature(sketch, far), 0, held) == 1.0  # nothing measured yet
    novelty.refresh(held, list(held.slots()))
    distances = np.linalg.norm(samples[:, None] - samples[None], axis=2) + np.diag([np.inf] * 100)
    nearest = np.sort(distances.min(axis=1)[::2])
    assert novelty.typical == pytest.approx(nearest[25], rel=1e-5)
    usual = [novelty(signature(sketch, x), 0, held) for x in normal(50, 20, seed=1)]
    assert 0.8 < np.median(usual) < 1.2
    assert novelty(signature(sketch, samples[3]), 0, held) == 0.0
    assert novelty(signature(sketch, far), 0, held) > 5
    assert novelty(signature(sketch, samples[3]), 7, held) == UNSEEN


def test_typical_of_nothing_is_not_known():
    novelty, sketch = Novelty(), Sketch(20, seed=0)
    novelty.refresh(Ring(4, (20,), sketch=sketch), [])
    assert novelty.typical == 0.0
    novelty.refresh(ring_of(normal(1, 20), sketch=sketch), [0])
    assert novelty.typical == 0.0
