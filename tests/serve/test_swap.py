"""Versions swapped under load: every answer is whole, and of the version that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.serve.parts import Served, rows

from edgeloop.loop.serving import Live
from edgeloop.store import Store

# `make swaps` asks 100,000 times among more than 1,000 swaps.
CLIENTS, REQUESTS = 8, int(os.environ.get("EDGELOOP_SWAP_REQUESTS", "20000"))


@pytest.fixture
def versions(learnt):
    """Eight versions in all, and what each answers to 16 rows."""
    with Store.open(learnt / "device.db") as store:
        live = store.live()
        adapter, rng = store.adapter(live.id), np.random.default_rng(5)
        for _ in range(6):
            changed = {k: (a + rng.normal(0, 0.3, a.shape)).astype("f4")
                       for k, a in adapter.items()}
            store.commit(changed, program_hash=live.program_hash, parent=live.id, metrics={},
                         live=False)
        return [v.id for v in store.versions()]


def swapped(learnt, versions, requests):
    """Ask while versions are swapped; what clients found, and how many swaps."""
    with Served(learnt, keep=0) as served, Store.open(learnt / "device.db") as store:
        x = rows(16)
        known = {f"v{v}": np.stack([
            served.predictor.predict(row[None], version=v).outputs["y"][0] for row in x])
            for v in versions}
        assert len({a.tobytes() for a in known.values()}) == len(versions)
        np.savez(learnt / "expected.npz", x=x, **known)
        halves = [
            subprocess.Popen(
                [sys.executable, Path(__file__).with_name("clients.py"), str(served.port),
                 str(CLIENTS // 2), str(requests // 2), learnt / "expected.npz"],
                stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        swaps, order = 0, np.random.default_rng(1)
        while any(half.poll() is None for half in halves):
            store.promote(int(order.choice(versions)))
            swaps += served.predictor.refresh()
            time.sleep(0.005)
        found = [json.loads(half.communicate()[0]) for half in halves]
        return {k: sum(f[k] for f in found) for k in found[0]} | {"swaps": swaps}


@pytest.fixture(autouse=True)
def restless():
    """Threads give way to each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_every_answer_is_of_the_version_that_it_names(learnt, versions):
    found = swapped(learnt, versions, REQUESTS)
    assert found["swaps"] >= REQUESTS / 100
    assert (found["answers"], found["wrong"], found["failed"]) == (REQUESTS, 0, 0)


def test_without_the_lock_some_are_not(learnt, versions, monkeypatch):
    def unlocked(self, x):
        return self._predictor.predict(x), self._version

    monkeypatch.setattr(Live, "predict", unlocked)
    assert swapped(learnt, versions, 20_000)["wrong"] > 0
