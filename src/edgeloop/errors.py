"""The one tree of errors. A message says what is wrong, where, and what to do."""

from __future__ import annotations


class EdgeLoopError(Exception):
    """Root of every error that edgeloop raises on purpose."""


class ModelError(EdgeLoopError):
    """The ONNX model cannot be read, or holds something that cannot be compiled."""


class UnsupportedError(ModelError):
    """Operators that the compiler does not know; the message lists every one with its node."""


class ShapeError(ModelError):
    """Shapes that do not fit an operator; the message says both shapes and the rule."""


class CompileError(EdgeLoopError):
    """A valid model cannot be compiled as asked (options, missing gradient, targets)."""


class BudgetError(CompileError):
    """The plan does not fit the budget; the message carries the numbers."""


class ProgramError(EdgeLoopError):
    """The program file is damaged, truncated, of another version, or does not fit."""


class InputError(EdgeLoopError):
    """Data handed to a session has the wrong name, shape or type, or is not finite."""


class NonFiniteError(EdgeLoopError):
    """Loss or gradient became NaN or infinite; the weights were left as they were."""


class DataError(EdgeLoopError):
    """A source or feature pipeline met data that it cannot use."""


class ConfigError(EdgeLoopError):
    """A loop.toml key is unknown, missing or out of range."""


class StateError(EdgeLoopError):
    """The state file is damaged, locked, full, or of another version."""


class DeltaError(EdgeLoopError):
    """A delta package is damaged or does not belong to this program or parent."""
