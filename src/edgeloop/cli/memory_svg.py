"""plan --plot: the arena of an entry as a picture, steps to the right, bytes upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from edgeloop.program.lifetimes import lifetimes, peak
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    from edgeloop.program import Program
    from edgeloop.program.lifetimes import Life

COLOURS = {"saved": "#1b6ca8", "forward": "#7fb685", "backward": "#e08e45", "scratch": "#b8b8b8"}
SAID = {"saved": "kept for backward", "forward": "forward", "backward": "backward",
        "scratch": "scratch of one step"}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 1000, 620, 80, 46, 92, 20
LABELLED = 8


def picture(program: Program, entry: str) -> str:
    """Return an SVG document; raises ConfigError for an unknown entry."""
    lives = lifetimes(program, entry)
    plan = program.plan
    steps = max((x.last for x in lives), default=0) + 1
    arena = max((x.offset + x.nbytes for x in lives), default=1)
    wide, high = (WIDTH - LEFT - RIGHT) / steps, (HEIGHT - TOP - BOTTOM) / arena
    at, there = peak(lives)

    def box(x: Life) -> str:
        left, top = LEFT + x.first * wide, HEIGHT - BOTTOM - (x.offset + x.nbytes) * high
        width, height = max((x.last - x.first + 1) * wide, 1), max(x.nbytes * high, 0.6)
        said = f"{x.name}: {format_bytes(x.nbytes)}, steps {x.first} to {x.last}"
        return (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{COLOURS[x.kind]}" fill-opacity="0.75" stroke="#fff" stroke-width="0.5">'
            f"<title>{escape(said)}</title></rect>"
        )

    title = (
        f"arena of {entry}: {format_bytes(arena)}, fullest at step {at} of {steps}; beside it "
        f"params {format_bytes(plan.param_bytes)}, state {format_bytes(plan.state_bytes)}, io "
        f"{format_bytes(plan.io_bytes)}")
    column = LEFT + (at + 0.5) * wide
    right = at > steps / 2  # labels stand where there is more room
    anchor, x_label = ("end", column - 6) if right else ("start", column + 6)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        *(box(x) for x in sorted(lives, key=lambda x: x.kind == "scratch")),
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#333"/>',
        f'<path d="M{column:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#b00" stroke-dasharray="4 3"/>',
    ]
    for k in range(5):
        y = HEIGHT - BOTTOM - k / 4 * arena * high
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">'
                     f"{format_bytes(round(k / 4 * arena))}</text>")
    floor = float(HEIGHT)
    for x in sorted(there[:LABELLED], key=lambda x: x.offset):
        y = min(HEIGHT - BOTTOM - (x.offset + x.nbytes / 2) * high + 4, floor - 12)
        floor = y
        said = f"{escape(x.name)} {format_bytes(x.nbytes)}"
        at_ = f'x="{x_label:.1f}" y="{y:.1f}" font-size="10" text-anchor="{anchor}"'
        # Twice, the halo first: not every viewer knows paint-order.
        parts += [f'<text {at_} stroke="#fff" stroke-width="3">{said}</text>',
                  f"<text {at_}>{said}</text>"]
    for i, (kind, colour) in enumerate(COLOURS.items()):
        x0, y0 = LEFT + i * 190, HEIGHT - 34
        parts.append(f'<rect x="{x0}" y="{y0 - 10}" width="12" height="12" fill="{colour}"/>'
                     f'<text x="{x0 + 18}" y="{y0}">{SAID[kind]}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle" '
                 f'fill="#555">steps, 0 to {steps - 1}</text>')
    return "\n".join([*parts, "</svg>", ""])
