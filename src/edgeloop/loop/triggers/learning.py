"""Conditions over what the loop has seen: counts, drift, and how the live version does."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Range
from edgeloop.loop.triggers.condition import Condition, Explanation
from edgeloop.loop.triggers.drift import Adwin, Detector, PageHinkley
from edgeloop.loop.triggers.facts import finite

if TYPE_CHECKING:
    from edgeloop.loop.triggers.facts import Facts


@dataclass(eq=False)
class Samples(Condition):
    """Enough labelled samples since the last update.

    Attributes
    ----------
    n
        Labelled samples.
    """

    kind = "samples"

    n: int = field(metadata={"range": Range(1)})
    _seen: int = field(default=0, init=False, repr=False)

    def update(self, facts: Facts) -> None:
        """Take the count."""
        self._seen = facts.since

    def holds(self) -> bool:
        """Whether there are `n`."""
        return self._seen >= self.n

    def explain(self) -> Explanation:
        """Say how many there are."""
        return Explanation("samples", self.holds(), f"{self._seen} of {self.n}")

    def reset(self) -> None:
        """Begin at 0."""
        self._seen = 0

    def state(self) -> dict[str, Any]:
        """Return the count."""
        return {"seen": self._seen}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._seen = state["seen"]


@dataclass(eq=False)
class Novel(Condition):
    """Enough samples since the last update that are unlike everything kept.

    Attributes
    ----------
    n
        Novel samples, by buffer.novelty_threshold; unknown where that is 0.
    """

    kind = "novel"
    observes = frozenset({"novelty"})

    n: int = field(metadata={"range": Range(1)})
    _seen: int | None = field(default=None, init=False, repr=False)

    def update(self, facts: Facts) -> None:
        """Take the count."""
        self._seen = facts.novel

    def holds(self) -> bool | None:
        """Whether there are `n`; unknown when nobody counts them."""
        return None if self._seen is None else self._seen >= self.n

    def explain(self) -> Explanation:
        """Say how many there are."""
        seen = self._seen
        detail = "unknown: nobody counts them" if seen is None else f"{seen} of {self.n}"
        return Explanation("novel samples", self.holds(), detail)

    def reset(self) -> None:
        """Begin at 0."""
        self._seen = None if self._seen is None else 0

    def state(self) -> dict[str, Any]:
        """Return the count."""
        return {"seen": self._seen}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._seen = state["seen"]


@dataclass(eq=False)
class PerClass(Condition):
    """Enough labelled samples of each class since the last update.

    Attributes
    ----------
    n
        Labelled samples of each class.
    classes
        Class numbers that count; absent: every class that the loop knows.
    """

    kind = "per_class"

    n: int = field(metadata={"range": Range(1)})
    classes: tuple[int, ...] | None = None
    _seen: dict[int, int] | None = field(default=None, init=False, repr=False)

    def update(self, facts: Facts) -> None:
        """Take the counts."""
        self._seen = None if facts.by_class is None else dict(facts.by_class)

    def _short(self) -> dict[int, int]:
        seen = self._seen or {}
        wanted = sorted(seen) if self.classes is None else self.classes
        return {c: seen.get(c, 0) for c in wanted if seen.get(c, 0) < self.n}

    def holds(self) -> bool | None:
        """Whether no class is short; unknown when nobody counts, or no class is known."""
        if self._seen is None or (self.classes is None and not self._seen):
            return None
        return not self._short()

    def explain(self) -> Explanation:
        """Name the classes that are short."""
        held = self.holds()
        if held is None:
            detail = "unknown: no class has been counted"
        elif held:
            detail = f"every class has {self.n}"
        else:
            short = list(self._short().items())
            detail = ", ".join(f"class {c} has {have} of {self.n}" for c, have in short[:3])
            detail += f" and {len(short) - 3} more" if len(short) > 3 else ""
        return Explanation("samples of each class", held, detail)

    def reset(self) -> None:
        """Begin at 0."""
        self._seen = None if self._seen is None else dict.fromkeys(self._seen, 0)

    def state(self) -> dict[str, Any]:
        """Return the counts; JSON's keys are text, so as pairs."""
        return {"seen": None if self._seen is None else sorted(map(list, self._seen.items()))}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        seen = state["seen"]
        self._seen = None if seen is None else {int(c): int(have) for c, have in seen}


_WORSE = {"error": "up", "confidence": "down", "input": "both"}


@dataclass(eq=False)
class Drift(Condition):
    """The mean of a stream of numbers has changed; it holds from then until an update starts.

    Then the detector begins again: what counts as usual is what the next live version does.

    Attributes
    ----------
    of
        What is watched: "error" or "confidence" of the live version, or the "input".
    detector
        "adwin" or "page-hinkley".
    change
        "up": only a rise counts, "down": only a fall, "both". Absent: what is worse ("up" of error,
        "down" of confidence), "both" of the input.
    delta
        adwin: significance (absent: 0.002). page-hinkley: deviation that counts as none (0.005).
    clock
        adwin: values between two looks.
    threshold
        page-hinkley: summed deviation that is a change, in units of the values.
    min_values
        Values before it says anything; absent: 11 (adwin), 30 (page-hinkley).
    """

    kind = "drift"

    of: str = field(default="error", metadata={"choices": tuple(_WORSE)})
    detector: str = field(default="adwin", metadata={"choices": ("adwin", "page-hinkley")})
    change: str | None = field(default=None, metadata={"choices": ("up", "down", "both")})
    delta: float | None = field(default=None, metadata={"range": Range(1e-12, 0.999)})
    clock: int = field(default=32, metadata={"range": Range(1)})
    threshold: float = field(default=50.0, metadata={"range": Range(0)})
    min_values: int | None = field(default=None, metadata={"range": Range(2)})
    _found: bool = field(default=False, init=False, repr=False)
    _watch: Detector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        other = {"adwin": "threshold", "page-hinkley": "clock"}[self.detector]
        if getattr(self, other) != type(self).__dataclass_fields__[other].default:
            raise ConfigError(f'drift.{other}: is not for "{self.detector}"; leave it out')
        self._watch = self._fresh()

    def _fresh(self) -> Detector:
        if self.detector == "adwin":
            least = 11 if self.min_values is None else self.min_values
            return Adwin(delta=0.002 if self.delta is None else self.delta, clock=self.clock,
                         grace_period=least - 1)
        return PageHinkley(
            delta=0.005 if self.delta is None else self.delta,
            threshold=self.threshold,
            min_instances=30 if self.min_values is None else self.min_values,
            mode=self._counts,
        )

    @property
    def _counts(self) -> str:
        return self.change or _WORSE[self.of]

    @property
    def needs(self) -> frozenset[str]:
        """What it watches."""
        return frozenset({self.of})

    def update(self, facts: Facts) -> None:
        """Give the detector the newest value, where there is one."""
        value = finite({"error": facts.error, "confidence": facts.confidence}.get(
            self.of, facts.input))
        if value is None or self._found:
            return
        before = self._watch.mean
        if self._watch.update(value):
            # Page-Hinkley looks one way itself; ADWIN's window shows which way the mean went.
            way = "up" if self._watch.mean > before else "down"
            self._found = self.detector != "adwin" or self._counts in (way, "both")

    def holds(self) -> bool | None:
        """Whether there has been a change; unknown before enough values."""
        if self._found:
            return True
        return None if self._watch.n < self._watch.minimum else False

    def explain(self) -> Explanation:
        """Say how many values showed no change, or that there was one."""
        held, n = self.holds(), self._watch.n
        if held is None:
            detail = f"unknown: {n} of {self._watch.minimum} values"
        else:
            detail = f"changed after {n} values" if held else f"no change in {n} values"
        return Explanation(f"drift of {self.of} ({self.detector})", held, detail)

    def reset(self) -> None:
        """Begin again with no values."""
        self._found, self._watch = False, self._fresh()

    def state(self) -> dict[str, Any]:
        """Return the detector's state."""
        return {"found": self._found, "watch": self._watch.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._found = state["found"]
        self._watch.load(state["watch"])


class _Mean(Condition):
    """The mean of the last `window` values of one fact since the last update."""

    window: int
    _last: deque[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._last = deque(maxlen=self.window)

    def _add(self, value: float | None) -> None:
        if (number := finite(value)) is not None:
            self._last.append(number)

    @property
    def _mean(self) -> float | None:
        full = len(self._last) == self.window
        return sum(self._last) / self.window if full else None

    def _say(self, text: str, held: bool | None, needed: str) -> Explanation:
        if self._mean is None:
            return Explanation(text, held, f"unknown: {len(self._last)} of {self.window} values")
        return Explanation(text, held, f"{self._mean:.4g} over {self.window} values, {needed}")

    def reset(self) -> None:
        """Forget the values: another version may answer next."""
        self._last.clear()

    def state(self) -> dict[str, Any]:
        """Return the values."""
        return {"last": list(self._last)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._last = deque(state["last"], maxlen=self.window)


@dataclass(eq=False)
class Loss(_Mean):
    """The live version does badly: its mean error over the last labelled items is above a limit.

    Attributes
    ----------
    above
        Share of wrong answers, 0 to 1, or loss where the model does not tell classes.
    window
        Labelled items since the last update that the mean is over; before, it is unknown.
    """

    kind = "loss"
    observes = frozenset({"error"})

    above: float = field(metadata={"range": Range(0)})
    window: int = field(default=32, metadata={"range": Range(1, 65536)})

    def update(self, facts: Facts) -> None:
        """Take the error of a labelled item."""
        self._add(facts.error)

    def holds(self) -> bool | None:
        """Whether the mean is above."""
        return None if self._mean is None else self._mean > self.above

    def explain(self) -> Explanation:
        """Say the mean."""
        return self._say("loss", self.holds(), f"above {self.above:g} needed")


@dataclass(eq=False)
class Confidence(_Mean):
    """The live version is unsure: its mean confidence over the last items is below a limit.

    Attributes
    ----------
    below
        Probability that it gives its answers, 0 to 1.
    window
        Items since the last update that the mean is over; before, it is unknown.
    """

    kind = "confidence"
    observes = frozenset({"confidence"})

    below: float = field(metadata={"range": Range(0, 1)})
    window: int = field(default=32, metadata={"range": Range(1, 65536)})

    def update(self, facts: Facts) -> None:
        """Take the confidence in an answer."""
        self._add(facts.confidence)

    def holds(self) -> bool | None:
        """Whether the mean is below."""
        return None if self._mean is None else self._mean < self.below

    def explain(self) -> Explanation:
        """Say the mean."""
        return self._say("confidence", self.holds(), f"below {self.below:g} needed")
