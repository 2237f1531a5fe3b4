"""Trigger, serving and RAM plan: the small parts."""

import threading

import numpy as np
import pytest

from edgeloop.errors import BudgetError
from edgeloop.loop import Live, plan_ram, resident_bytes
from edgeloop.loop.learner import scores
from edgeloop.loop.triggers import Facts, Samples, TriggerSet


@pytest.mark.parametrize(
    ("since", "fresh", "gate", "decision"),
    [
        (31, 31, 99, "collect"),
        (32, 20, 99, "train"),
        (32, 20, 15, "wait"),
        (32, 0, 99, "wait"),
        (99, 20, 16, "train"),
    ],
)
def test_trigger(since, fresh, gate, decision):
    triggers = TriggerSet(Samples(32), gate_samples=16)
    triggers.observe(Facts(since=since, fresh=fresh, gate=gate))
    assert triggers.action() == triggers.decide().action == decision


def test_live_swaps_between_predictions(kit):
    live = Live(kit.Softmax(), 1)
    x = np.ones((1, kit.width), np.float32)
    weights = {v: {"w": np.full((kit.classes, kit.width), v, np.float32)} for v in (1, 2)}
    live.swap(1, weights[1])
    wrong = []
    done = threading.Event()

    def serve():
        while not done.is_set():
            out, version = live.predict(x)
            if out[0, 0] != version * kit.width:
                wrong.append((out, version))

    thread = threading.Thread(target=serve)
    thread.start()
    for i in range(500):
        live.swap(1 + i % 2, weights[1 + i % 2])
    done.set()
    thread.join()
    assert wrong == []
    assert live.version == 2


def test_scores(kit):
    class Echo:
        def predict(self, x):
            return x

        def evaluate(self, x, y):
            return float(np.square(x - y).mean()), {}

    x = np.eye(3, dtype=np.float32)
    assert scores(Echo(), x, [0, 2, 2]).tolist() == [1, 0, 1]
    assert scores(Echo(), x, None).tolist() == [0, 0, 0]
    targets = [np.zeros(3, np.float32), x[1], x[2]]
    assert scores(Echo(), x, targets) == pytest.approx([-1 / 3, 0, 0])
    assert scores(Echo(), x[:0], [])[:].tolist() == []


def test_plan_adds_up_and_refuses(kit):
    config = kit.config(
        buffer={"capacity": 100, "rehearsal": 50, "validation": 10},
        gate={"min_samples": 8, "capacity": 20},
        train={"augment": {"views": 4}},
        base={"kind": "npz", "path": "b.npz", "capacity": 30},
        budget={"ram": "1 MiB"},
    )
    plan = plan_ram(config, 1000, 5000, (10, 5), baseline=7_000_000)
    by_name = {item.name: item.bytes for item in plan.items}
    beside, signature = 13, 4 * 32  # class, loss and use of each; a signature where it trains
    assert by_name["ring of new samples"] == 100 * (4 * 50 * 4 + beside + signature)
    assert by_name["rehearsal"] == 50 * (4 * 50 * 4 + beside + signature)
    assert by_name["anchors"] == 30 * (50 * 4 + beside)
    assert by_name["training session"] == 1000
    assert by_name["program"] == 5000
    assert plan.total == sum(by_name.values())
    assert not plan.fits
    with pytest.raises(
        BudgetError, match=r"(?s)needs \d+\.\d\d MiB, the budget is 1\.00 MiB.*SQLite"
    ):
        plan.check()
    assert plan.to_json()["fits"] is False
    free = plan_ram(kit.config(), 1000, 5000, (10, 5), baseline=7_000_000)
    assert free.fits
    free.check()


def test_resident_bytes():
    now, peak = resident_bytes(), resident_bytes("VmHWM")
    assert 5_000_000 < now <= peak
    with pytest.raises(BudgetError, match="no VmNonsense"):
        resident_bytes("VmNonsense")
