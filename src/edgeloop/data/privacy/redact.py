"""Redaction: what names or reaches a person goes out of the texts of a record."""

from __future__ import annotations

import difflib
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.privacy.filters import DEPTH, WITHHELD
from edgeloop.data.privacy.kinds import KINDS, Finder, Span
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from edgeloop.data.item import Item

_NAME = re.compile(r"[A-Za-z][\w-]{0,31}")


class Redact:
    """Replaces what is found in texts by the name of its kind, such as ``[email]``.

    Texts in lists and tables are searched as well, names of fields among them, and whole numbers as
    they are written. What is neither text, number, list nor table is withheld. A key is to stay one
    item's alone: what is found in it becomes ``[email:`` and 12 hex digits of its keyed hash.

    Parameters
    ----------
    kinds
        Of :data:`edgeloop.data.privacy.KINDS`.
    patterns
        Regular expressions of one's own, by name; they go first. One that goes back without end is
        not noticed.
    secret
        The device's own, see :func:`edgeloop.data.privacy.device_key`.
    but
        Fields that are hashed already.
    key
        Search the item's key too.

    Raises
    ------
    ConfigError
        An unknown kind, or a pattern that is none, has no fit name, or finds the empty text.
    """

    def __init__(
        self,
        kinds: Collection[str] = (),
        patterns: Mapping[str, str] | None = None,
        *,
        secret: bytes,
        but: Collection[str] = (),
        key: bool = True,
    ) -> None:
        self._finders: dict[str, Finder] = {
            name: _own(name, pattern) for name, pattern in (patterns or {}).items()
        }
        for kind in kinds:
            if kind not in KINDS:
                close = difflib.get_close_matches(kind, KINDS, 1)
                hint = f'did you mean "{close[0]}"?' if close else f"use {', '.join(KINDS)}"
                raise ConfigError(f"privacy.redact: {kind!r} is not known; {hint}")
            self._finders[kind] = KINDS[kind]
        self._secret, self._but, self._key = secret, frozenset(but), key

    def __call__(self, item: Item) -> Item:
        """Return the item without what was found."""
        meta = {
            self.text(k): v if k in self._but else self._value(v, 0) for k, v in item.meta.items()
        }
        return replace(item, key=self._tagged(item.key) if self._key else item.key, meta=meta)

    def text(self, text: str) -> str:
        """Return a text without what was found in it."""
        for name, find in self._finders.items():
            text = _replace(text, find(text), partial("[{}]".format, name))
        return text

    def _tagged(self, key: str) -> str:
        for name, find in self._finders.items():
            key = _replace(key, find(key), partial(self._tag, name))
        return key

    def _tag(self, name: str, found: str) -> str:
        data = found.encode("utf-8", "surrogatepass")
        return f"[{name}:{hmac.new(self._secret, data, hashlib.sha256).hexdigest()[:12]}]"

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | np.bool_):
            return value
        if isinstance(value, int | float | np.integer | np.floating):
            written = _written(value.item() if isinstance(value, np.generic) else value)
            return value if (found := self.text(written)) == written else found
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return value
        if depth < DEPTH and isinstance(value, Mapping):
            return {self.text(str(k)): self._value(v, depth + 1) for k, v in value.items()}
        if depth < DEPTH and isinstance(value, list | tuple):
            return [self._value(v, depth + 1) for v in value]
        return WITHHELD


def _own(name: str, pattern: Any) -> Finder:
    """Make a finder of a pattern from the configuration."""
    where = f"privacy.patterns.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: is no fit name; use a letter, then letters, digits, - or _")
    if name in KINDS:
        raise ConfigError(f"{where}: is the name of a kind of privacy.redact; choose another")
    if not isinstance(pattern, str):
        raise ConfigError(f"{where}: is {pattern!r}; it must be a regular expression, in quotes")
    try:
        made = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is no regular expression ({error})") from error
    if made.fullmatch(""):
        raise ConfigError(f"{where}: {pattern!r} finds the empty text; let it need a character")
    return lambda text: (m.span() for m in made.finditer(text) if m.end() > m.start())


def _written(number: float) -> str:
    """A number as a person would write it; "" where it is too long to be anybody's."""
    if not abs(number) < 1e36:
        return ""
    return str(int(number)) if number == int(number) else str(number)


def _replace(text: str, spans: Iterator[Span], by: Callable[[str], str]) -> str:
    """Return a text with the spans replaced; of two that overlap the first alone."""
    parts, at = [], 0
    for start, end in sorted(spans):
        if start < at:
            at = max(at, end)  # what is left of it goes with the first
            continue
        parts += [text[at:start], by(text[start:end])]
        at = end
    return text if not parts else "".join([*parts, text[at:]])
