"""The one tree of errors. A message says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class EdgeLoopError(Exception):
    """Root of every error that edgeloop raises on purpose."""


class ModelError(EdgeLoopError):
    """The ONNX model cannot be read, or holds something that cannot be compiled."""


class Unsupported(NamedTuple):
    """One operator that cannot be compiled: its name, its node, and whether gradients cross it."""

    op: str
    node: str
    on_gradient_path: bool
    detail: str = ""


class UnsupportedError(ModelError):
    """Operators that the compiler does not know; the message lists every one with its node."""

    def __init__(self, message: str, operators: Iterable[Unsupported] = ()) -> None:
        super().__init__(message)
        self.operators = tuple(operators)


class ShapeError(ModelError):
    """Shapes that do not fit an operator; the message says both shapes and the rule."""


class CompileError(EdgeLoopError):
    """A valid model cannot be compiled as asked (options, missing gradient, targets)."""


class BudgetError(CompileError):
    """The plan does not fit the budget; the message carries the numbers.

    ``needed``: bytes of the plan, 0 where no plan was made.
    """

    def __init__(self, message: str, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed


class ProgramError(EdgeLoopError):
    """The program file is damaged, truncated, of another version, or does not fit."""


class InputError(EdgeLoopError):
    """Data handed to a session has the wrong name, shape or type, or is not finite."""


class NonFiniteError(EdgeLoopError):
    """Loss or gradient became NaN or infinite; the weights were left as they were."""


class DataError(EdgeLoopError):
    """A source or feature pipeline met data that it cannot use.

    ``plain``: what is wrong without a word of the data's own, "" where nobody wrote that down.
    """

    def __init__(self, message: str, plain: str = "") -> None:
        super().__init__(message)
        self.plain = plain


class ConfigError(EdgeLoopError):
    """A loop.toml key is unknown, missing or out of range."""


class StateError(EdgeLoopError):
    """The state file is damaged, locked, full, or of another version."""


class UnknownVersionError(StateError):
    """The state file has no version of that number, digest or label."""


class DamagedError(StateError):
    """Bytes of the state file, or of something in it, are not what was written."""


class DeltaError(EdgeLoopError):
    """A delta package is damaged or does not belong to this program or parent."""


class AdapterError(EdgeLoopError):
    """An adapter of another format is damaged, or does not fit the program; or the reverse."""


class TrustError(DeltaError):
    """Something signed is not to be believed here, or what this device believes in is missing."""


class MissingParentError(DeltaError):
    """A package builds on an adapter that is not here: ask for the full package."""


class LinkError(EdgeLoopError):
    """The update server cannot be reached, or said no.

    ``again``: trying later may help. ``stranger``: it does not know this device, or this device not
    it.
    """

    def __init__(self, message: str, *, again: bool = False, stranger: bool = False) -> None:
        super().__init__(message)
        self.again = again
        self.stranger = stranger


class HubError(EdgeLoopError):
    """The hub says no to a request; ``status``: its HTTP status."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
