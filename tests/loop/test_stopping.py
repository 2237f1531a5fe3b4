"""Rules that end training: each fires, and does not where it must not."""

from pathlib import Path

import pytest

from edgeloop.loop import Config
from edgeloop.loop.stopping import WORST, Trend, judge


def stops(train, losses, **config):
    """Why and after which epoch training ends on these validation losses; None: it does not."""
    data = {"model": {"program": "p"}, "train": {"epochs": 99} | config}
    config = Config.from_dict(data, root=Path()).train
    trend, best = Trend(mark=losses[0]), losses[0]
    for epoch, (a, b) in enumerate(zip(train, losses[1:], strict=True), 1):
        best = min(best, b)
        reason = judge(config, trend, epoch=epoch, train=a, loss=b, best=best)
        if reason is not None:
            return reason, epoch
    return None


FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]


@pytest.mark.parametrize(("losses", "config", "found"), [
    (FALLING, {"target_loss": 0.7}, ("target", 3)),
    (FALLING, {"target_loss": 0.4}, None),
    (FALLING, {"epochs": 4}, ("epochs", 4)),
    ([1.0, 0.9, 0.9, 0.9, 0.9, 0.9], {}, ("plateau", 4)),
    ([1.0, 0.9, 0.9, 0.9, 0.8, 0.9], {}, None),
    (FALLING, {"early_stopping": {"patience": 3, "min_delta": 0.2}}, None),  # 0.3 in three epochs
    (FALLING, {"early_stopping": {"patience": 1, "min_delta": 0.2}}, ("plateau", 1)),
])
def test_target_epochs_plateau(losses, config, found):
    assert stops([1.0] * 5, losses, **config) == found


def test_smoothing_looks_through_a_spike_and_is_corrected_at_the_start():
    spiky = [1.0, 0.9, 0.8, 0.83, 0.6, 0.5, 0.65, 0.3]
    rough = {"early_stopping": {"patience": 1}}
    assert stops([1.0] * 7, spiky, **rough) == ("plateau", 3)
    smooth = {"early_stopping": {"patience": 1, "smoothing": 0.8}}
    assert stops([1.0] * 7, spiky, **smooth) is None
    trend = Trend(mark=WORST)
    config = Config.from_dict(
        {"model": {"program": "p"}, "train": smooth}, root=Path()).train
    judge(config, trend, epoch=1, train=1.0, loss=0.5, best=0.5)
    assert trend.mark == pytest.approx(0.5)  # not 0.1, as an average from 0 would be


def test_overfitting_by_patience():
    apart = {"overfitting": {"patience": 2}, "early_stopping": {"patience": 99}}
    rising = [1.0, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert stops([0.9, 0.8, 0.7, 0.6, 0.5], rising, **apart) == ("overfitting", 3)
    assert stops([0.5, 0.6, 0.7, 0.8, 0.9], rising, **apart) is None  # training rises as well
    assert stops([0.9, 0.8, 0.7, 0.6, 0.5], FALLING, **apart) is None
    assert stops([0.9, 0.8, 0.7, 0.6, 0.5], rising, early_stopping={"patience": 99}) is None


def test_overfitting_by_gap():
    gap = {"overfitting": {"patience": 99, "gap": 0.2}, "early_stopping": {"patience": 99}}
    assert stops([1.0] * 5, [1.0, 0.5, 0.55, 0.59, 0.61, 0.5], **gap) == ("overfitting", 4)
    assert stops([1.0] * 5, [1.0, 0.5, 0.55, 0.59, 0.6, 0.5], **gap) is None


def test_a_trend_goes_on_where_it_was():
    losses, train = [1.0, 0.5, 0.6, 0.58, 0.7, 0.72], [0.9, 0.8, 0.7, 0.6, 0.5]
    config = Config.from_dict({"model": {"program": "p"}, "train": {
        "overfitting": {"patience": 2}, "early_stopping": {"patience": 99, "smoothing": 0.5},
    }}, root=Path()).train
    for cut in range(5):
        whole, parts = Trend(mark=1.0), Trend(mark=1.0)
        for epoch in range(1, 6):
            if epoch == cut:
                parts = Trend(**vars(parts))
            said = [judge(config, t, epoch=epoch, train=train[epoch - 1], loss=losses[epoch],
                          best=0.5) for t in (whole, parts)]
            assert said[0] == said[1]
            assert vars(whole) == vars(parts)
