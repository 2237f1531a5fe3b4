"""profile: where the time of an entry goes, and how far from the machine's limit it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.cli.exits import OK
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.runtime.profile import Profile, StepProfile


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("profile")
    parser.add_argument("program", help="the compiled program (.elp)")
    parser.add_argument("--entry", default="train", help="which entry to run (train)")
    parser.add_argument("--threads", type=int, help="workers; default: all of the program's")
    parser.add_argument("--isa", help="ref, neon, avx2 or avx512; default: the session's choice")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to run it (1)")
    parser.add_argument("--top", type=int, default=15, help="how many steps to list (15)")
    parser.add_argument("--trace", metavar="FILE", help="write a trace for ui.perfetto.dev")
    parser.set_defaults(command=profile)


def profile(args: argparse.Namespace, out: Output) -> int:
    """Measure, report, write the trace."""
    from edgeloop.program import Program
    from edgeloop.runtime.profile import Profiler

    if args.trace is not None and not Path(args.trace).absolute().parent.is_dir():
        msg = f"--trace {args.trace}: its folder does not exist; create it"
        raise ConfigError(msg)
    profiler = Profiler(Program.load(args.program), threads=args.threads, isa=args.isa)
    found = profiler.profile(args.entry, seconds=args.seconds)
    if args.trace is not None:
        from edgeloop.runtime.trace import trace

        Path(args.trace).write_text(json.dumps(trace(found)), encoding="ascii")
    out.result(found.to_dict() | ({} if args.trace is None else {"trace": args.trace}))
    _show(found, args, out)
    return OK


def _show(found: Profile, args: argparse.Namespace, out: Output) -> None:
    total = found.totals
    workers = f"{found.threads} thread{'s' * (found.threads > 1)}"
    out.line(
        f"{args.program}: {found.entry}, {found.isa}, {workers}: "
        f"{total['seconds'] * 1e3:.4g} ms in {total['steps']} steps (least of {found.runs} runs)"
    )
    for kind, rate in found.limits.operations.items():
        out.line(
            f"limit {kind}: {rate / 1e9:.4g} GFLOP/s ({found.limits.instructions[kind]}, {workers})"
        )
    small, large = found.limits.bandwidth[0], found.limits.bandwidth[-1]
    out.line(
        f"limit memory: {small[1] / 1e9:.4g} GB/s within {small[0] >> 10} KiB, "
        f"{large[1] / 1e9:.4g} GB/s within {large[0] >> 10} KiB"
    )
    out.line()
    columns = ["ms", "% of time", "MFLOP", "GFLOP/s", "MB read", "MB written", "GB/s",
               "% of limit", "bound"]
    out.table(
        ["operator", "steps", *columns],
        [[_name(row), str(row["steps"]), *_figures(row, total["seconds"])]
         for row in [*found.operators(), {"kernel": "total", "compute": "f32", **total}]],
    )
    out.line()
    top = sorted(found.steps, key=lambda s: -s.seconds)[: max(args.top, 0)]
    out.table(
        ["step", "layer", "operator", "operands", *columns],
        [[str(s.index), s.layer, s.kernel, _shapes(s), *_step(s, total["seconds"])] for s in top],
    )
    if args.trace is not None:
        out.line(f"{args.trace}: open it in https://ui.perfetto.dev")


def _name(row: dict[str, Any]) -> str:
    return f"{row['kernel']}" + ("" if row["compute"] == "f32" else f" ({row['compute']})")


def _shapes(step: StepProfile) -> str:
    return " ".join("-" if s is None else "x".join(map(str, s)) or "1" for s in step.shapes)


def _step(s: StepProfile, whole: float) -> list[str]:
    from edgeloop.runtime.profile import totals

    return _figures(totals([s]), whole)


def _figures(row: dict[str, Any], whole: float) -> list[str]:
    """Return the columns that operators and steps share; ``whole``: seconds of the entry."""
    seconds = row["seconds"] or 1e-9
    read, written = row["bytes_read"], row["bytes_written"]
    return [
        f"{row['seconds'] * 1e3:.3f}", f"{row['seconds'] / (whole or 1) * 100:.1f}",
        f"{row['flops'] / 1e6:.3f}", f"{row['flops'] / seconds / 1e9:.1f}",
        f"{read / 1e6:.3f}", f"{written / 1e6:.3f}", f"{(read + written) / seconds / 1e9:.1f}",
        f"{row['share_of_limit'] * 100:.0f}", row["bound"],
    ]
