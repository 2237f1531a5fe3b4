"""What every condition is, and how conditions are combined: three-valued logic of Kleene.

A condition holds, does not hold, or is unknown. Unknown never starts an update, and neither does
its negation.
"""

from __future__ import annotations

import dataclasses
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Seconds, convert

if TYPE_CHECKING:
    from edgeloop.loop.triggers.facts import Facts

# What a loop may leave unobserved.
NEEDS = ("error", "confidence", "input", "novelty", "device", "energy")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a condition holds or does not.

    Attributes
    ----------
    text
        What the condition asks for.
    holds
        None: unknown.
    detail
        What there is against what is needed, or why nothing is known.
    parts
        Of a combination, its conditions.
    """

    text: str
    holds: bool | None
    detail: str = ""
    parts: tuple[Explanation, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as JSON types."""
        made: dict[str, Any] = {"text": self.text, "holds": self.holds, "detail": self.detail}
        if self.parts:
            made["parts"] = [part.to_dict() for part in self.parts]
        return made


def explain_text(explanation: Explanation, head: str = "") -> list[str]:
    """Return the tree as indented lines; `head`, such as "waits for", starts the first."""
    e = explanation
    line = f"{head}: {e.text}" if head else e.text
    line += f": {e.detail}" if e.detail else ""
    lines = [line + (" (holds)" if e.holds and not e.parts else "")]
    for part in e.parts:
        lines += [f"  {text}" for text in explain_text(part)]
    return lines


@dataclass(eq=False)
class Condition(ABC):
    """One condition. Subclasses are dataclasses: their init fields are the keys of loop.toml."""

    kind: ClassVar[str] = ""
    observes: ClassVar[frozenset[str]] = frozenset()
    keys: ClassVar[dict[str, str]] = {}  # field: key, where Python does not allow the key's name

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            if not field.init:
                continue
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            hint, where = hints[field.name], f"{self.kind}.{self.keys.get(field.name, field.name)}"
            if hint is Seconds:  # code gives seconds or text, loop.toml text only
                text = f"{value} s" if isinstance(value, int | float) else value
                parsed = 0.0 if text in ("0 s", "0.0 s") else convert(hint, text, where, {})
            elif isinstance(value, tuple):
                parsed = convert(hint, list(value), where, field.metadata)
            else:
                parsed = convert(hint, value, where, field.metadata)
            setattr(self, field.name, parsed)

    @property
    def needs(self) -> frozenset[str]:
        """What must be observed for it, of :data:`NEEDS`."""
        return self.observes

    @abstractmethod
    def update(self, facts: Facts) -> None:
        """Look at the facts after one more item."""

    @abstractmethod
    def holds(self) -> bool | None:
        """Whether it holds by what it has seen; None: unknown."""

    @abstractmethod
    def explain(self) -> Explanation:
        """Say why."""

    def reset(self) -> None:  # noqa: B027 - many have nothing to forget
        """Begin anew: an update starts."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what it has seen, as JSON types."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state` of an equal condition."""

    def describe(self) -> dict[str, Any]:
        """Return the condition as a table of loop.toml; ``build.condition`` makes it again."""
        hints = typing.get_type_hints(type(self))
        table: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.init and value != field.default:
                value = f"{value!r} s" if hints[field.name] is Seconds else value
                value = list(value) if isinstance(value, tuple) else value
                table[self.keys.get(field.name, field.name)] = value
        return {self.kind: table or True}

    def __and__(self, other: Condition) -> AllOf:
        return AllOf(self, other)

    def __or__(self, other: Condition) -> AnyOf:
        return AnyOf(self, other)

    def __invert__(self) -> Not:
        return Not(self)


class _Group(Condition):
    """Several conditions, each of which sees every item."""

    words = ""

    def __init__(self, *parts: Condition) -> None:
        if not parts:
            raise ConfigError(f"{self.kind}: has no conditions; give at least one")
        self.parts = parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"

    @property
    def needs(self) -> frozenset[str]:
        """What any of the parts needs."""
        return frozenset[str]().union(*(part.needs for part in self.parts))

    def update(self, facts: Facts) -> None:
        """Let every part see the facts."""
        for part in self.parts:
            part.update(facts)

    def explain(self) -> Explanation:
        """Explain every part."""
        parts = tuple(part.explain() for part in self.parts)
        return Explanation(self.words, self.holds(), parts=parts)

    def reset(self) -> None:
        """Reset every part."""
        for part in self.parts:
            part.reset()

    def state(self) -> dict[str, Any]:
        """Return the states of the parts."""
        return {"parts": [part.state() for part in self.parts]}

    def load(self, state: dict[str, Any]) -> None:
        """Give every part its state."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load(own)

    def describe(self) -> dict[str, Any]:
        """Return the combination as a table of loop.toml."""
        return {self.kind: [part.describe() for part in self.parts]}


class AllOf(_Group):
    """Holds when every part does: unknown outweighs "holds", "does not hold" outweighs both."""

    kind, words = "all", "all of"

    def holds(self) -> bool | None:
        """Conjunction of Kleene."""
        seen = [part.holds() for part in self.parts]
        if False in seen:
            return False
        return None if None in seen else True


class AnyOf(_Group):
    """Holds when one part does: unknown outweighs "does not hold", "holds" outweighs both."""

    kind, words = "any", "any of"

    def holds(self) -> bool | None:
        """Disjunction of Kleene."""
        seen = [part.holds() for part in self.parts]
        if True in seen:
            return True
        return None if None in seen else False


class Not(_Group):
    """Holds when its part is known not to."""

    kind, words = "not", "not"

    def __init__(self, part: Condition) -> None:
        super().__init__(part)

    def holds(self) -> bool | None:
        """Negation: of unknown it is unknown."""
        held = self.parts[0].holds()
        return None if held is None else not held

    def describe(self) -> dict[str, Any]:
        """Return the negation as a table of loop.toml."""
        return {self.kind: self.parts[0].describe()}
