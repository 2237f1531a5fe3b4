"""Exit codes: the one place that maps the tree of errors to numbers (docs/guide/cli.md)."""

from __future__ import annotations

from edgeloop import errors

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

CODES: dict[type[BaseException], int] = {
    errors.EdgeLoopError: FAILED,
    errors.ConfigError: USAGE,
    OSError: USAGE,
    errors.ModelError: 3,
    errors.CompileError: 3,
    errors.ProgramError: 3,
    errors.StateError: 4,
    errors.DataError: 5,
    errors.InputError: 5,
    errors.NonFiniteError: 5,
    errors.BudgetError: 6,
    errors.DeltaError: 7,
    errors.AdapterError: 7,
    errors.LinkError: 8,
}


def exit_code(error: BaseException) -> int:
    """Code of an error: that of its nearest class in the table."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), FAILED)
