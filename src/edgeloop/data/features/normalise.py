"""Normalisation: by constants, by each window's own statistics, or by running ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Example, Features, Shape
from edgeloop.data.features.options import check, choice, positive, reals, whole
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Normalise(Features):
    """(x - mean) / max(std, eps), of any shape; the numbers of a window fall into groups.

    Running statistics move by :meth:`observe` alone, never by a call, so that predicting, and
    looking at a sample once more, leaves them where they are. Window number t (from 1) of mean w
    and variance v moves them with a = 1 / min(t, memory): ``d = w - mean``, ``mean += a d``,
    ``var = (1 - a) (var + a d^2) + a v``. Without `memory` that is the mean and variance of all
    windows (Chan, Golub and LeVeque 1979), with it they forget (Finch 2009). They move before the
    window is normalised.

    Parameters
    ----------
    by
        "constants", `mean` and `std`; "window", the window's own; "running", see above.
    keep
        Axes that keep statistics of their own: [] one group, [-1] one for each index of the last
        axis (channels), [0, 1] one for each number of a matrix.
    mean, std
        Constants: a number, or a list with one for each group, `std` above 0. Running statistics
        use them until the first window.
    eps
        Smallest standard deviation that is divided by, in the window's unit.
    memory
        Windows that running statistics look back on, about; absent: all.
    freeze_after
        Running statistics stay as they are after so many windows; absent: they never stop.
    """

    kind = "normalise"

    def __init__(
        self,
        *,
        by: str = "constants",
        keep: Sequence[int] = (),
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        eps: float = 1e-6,
        memory: int | None = None,
        freeze_after: int | None = None,
    ) -> None:
        self._by = choice("by", by, ("constants", "window", "running"))
        good = isinstance(keep, list | tuple) and all(
            isinstance(axis, int) and not isinstance(axis, bool) for axis in keep
        )
        check(good, "keep", keep, "a list of axes, such as [-1]")
        self._keep = list(keep)
        self._given = reals("mean", mean), reals("std", std)
        check(np.min(self._given[1]) > 0, "std", std, "above 0")
        self._eps = positive("eps", eps)
        self._memory = None if memory is None else whole("memory", memory)
        self._last = None if freeze_after is None else whole("freeze_after", freeze_after)
        for name, value in (("memory", memory), ("freeze_after", freeze_after)):
            check(value is None or by == "running", name, value, 'left out unless by is "running"')
        self.stateful = self._by == "running"
        self._seen = 0
        self._learnt: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        super().__init__(
            by=by, keep=list(keep), mean=self._given[0], std=self._given[1], eps=self._eps,
            memory=memory, freeze_after=freeze_after,
        )

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"by": "running", "keep": [-1]}, (4096, 3)
        yield {"mean": [1.0, 2.0], "std": [0.5, 3.0], "keep": [0]}, (2, 1501)
        yield {"by": "window"}, (1, 50, 40)
        yield {"by": "running", "keep": [0, 1], "memory": 3, "freeze_after": 5}, (9, 130)

    def _plan(self, shape: Shape) -> Shape:
        rank = len(shape)
        kept = [axis + rank if axis < 0 else axis for axis in self._keep]
        if len(set(kept)) != len(kept) or not all(0 <= axis < rank for axis in kept):
            raise DataError(
                f"normalise: keep is {self._keep}, a window has shape {list(shape)}; name each of "
                f"its {rank} axes once at most"
            )
        groups = math.prod(shape[axis] for axis in kept)
        given = self._given if self._learnt is None else self._learnt
        if any(np.ndim(v) and np.size(v) != groups for v in given):
            whose = "constants" if self._learnt is None else "statistics learnt"
            raise DataError(
                f"normalise: {whose} are of {max(map(np.size, given))} groups, a window of shape "
                f"{list(shape)} has {groups}; change keep or the windows"
            )
        self._order = [*kept, *(axis for axis in range(rank) if axis not in kept)]
        each = math.prod(shape) // groups
        self._work = np.zeros((groups, each), np.float64)  # one row a group
        self._spread = np.zeros_like(self._work)
        self._view = self._work.reshape([shape[axis] for axis in self._order])
        self._mean, self._var, self._scale, self._delta = np.zeros((4, groups), np.float64)
        self._start()
        return shape

    def _start(self) -> None:
        """Fill mean and variance with what was learnt, or with the constants."""
        mean, std = (np.asarray(each, np.float64) for each in self._given)
        learnt = (mean, np.square(std)) if self._learnt is None else self._learnt
        np.copyto(self._mean, learnt[0])
        np.copyto(self._var, learnt[1])
        if self._learnt is not None:
            self._learnt = self._mean, self._var

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(self._view, x.transpose(self._order))
        if self._by == "window":
            self._measure(self._mean, self._var)
        self._apply(out)

    def _observe(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        if self._by != "running" or (self._last is not None and self._seen >= self._last):
            self._run(x, out)
            return
        np.copyto(self._view, x.transpose(self._order))
        # The scale is computed last, so that its buffer is free until then.
        mean, var, delta, new_var = self._mean, self._var, self._delta, self._scale
        self._measure(delta, new_var)
        if not (math.isfinite(delta.sum()) and math.isfinite(new_var.sum())):
            raise DataError("normalise: the window's variance is not finite; check the sensor")
        self._seen += 1
        share = 1.0 / min(self._seen, self._memory or self._seen)
        np.subtract(delta, mean, out=delta)
        np.multiply(new_var, share, out=new_var)
        np.multiply(var, 1.0 - share, out=var)
        np.add(var, new_var, out=var)
        np.multiply(delta, share, out=new_var)
        np.add(mean, new_var, out=mean)
        np.multiply(delta, new_var, out=delta)
        np.multiply(delta, 1.0 - share, out=delta)
        np.add(var, delta, out=var)
        self._learnt = mean, var
        self._apply(out)

    def _measure(self, mean: NDArray[np.float64], var: NDArray[np.float64]) -> None:
        """Fill mean and variance of each row of the buffer."""
        each = self._work.shape[1]
        np.add.reduce(self._work, axis=1, out=mean)
        np.multiply(mean, 1.0 / each, out=mean)
        np.copyto(self._spread, mean[:, None])
        np.subtract(self._work, self._spread, out=self._spread)
        np.square(self._spread, out=self._spread)
        np.add.reduce(self._spread, axis=1, out=var)
        np.multiply(var, 1.0 / each, out=var)

    def _apply(self, out: NDArray[np.float32]) -> None:
        # Constants are spread over the buffer first: a broadcast sum would allocate in every call.
        np.copyto(self._spread, self._mean[:, None])
        np.subtract(self._work, self._spread, out=self._work)
        np.sqrt(self._var, out=self._scale)
        np.maximum(self._scale, self._eps, out=self._scale)
        np.copyto(self._spread, self._scale[:, None])
        np.divide(self._work, self._spread, out=self._work)
        np.copyto(out.transpose(self._order), self._view, casting="same_kind")

    def state(self) -> dict[str, Any]:
        """Return windows seen, and mean and variance of each group; {} unless running."""
        if self._by != "running":
            return {}
        mean, var = ([], []) if self._learnt is None else (each.tolist() for each in self._learnt)
        return {"seen": self._seen, "mean": mean, "var": var}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave; DataError, and no change: not such a state."""
        if self._by != "running":
            super().load_state(state)
            return
        seen, mean, var = state.get("seen"), state.get("mean"), state.get("var")
        if (
            set(state) != {"seen", "mean", "var"}
            or not isinstance(seen, int) or isinstance(seen, bool) or seen < 0
            or not isinstance(mean, list) or not isinstance(var, list)
            or len(mean) != len(var) or (len(mean) > 0) != (seen > 0)
            or not all(isinstance(v, float) and math.isfinite(v) for v in [*mean, *var])
            or any(v < 0 for v in var)
        ):
            raise DataError(
                "normalise: not a state of running statistics (seen, and as many finite mean as "
                "var); start without one"
            )
        learnt = (np.array(mean, np.float64), np.array(var, np.float64)) if seen else None
        if learnt is not None and self.input_shape is not None and len(mean) != len(self._mean):
            raise DataError(
                f"normalise: a state of {len(mean)} groups, the windows have {len(self._mean)}; "
                "load it into the pipeline that it came from"
            )
        self._seen, self._learnt = seen, learnt
        if self.input_shape is not None:
            self._start()
