"""Programs in strips, or whose values wait in fewer bits, without a budget that asks for it."""

from __future__ import annotations

from edgeloop.ir import verify
from edgeloop.passes.keep_small import Kind, keep_small
from edgeloop.passes.schedule import schedule
from edgeloop.passes.strips import strips
from edgeloop.solver import Frame


def in_strips(monkeypatch, *, int8: bool, strip: int = 2048) -> None:
    """Let every program work in strips of so many bytes."""
    ordered = Frame.ordered

    def cut(frame: Frame, made):
        out = {}
        for name, g in ordered(frame, made).items():
            found, units = strips(g, strip=strip, int8=int8)
            out[name] = verify(schedule(found, scratch=frame.needs.scratch, units=units))
        return out

    monkeypatch.setattr(Frame, "ordered", cut)


def waiting(monkeypatch, kind: Kind) -> None:
    """Let every value that can wait for backward in fewer bits do so."""
    ordered = Frame.ordered

    def packed(frame: Frame, made):
        graphs = ordered(frame, made)
        return {n: verify(keep_small(g, kind=kind, limit=0, scratch=frame.needs.scratch))
                for n, g in graphs.items()}

    monkeypatch.setattr(Frame, "ordered", packed)
