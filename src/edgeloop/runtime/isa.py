"""Which instruction set and how many threads a session uses."""

from __future__ import annotations

import os

from edgeloop import _core
from edgeloop.errors import ConfigError

NAMES = ("ref", "neon", "avx2", "avx512")


def choose_isa(compiled_for: str, asked: str | None = None) -> str:
    """Return the instruction set to run.

    ``asked`` (else the environment variable EDGELOOP_ISA) forces one. Otherwise it is the one
    that the program was compiled for, if this machine runs it, and for "auto" the best one here.

    Raises
    ------
    ConfigError
        An unknown name, or one that this machine does not run.
    """
    here = _core.isas()
    forced = asked or os.environ.get("EDGELOOP_ISA") or None
    if forced is None:
        if compiled_for in here:
            return compiled_for
        return here[-1] if compiled_for == "auto" else "ref"
    source = "isa" if asked else "EDGELOOP_ISA"
    if forced not in NAMES:
        raise ConfigError(f"{source}={forced!r} is unknown; choose one of {', '.join(here)}")
    if forced not in here:
        raise ConfigError(
            f"{source}={forced!r}: this machine does not run it; choose one of {', '.join(here)}"
        )
    return forced
