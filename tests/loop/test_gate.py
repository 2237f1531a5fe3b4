import itertools

import numpy as np
import pytest

from edgeloop.loop.gate import Evidence, PairedGate, Verdict, paired_p


def evidence(live, candidate, **options):
    return Evidence(np.array(live, float), np.array(candidate, float), **options)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(5, 0, 1 / 32), (4, 0, 1 / 16), (0, 3, 1.0), (3, 3, 42 / 64), (0, 0, 1.0), (10, 1, 12 / 2048)],
)
def test_exact_sign_test(wins, losses, expected):
    gain = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 20)
    assert paired_p(gain, seed=0) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_permutation_test_agrees_with_all_sign_flips(seed):
    gain = np.random.default_rng(seed).normal(0.4, 1.0, size=10)
    flips = np.array(list(itertools.product([-1.0, 1.0], repeat=10)))
    exact = (flips @ gain >= gain.sum() - 1e-9).mean()
    assert paired_p(gain, seed) == pytest.approx(exact, abs=0.03)


def test_permutation_test_is_valid_and_has_power():
    rng = np.random.default_rng(1)
    null = [paired_p(rng.normal(size=40), i) <= 0.05 for i in range(400)]
    assert np.mean(null) < 0.08
    better = [paired_p(rng.normal(0.8, 1.0, size=40), i) <= 0.05 for i in range(50)]
    assert np.mean(better) > 0.95


def test_not_finite_is_never_better():
    assert paired_p(np.array([np.inf] * 10), 0) == 1.0
    assert paired_p(np.array([np.nan, 1.0, 1.0]), 0) == 1.0


def test_promotes_only_what_is_better_and_safe():
    gate = PairedGate(8, 0.95, 0.02)
    better = gate(evidence([0] * 8, [1] * 8), seed=0)
    assert better.promote
    assert (better.before, better.after, better.samples) == (0.0, 1.0, 8)
    same = gate(evidence([1] * 8, [1] * 8), seed=0)
    assert not same.promote
    assert "not better" in same.reason
    few = gate(evidence([0] * 7, [1] * 7), seed=0)
    assert not few.promote
    assert "needs 8" in few.reason


@pytest.mark.parametrize(
    ("shipped", "candidate", "relative", "safe"),
    [
        (0.90, 0.88, False, True),
        (0.90, 0.87, False, False),
        (-2.0, -2.04, True, True),
        (-2.0, -2.05, True, False),
        (-0.10, -0.11, True, False),
    ],
)
def test_anchor_tolerance(shipped, candidate, relative, safe):
    verdict = PairedGate(8, 0.95, 0.02)(
        evidence(
            [0] * 8,
            [1] * 8,
            anchor_shipped=shipped,
            anchor_candidate=candidate,
            anchor_relative=relative,
        ),
        seed=0,
    )
    assert verdict.promote is safe
    assert verdict.reason == ("better" if safe else "worse on the base task")


class Open:
    """No gate: whatever validation liked goes live."""

    def winnable(self, live):
        return True

    def __call__(self, evidence, *, seed):
        del seed
        mean = float(evidence.live.mean()), float(evidence.candidate.mean())
        return Verdict(*(True, "no gate", len(evidence.live), 0.0, *mean, None, None))


@pytest.mark.parametrize(("wrong", "possible"), [(0, False), (4, False), (5, True), (20, True)])
def test_winnable_only_if_enough_is_wrong(wrong, possible):
    live = np.array([0.0] * wrong + [1.0] * 20)
    gate = PairedGate(8, 0.95, 0.02)
    assert gate.winnable(live) is possible
    perfect = gate(evidence(live, np.ones_like(live)), seed=0)
    assert perfect.promote is possible


def test_losses_are_always_winnable():
    assert PairedGate(8, 0.95, 0.02).winnable(np.array([-0.1, -0.2]))


def promoted_share(kit, gate, seeds):
    """Share of updates that went live, over streams of shuffled labels.

    Without a validation set, which would turn down most of them before the gate sees them.
    """
    promoted = updates = 0
    config = kit.config(
        trigger={"samples": 40},
        gate={"min_samples": 12, "share": 0.4},
        train={"epochs": 3, "validation": 0.0},
    )
    for seed in range(seeds):
        data = kit.stream(84, seed=seed, shuffled=True)
        report = kit.loop(kit.MemoryStore(), data, config, gate=gate).run()
        promoted += report.promoted
        updates += len(report.updates)
    assert updates >= seeds
    return promoted / updates


def test_useless_labels_are_not_promoted(kit):
    assert promoted_share(kit, None, 200) <= 0.05


def test_without_the_gate_useless_labels_are_promoted(kit):
    """Negative control: it is the gate that keeps them out."""
    assert promoted_share(kit, Open(), 50) > 0.9


def test_true_labels_pass_the_gate(kit):
    """Negative control: the gate is not simply shut."""
    config = kit.config(trigger={"samples": 40}, gate={"min_samples": 12, "share": 0.4})
    assert kit.loop(kit.MemoryStore(), kit.stream(84), config).run().promoted == 1
