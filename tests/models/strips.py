"""Programs that work in strips without a budget that asks for it."""

from __future__ import annotations

from edgeloop.ir import verify
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
