"""The fuzzers' targets hold on their own seeds, on what found bugs before, and notice a bug."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.targets import TARGETS

from edgeloop.errors import DeltaError


@pytest.fixture(scope="module")
def target():
    from edgeloop.program import artifact

    made, seal = {}, artifact._verify_seal

    def get(name):
        if name not in made:
            one = TARGETS[name]()
            made[name] = (one, list(one.seeds()))
        return made[name]

    yield get
    artifact._verify_seal = seal


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_neighbours(target, name):
    one, seeds = target(name)
    assert seeds
    rng = random.Random(1)
    for seed in seeds:
        one.run(seed)
        for _ in range(30):
            bad = bytearray(seed)
            for _ in range(rng.randint(1, 4)):
                bad[rng.randrange(len(bad))] = rng.randrange(256)
            one.run(bytes(bad[: rng.choice([len(bad), rng.randrange(len(bad))])]))


def test_a_number_that_is_none_is_refused(target):
    """A header whose offset is infinite once came through as an OverflowError."""
    one, seeds = target("artifact")
    old, new = b'"data_offsets":[0,', b'"data_offsets":[1e999,'
    assert old in seeds[0]
    text = seeds[0].replace(old, new, 1)
    one.run((int.from_bytes(text[:8], "little") + 4).to_bytes(8, "little") + text[8:])


def test_a_bug_would_be_noticed(target, monkeypatch):
    one, seeds = target("payload")
    monkeypatch.setattr(one.delta, "apply", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one.run(seeds[0])
    monkeypatch.setattr(one.delta, "apply", lambda *_: {})
    with pytest.raises((AssertionError, DeltaError)):
        one.run(seeds[0])
