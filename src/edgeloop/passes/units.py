"""contracted: the memory of a graph in which runs of nodes count as one node each."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.passes.lifetimes import Access, Memory, live_bytes


def contracted(m: Memory, runs: Sequence[Sequence[int]]) -> Memory:
    """Return the memory of a graph whose nodes are runs of another one's, in their given orders.

    A run reads what others made and writes what others read; the most bytes of all else that is
    live inside it are its scratch. A run of one node stays as it is.
    """
    run_of = {k: p for p, run in enumerate(runs) for k in run}
    maker = {c: run_of[k] for k, a in enumerate(m.access) for c in a.writes}
    outside = set(m.kept)  # cells that another run than their maker's reads
    for k, a in enumerate(m.access):
        outside.update(c for c in a.reads if maker.get(c, run_of.get(k)) != run_of.get(k))
    out = Memory(m.cell, m.sizes, m.regions, m.kept)
    for run in runs:
        out.access.append(m.access[run[0]] if len(run) == 1 else _joined(m, run, outside))
    return out


def _joined(m: Memory, run: Sequence[int], outside: set[int]) -> Access:
    parts = [m.access[k] for k in run]
    made = {c for a in parts for c in a.writes}
    reads = dict.fromkeys(c for a in parts for c in a.reads if c not in made)
    writes = [c for a in parts for c in a.writes if c in outside or m.regions[c] != "arena"]
    pins = [(new, old) for a in parts for new, old in a.pins if old not in made]
    inside = Memory(m.cell, m.sizes, m.regions, {c for c in writes if m.regions[c] == "arena"})
    for a in parts:
        inside.access.append(inside.accessed(
            [c for c in a.reads if c in made], a.writes, [c for c in a.takes if c in made],
            [(new, old) for new, old in a.pins if old in made], a.scratch))
    return m.accessed(tuple(reads), writes, (), pins, max(live_bytes(inside)))
