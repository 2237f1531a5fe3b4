"""calibrate: a model of the energy that training takes, from a meter that somebody reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.cli.exits import OK
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("calibrate")
    parser.add_argument("program", help="the compiled program (.elp) that the loop trains")
    parser.add_argument("--watts", type=float, help="what the meter says while it trains")
    parser.add_argument("--idle-watts", type=float, help="and while nothing runs")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to train (20)")
    parser.add_argument(
        "--add", action="store_true",
        help="fit both costs to this reading and to those in the file, of programs that move more "
        "or fewer bytes an operation")
    parser.add_argument("-o", "--output", default="calibration.json", help="where to write it")
    parser.set_defaults(command=calibrate)


def calibrate(args: argparse.Namespace, out: Output) -> int:
    """Train for a while, ask for the reading unless it was given, write the model."""
    from dataclasses import asdict

    from edgeloop.device import Calibration
    from edgeloop.program import Program
    from edgeloop.runtime.profile import Profiler
    from edgeloop.runtime.work import work

    if not 0.1 <= args.seconds <= 3600.0:
        msg = f"--seconds {args.seconds:g}: give between 0.1 and 3600"
        raise ConfigError(msg)
    if args.watts is None or args.idle_watts is None:
        msg = ("--watts and --idle-watts are both needed: run this beside a meter with any two "
               "numbers, read it meanwhile and afterwards, and run it with what it said")
        raise ConfigError(msg)
    earlier = Calibration.load(Path(args.output)) if args.add else None
    program = Program.load(args.program)
    profiler = Profiler(program)
    entry = "train" if "train" in program.entries else "accumulate"
    began = time.perf_counter()
    runs = profiler.profile(entry, seconds=args.seconds).runs
    seconds = time.perf_counter() - began
    each = work(program, entry, profiler.isa)
    made = Calibration.of(
        watts=args.watts, idle_watts=args.idle_watts, flops=runs * each.flops,
        nbytes=runs * each.bytes, seconds=seconds, program=program.hash,
    )
    if earlier is not None:
        made = made.joined(earlier)
    made.save(Path(args.output))
    out.result({"file": args.output, **asdict(made)})
    out.facts({
        "steps": f"{runs} in {seconds:.1f} s, {made.flops_per_second / 1e9:.3g} GFLOP/s, "
                 f"{made.bytes_per_second / 1e9:.3g} GB/s",
        "joules per operation": f"{made.joules_per_flop:.3g}" + _within(made.flop_uncertainty),
        "joules per byte": f"{made.joules_per_byte:.3g}" + (
            _within(made.byte_uncertainty) or " (taken as 10 operations)"),
        "readings": len(made.readings),
        "uncertainty": f"±{100 * made.uncertainty:.0f} %",
        "written": args.output,
    })
    return OK


def _within(share: float | None) -> str:
    return "" if share is None else f", ±{100 * share:.0f} %"
