"""What an operation and a byte cost on this machine, in joules, from a meter that somebody read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from edgeloop.errors import ConfigError, DataError

# Moving a byte from memory takes some 10 times the energy of an f32 operation (Horowitz 2014:
# 1.3 to 2.6 nJ for 64 bits of DRAM, 0.9 to 4.6 pJ for an operation at 45 nm and caches between).
BYTE_PER_FLOP = 10.0
_METER, _SPLIT = 0.05, 0.25  # a plug-in meter; how wrong the split between both may be


@dataclass(frozen=True, slots=True)
class Calibration:
    """Joules above idle for each operation and byte.

    Attributes
    ----------
    watts, idle_watts
        What the meter said under load and idle.
    flops_per_second, bytes_per_second
        What the program did meanwhile.
    uncertainty
        Half-width as a share, for programs like the one that was measured.
    program
        Its hash.
    """

    joules_per_flop: float
    joules_per_byte: float
    watts: float
    idle_watts: float
    flops_per_second: float
    bytes_per_second: float
    uncertainty: float
    program: str

    @classmethod
    def of(
        cls, *, watts: float, idle_watts: float, flops: int, nbytes: int, seconds: float,
        program: str,
    ) -> Calibration:
        """Derive it from one reading; what is above idle is shared at 10 operations a byte.

        Raises
        ------
        ConfigError
            Readings that no machine gives.
        """
        for name, value in (("watts", watts), ("idle-watts", idle_watts)):
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigError(f"--{name}: is {value}; give what the meter says, in watts")
        if watts <= idle_watts:
            raise ConfigError(
                f"--watts: is {watts:g}, not above --idle-watts ({idle_watts:g}); read the meter "
                "while the program runs, and again while nothing does")
        if flops <= 0 or nbytes < 0 or seconds <= 0.0:
            raise ConfigError("the program did no work: there is nothing to calibrate with")
        above = (watts - idle_watts) * seconds
        per_flop = above / (flops + BYTE_PER_FLOP * nbytes)
        # Both readings are wrong by a share of themselves; their difference by more of itself.
        reading = _METER * math.hypot(watts, idle_watts) / (watts - idle_watts)
        return cls(per_flop, BYTE_PER_FLOP * per_flop, watts, idle_watts, flops / seconds,
                   nbytes / seconds, math.hypot(reading, _SPLIT), program)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            It cannot be read, or holds other than finite numbers from 0 on.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            made = cls(**found)
            numbers = [getattr(made, f.name) for f in fields(cls) if f.name != "program"]
            good = isinstance(made.program, str) and made.joules_per_flop > 0 and all(
                type(v) in (int, float) and math.isfinite(v) and v >= 0 for v in numbers)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); write one with `edgeloop calibrate`"
            ) from error
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise DataError(
                f"{path}: not a calibration ({error}); write one with `edgeloop calibrate`"
            ) from error
        if not good:
            raise DataError(
                f"{path}: not a calibration (a number is missing, negative or infinite); write one "
                "with `edgeloop calibrate`")
        return made
