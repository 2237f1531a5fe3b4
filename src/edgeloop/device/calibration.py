"""What an operation and a byte cost on this machine, in joules, from a meter that somebody read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from edgeloop.errors import ConfigError, DataError

# Moving a byte from memory takes some 10 times the energy of an f32 operation (Horowitz 2014:
# 1.3 to 2.6 nJ for 64 bits of DRAM, 0.9 to 4.6 pJ for an operation at 45 nm and caches between).
BYTE_PER_FLOP = 10.0
_METER, _SPLIT = 0.05, 0.25  # a plug-in meter; how wrong the split between both may be
_ALIKE = 1.1  # programs whose bytes an operation differ by less cannot be told apart


@dataclass(frozen=True, slots=True)
class Measured:
    """One reading: watts under load and idle, and what the program with that hash did meanwhile."""

    watts: float
    idle_watts: float
    flops_per_second: float
    bytes_per_second: float
    program: str

    @property
    def good(self) -> bool:
        """Whether a machine may have given it."""
        return (
            isinstance(self.program, str) and all(map(_from_0, (
                self.watts, self.idle_watts, self.flops_per_second, self.bytes_per_second)))
            and self.watts > self.idle_watts and self.flops_per_second > 0)

    @property
    def above(self) -> float:
        """Watts above idle."""
        return self.watts - self.idle_watts

    @property
    def error(self) -> float:
        """Half-width of :attr:`above`, in watts: both are wrong by a share of themselves."""
        return _METER * math.hypot(self.watts, self.idle_watts)


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
        Half-width as a share, for programs like the one that was measured, or that move as many
        bytes an operation as some of those that were or any number between.
    program
        Its hash.
    flop_uncertainty, byte_uncertainty
        Of each cost alone, where both were fitted; None: their ratio is assumed.
    others
        Further readings that they were fitted to.
    """

    joules_per_flop: float
    joules_per_byte: float
    watts: float
    idle_watts: float
    flops_per_second: float
    bytes_per_second: float
    uncertainty: float
    program: str
    flop_uncertainty: float | None = None
    byte_uncertainty: float | None = None
    others: tuple[Measured, ...] = ()

    @property
    def readings(self) -> tuple[Measured, ...]:
        """All readings."""
        own = Measured(self.watts, self.idle_watts, self.flops_per_second, self.bytes_per_second,
                       self.program)
        return (own, *self.others)

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
        read = Measured(watts, idle_watts, flops / seconds, nbytes / seconds, program)
        return cls(
            per_flop, BYTE_PER_FLOP * per_flop, watts, idle_watts, read.flops_per_second,
            read.bytes_per_second, math.hypot(read.error / read.above, _SPLIT), program)

    def joined(self, earlier: Calibration) -> Calibration:
        """Fit both costs to the readings of this one and of an earlier one.

        Least squares, each reading weighted by its error. That is the mean of what the pairs of
        readings give, weighted by their squared determinants (Jacobi 1841). The errors of the costs
        are those of the fit, and larger by as much as the readings contradict each other (Birge
        ratio).

        Raises
        ------
        ConfigError
            Programs that are too alike, or readings by which a cost would be negative.
        """
        found = (*self.readings, *earlier.readings)
        # Rows of the weighted equations f * flop + b * byte = p.
        rows = [(m.flops_per_second / m.error, m.bytes_per_second / m.error, m.above / m.error)
                for m in found]
        pairs = [(f * v - g * b, p * v - q * b, f * q - g * p)
                 for (f, b, p), (g, v, q) in combinations(rows, 2)]
        det = sum(d * d for d, _, _ in pairs)
        ratios = [m.bytes_per_second / m.flops_per_second for m in found]
        if max(ratios) <= _ALIKE * min(ratios) or det == 0.0:
            raise ConfigError(
                f"the programs move {min(ratios):.3g} to {max(ratios):.3g} bytes an operation: too "
                "alike to tell both costs apart; add a program that moves more or fewer, such as "
                "one compiled with `--batch 1`")
        flop = sum(d * x for d, x, _ in pairs) / det
        byte = sum(d * y for d, _, y in pairs) / det
        for name, cost in (("an operation", flop), ("a byte", byte)):
            if not cost > 0.0:
                raise ConfigError(
                    f"by these readings {name} would cost {cost:.3g} J; read the meter again, for "
                    "longer, or add a program that differs more")
        left = sum((f * flop + b * byte - p) ** 2 for f, b, p in rows)
        wide = math.sqrt(max(1.0, left / max(1, len(rows) - 2)) / det)

        def error(x: float, y: float) -> float:
            """Half-width of x * flop + y * byte."""
            return wide * math.hypot(*(b * x - f * y for f, b, _ in rows))

        return replace(
            self, joules_per_flop=flop, joules_per_byte=byte, others=found[1:],
            flop_uncertainty=error(1.0, 0.0) / flop, byte_uncertainty=error(0.0, 1.0) / byte,
            uncertainty=max(error(f, b) / (f * flop + b * byte) for f, b, _ in rows))

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
            others: Any = made.others
            made = replace(made, others=tuple(Measured(**m) for m in others))
            shares = [v for v in (made.flop_uncertainty, made.byte_uncertainty) if v is not None]
            good = made.joules_per_flop > 0 and all(map(
                _from_0, (made.joules_per_flop, made.joules_per_byte, made.uncertainty, *shares)))
            good = good and all(m.good for m in made.readings)
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


def _from_0(value: Any) -> bool:
    """Whether something is a finite number from 0 on."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
