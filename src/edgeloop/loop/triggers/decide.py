"""The decision after each item: collect on, wait, or train; and whether training may go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeloop.loop.triggers.condition import Explanation, explain_text
from edgeloop.loop.triggers.constraints import Constraints
from edgeloop.loop.triggers.facts import Facts

if TYPE_CHECKING:
    from edgeloop.loop.triggers.condition import Condition

_HEADS = {"collect": "waits for", "wait": "could train, but waits for", "train": "trains"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why.

    Attributes
    ----------
    action
        "collect": the trigger does not hold. "wait": it does, but the gate set is short or a
        constraint is not met. "train".
    explanation
        Of the trigger, or of what is waited for.
    """

    action: str
    explanation: Explanation

    def lines(self) -> list[str]:
        """Return it as text for people."""
        return explain_text(self.explanation, _HEADS[self.action])


class TriggerSet:
    """The trigger, what the gate needs, and the constraints: all that decides about an update.

    Parameters
    ----------
    trigger
        Starts an update.
    constraints
        Must hold at its start and while it runs.
    gate_samples
        Samples that the gate set must hold to judge the result.
    """

    def __init__(
        self, trigger: Condition, constraints: Constraints | None = None, *, gate_samples: int = 0
    ) -> None:
        self.trigger, self.constraints = trigger, constraints or Constraints()
        self._gate_samples = gate_samples
        self._facts = Facts()

    @property
    def needs(self) -> frozenset[str]:
        """What the loop must observe."""
        return self.trigger.needs | self.constraints.needs

    def observe(self, facts: Facts) -> None:
        """Let every condition see the facts after one more item."""
        self._facts = facts
        self.trigger.update(facts)
        self.constraints.check(facts)

    def action(self) -> str:
        """Decide by what has been observed, without a word: what :meth:`decide` would do."""
        if self.trigger.holds() is not True:
            return "collect"
        return "wait" if self._gate() or self.constraints.unmet() else "train"

    def decide(self) -> Decision:
        """Decide by what has been observed."""
        if self.trigger.holds() is not True:
            return Decision("collect", self.trigger.explain())
        short = [*self._gate(), *self.constraints.unmet()]
        if short:
            why = short[0] if len(short) == 1 else Explanation("all of", False, parts=tuple(short))
            return Decision("wait", why)
        return Decision("train", self.trigger.explain())

    def _gate(self) -> list[Explanation]:
        facts, short = self._facts, []
        if facts.fresh == 0:
            short.append(Explanation("samples to train on", False, "0 of 1"))
        if facts.gate < self._gate_samples:
            detail = f"{facts.gate} of {self._gate_samples}"
            short.append(Explanation("samples in the gate set", False, detail))
        return short

    def started(self) -> None:
        """An update starts: what the trigger counts begins anew."""
        self.trigger.reset()

    def may_go_on(self, facts: Facts) -> list[Explanation]:
        """Look at the device while an update runs; return the constraints that are not met."""
        return self.constraints.check(facts)

    def ended(self, promoted: bool) -> None:
        """An update ended. Where its candidate went live, another version is watched from here."""
        if promoted:
            self.trigger.reset()

    def state(self) -> dict[str, Any]:
        """Return all that was observed, as JSON types."""
        return {
            "trigger": self._identity(),
            "seen": self.trigger.state(),
            "constraints": self.constraints.state(),
            "counts": [self._facts.since, self._facts.fresh, self._facts.gate],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`; with another trigger than then, that one begins anew."""
        if state["trigger"] == self._identity():
            self.trigger.load(state["seen"])
        self.constraints.load(state["constraints"])
        since, fresh, gate = state["counts"]
        self._facts = Facts(since=since, fresh=fresh, gate=gate)

    def _identity(self) -> str:
        text = json.dumps(self.trigger.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
