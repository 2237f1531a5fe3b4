"""Which instruction set and how many threads a session uses."""

from __future__ import annotations

import os

from edgeloop import _core
from edgeloop.errors import ConfigError

_BELOW = _core.below()


def choose_isas(compiled_for: str, asked: str | None = None) -> list[str]:
    """Return the instruction sets to try, in order, until the checker accepts one.

    ``asked`` (else the environment variable EDGELOOP_ISA) forces one. Otherwise it is the one
    that the program was compiled for, or the best one below it that this machine runs. For "auto"
    all of this machine's are tried, the best one first: the program may have been made where some
    of them were not known, so that it has no memory planned for their kernels.

    Raises
    ------
    ConfigError
        An unknown name, or one that this machine does not run.
    """
    here = _core.isas()
    forced = asked or os.environ.get("EDGELOOP_ISA") or None
    if forced is None:
        if compiled_for == "auto":
            return here[::-1]
        isa = compiled_for
        while isa not in here:
            isa = _BELOW.get(isa, "ref")
        return [isa]
    source = "isa" if asked else "EDGELOOP_ISA"
    if forced not in _BELOW:
        raise ConfigError(f"{source}={forced!r} is unknown; choose one of {', '.join(here)}")
    if forced not in here:
        raise ConfigError(
            f"{source}={forced!r}: this machine does not run it; choose one of {', '.join(here)}"
        )
    return [forced]
