"""plan --advise: how far down to train, as a table. The compiler is imported inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeloop.cli.exits import OK
from edgeloop.cli.model import compiler, shapes_of
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse

    from edgeloop.cli.output import Output

_COLUMNS = ["LoRA on the last", "from", "learns", "step", "work", "RAM", "kept a sample",
            "later steps", "faster"]


def advice(args: argparse.Namespace, out: Output) -> int:
    """Compile and run the choices of a model, and show them."""
    found = compiler("advise").advise(
        args.file, batch=args.batch, shapes=shapes_of(args.shapes), rank=args.rank,
        threads=args.threads,
    )
    out.result({"file": args.file, **found})
    every = found["choices"]
    out.table(_COLUMNS, [_row(c, found["blocks"]) for c in every if "error" not in c])
    how = {c["timing"] for c in every if "timing" in c}
    said = {
        "measured": "least of three runs on this machine",
        "estimated": f"where it says ~, operations at {found['rate'] / 1e9:.1f} GFLOP/s, the rate "
                     "of the last step that ran",
    }
    out.line(f"steps of {found['batch']} samples, LoRA(rank={found['rank']}), SGD; times: "
             + "; ".join(said[h] for h in sorted(how, reverse=True)))
    out.line("later steps: from features that were computed once (compile --cut), whose bytes are "
             "not part of RAM")
    for c in every:
        reason = c.get("error") or c.get("no_cut")
        if reason:
            out.line(f"note: last {c['blocks']}: {reason}")
    return OK


def _row(c: dict[str, Any], blocks: int) -> list[Any]:
    cut, about = c["cut"], "" if c["timing"] == "measured" else "~"
    later = ["-", "-", "-"] if cut is None else [
        format_bytes(cut["sample_bytes"]), f"{about}{_ms(cut['step_seconds'])}",
        _times(c["step_seconds"] / cut["step_seconds"]),
    ]
    return [f"{c['blocks']} of {blocks}", c["lowest"], c["trainable"],
            f"{about}{_ms(c['step_seconds'])}", _work(c["step_flops"]),
            format_bytes(c["ram_bytes"]), *later]


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.2f}x"


def _work(flops: int) -> str:
    return f"{flops / 1e9:.1f} GFLOP" if flops >= 1e9 else f"{flops / 1e6:.3g} MFLOP"
