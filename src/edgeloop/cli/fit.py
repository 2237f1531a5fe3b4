"""fit: what fits a device, as a table and a picture. The compiler is imported inside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from edgeloop.cli.exits import OK
from edgeloop.cli.model import compiler, shapes_of
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output

_COLUMNS = ["", "train", "base", "RAM", "program", "work of a step", "learns", "to fit"]


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("fit")
    parser.add_argument("model", help="the ONNX model")
    parser.add_argument("--ram", required=True, metavar="SIZE", help='such as "256 KiB"')
    parser.add_argument("--flash", metavar="SIZE", help="most bytes of the program file")
    parser.add_argument("--loss", default="cross_entropy")
    parser.add_argument("--optimizer", default="sgd:lr=0.01", metavar="WHAT")
    parser.add_argument("--train", metavar="WHAT", help="only this method (default: common ones)")
    parser.add_argument("--batch", type=int, default=8, help="rows of a training step (8)")
    parser.add_argument("--shapes", metavar="NAME=N,..", help="other dynamic dimensions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default="auto")
    parser.add_argument("--target", default="host")
    parser.add_argument(
        "--slowdown", type=float, default=2.0, help="most work of a step, as a factor (2)")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw RAM x work of all ways")
    parser.set_defaults(command=fit)


def fit(args: argparse.Namespace, out: Output) -> int:
    """Compile the ways that fit, show the front first."""
    from edgeloop.options import parse_optimizer, parse_train

    found = compiler("fit").fit(
        args.model, ram=args.ram, flash=args.flash, loss=args.loss,
        optimizer=parse_optimizer(args.optimizer),
        train=None if args.train is None else {args.train: parse_train(args.train)},
        batch=args.batch, shapes=shapes_of(args.shapes), threads=args.threads, isa=args.isa,
        target=args.target, slowdown=args.slowdown,
    )
    ways = found["ways"]
    out.result({"model": args.model, **found})
    out.table(_COLUMNS, [_row(w) for w in sorted(ways, key=lambda w: not w["best"])])
    out.line("* on the front: no other way is at least as good in RAM, work and parameters")
    for name, why in found["refused"].items():
        out.line(f"note: {name}: {why}")
    if args.plot:
        Path(args.plot).write_text(picture(ways, found["ram"]), encoding="utf-8")
        out.line(f"{args.plot}: RAM x work; the size of a point is what learns")
    return OK


def _row(w: dict[str, Any]) -> list[Any]:
    return ["*" if w["best"] else "", w["train"], w["storage"], format_bytes(w["ram_bytes"]),
            format_bytes(w["flash_bytes"]), f"{w['step_flops'] / 1e6:.4g} MFLOP", w["trainable"],
            w["how"]]


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 860, 480, 90, 60, 40


def picture(ways: list[dict[str, Any]], ram: int) -> str:
    """Return an SVG: RAM on the x axis, work on the y axis, both logarithmic."""
    xs, ys = [w["ram_bytes"] for w in ways] + [ram], [max(w["step_flops"], 1) for w in ways]
    x0, x1 = math.log2(min(xs)) - 0.3, math.log2(max(xs)) + 0.3
    y0, y1 = math.log2(min(ys)) - 0.3, math.log2(max(ys)) + 0.3
    most = max(1, *(w["trainable"] for w in ways))

    def x(value: float) -> float:
        return LEFT + (math.log2(value) - x0) / (x1 - x0) * (WIDTH - LEFT - 20)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log2(value) - y0) / (y1 - y0) * (HEIGHT - BOTTOM - TOP)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"',
        f'viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 20}" fill="none" stroke="#333"/>',
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 16}" text-anchor="middle">RAM</text>',
        f'<text x="{LEFT}" y="{TOP - 14}" text-anchor="middle">work of a step</text>',
        f'<path d="M{x(ram):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#b00" stroke-dasharray="4 3"/>',
        f'<text x="{x(ram) - 4:.1f}" y="{TOP + 12}" text-anchor="end" fill="#b00">budget</text>',
    ]
    parts += [
        f'<text x="{x(2.0**k):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" '
        f'fill="#555">{format_bytes(2**k)}</text>'
        for k in range(math.ceil(x0), math.floor(x1) + 1)
    ]
    parts += [
        f'<text x="{LEFT - 8}" y="{y(2.0**k) + 4:.1f}" text-anchor="end" '
        f'fill="#555">{2**k / 1e6:.3g} MFLOP</text>'
        for k in range(math.ceil(y0), math.floor(y1) + 1)
    ]
    front = sorted((w for w in ways if w["best"]), key=lambda w: int(w["ram_bytes"]))
    for w in sorted(ways, key=lambda w: bool(w["best"])):
        radius = 4 + 10 * math.sqrt(w["trainable"] / most)
        fill = "#1b6ca8" if w["best"] else "#bbb"
        said = (f"{w['train']}, {w['storage']}: {format_bytes(w['ram_bytes'])}, "
                f"{w['step_flops'] / 1e6:.4g} MFLOP, {w['trainable']:,} parameters")
        parts.append(f'<circle cx="{x(w["ram_bytes"]):.1f}" cy="{y(max(w["step_flops"], 1)):.1f}" '
                     f'r="{radius:.1f}" fill="{fill}" fill-opacity="0.6">'
                     f"<title>{escape(said)}</title></circle>")
    for i, w in enumerate(front):
        parts.append(f'<text x="{x(w["ram_bytes"]) + 10:.1f}" '
                     f'y="{y(max(w["step_flops"], 1)) + (14 if i % 2 else -8):.1f}" '
                     f'font-size="10">{escape(w["train"])}</text>')
    return "\n".join([*parts, "</svg>", ""])
