"""When training has learnt enough, or begins to learn by heart: rules over the curve of losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeloop.loop.config import TrainConfig

WORST = 1e300  # stands for a loss that is not finite: JSON has no infinity


@dataclass(kw_only=True)
class Trend:
    """What the rules remember of the epochs so far; a part of every checkpoint.

    Attributes
    ----------
    smooth, weight
        Exponential moving average of the validation loss, and the share of it that is losses.
    mark, bad
        Loss that patience counts from, and epochs since.
    apart
        Epochs in a row in which training loss fell and validation loss rose.
    last_train, last_loss
        Losses of the epoch before.
    """

    smooth: float = 0.0
    weight: float = 0.0
    mark: float = WORST
    bad: int = 0
    apart: int = 0
    last_train: float | None = None
    last_loss: float | None = None


def judge(
    config: TrainConfig, trend: Trend, *, epoch: int, train: float, loss: float, best: float
) -> str | None:
    """Take in the losses of an epoch; return why training ends here, or None.

    Parameters
    ----------
    epoch
        From 1.
    train, loss
        Mean training loss of the epoch, and validation loss after it.
    best
        Lowest validation loss so far, this one and the one before training included.

    Returns
    -------
    str or None
        "target", "overfitting", "plateau" or "epochs".
    """
    stopping = config.early_stopping
    # Divided by its weight, so that the first epochs count as much as they should (Adam's bias
    # correction, Kingma and Ba 2015).
    trend.smooth = stopping.smoothing * trend.smooth + (1.0 - stopping.smoothing) * loss
    trend.weight = stopping.smoothing * trend.weight + (1.0 - stopping.smoothing)
    level = trend.smooth / trend.weight
    trend.bad += 1
    if level < trend.mark - stopping.min_delta:
        trend.mark, trend.bad = level, 0
    apart = (trend.last_train is not None and train < trend.last_train
             and trend.last_loss is not None and loss > trend.last_loss)
    trend.apart = trend.apart + 1 if apart else 0
    trend.last_train, trend.last_loss = train, loss
    if config.target_loss is not None and loss <= config.target_loss:
        return "target"
    over = config.overfitting
    if over is not None and (
        trend.apart >= over.patience
        or (over.gap is not None and loss > best + over.gap * abs(best))
    ):
        return "overfitting"
    if trend.bad >= stopping.patience:
        return "plateau"
    return "epochs" if epoch >= config.epochs else None
