"""What holds for any order of nodes: which run before which, and a lower bound on arena bytes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edgeloop.ir import Array
from edgeloop.passes.lifetimes import Memory


def precedence(m: Memory) -> list[set[int]]:
    """Return, for each node, the nodes that run before it in any correct order.

    Those are the makers of the cells it reads and, for an update, every other reader of the cell
    that it overwrites. Views are transparent: they have no entry of their own in any set.
    """
    maker = {c: k for k, a in enumerate(m.access) for c in a.writes}
    readers: dict[int, set[int]] = {}
    for k, a in enumerate(m.access):
        for c in a.reads:
            readers.setdefault(c, set()).add(k)
    before = []
    for k, a in enumerate(m.access):
        ps = {maker[c] for c in a.reads if c in maker}
        for _, old in a.pins:
            ps |= readers[old] - {k}
        before.append(ps)
    return before


def any_order_bound(m: Memory) -> int:
    """Return bytes that the arena needs in whatever order the nodes run.

    While a node runs, three kinds of cells are live at once: what it reads, what it writes (less
    an output that may take an input's place), and what an ancestor makes for a descendant. Cells
    that might end up in the memory of a graph output are left out.
    """
    before = precedence(m)
    after: list[set[int]] = [set() for _ in before]
    for k, ps in enumerate(before):
        for p in ps:
            after[p].add(k)
    ancestors, descendants = _closure(before), _closure(after)
    elsewhere = maybe_output(m)
    sizes = [
        0 if region != "arena" or c in elsewhere else m.sizes[c]
        for c, region in enumerate(m.regions)
    ]
    needed = [0] * len(sizes)  # per cell: the nodes that run before one of its readers
    maker = [-1] * len(sizes)
    for k, a in enumerate(m.access):
        for c in a.reads:
            needed[c] |= ancestors[k]
        for c in a.writes:
            maker[c] = k
    # Per cell: the nodes that run after its maker and before a reader, whatever the order.
    spanned = [descendants[p] & needed[c] if p >= 0 else 0 for c, p in enumerate(maker)]
    totals = np.zeros(len(before), np.int64)
    for mask, size in zip(spanned, sizes, strict=True):
        if mask and size:
            totals += size * _bits(mask, len(before))
    bound = 0
    for k, a in enumerate(m.access):
        fresh = set(a.writes) - {new for new, _ in a.pins}
        if any(not spanned[c] >> k & 1 for c in a.takes):
            fresh.discard(a.writes[0])
        here = {c for c in a.reads if not spanned[c] >> k & 1} | fresh
        bound = max(bound, int(totals[k]) + sum(sizes[c] for c in here) + a.scratch)
    return bound


def _closure(before: list[set[int]]) -> list[int]:
    """Bit masks of all ancestors, by repeated relaxation in a topological order."""
    masks: list[int | None] = [None] * len(before)
    for start in range(len(before)):
        stack = [start]
        while stack:
            k = stack[-1]
            missing = [p for p in before[k] if masks[p] is None]
            if missing:
                stack += missing
                continue
            stack.pop()
            mask = 0
            for p in before[k]:
                mask |= (masks[p] or 0) | 1 << p
            masks[k] = mask
    return [mask or 0 for mask in masks]


def _bits(mask: int, count: int) -> Array:
    raw = np.frombuffer(mask.to_bytes(-(-count // 8), "little"), np.uint8)
    return np.unpackbits(raw, count=count, bitorder="little").astype(np.int64)


def maybe_output(m: Memory) -> set[int]:
    """Cells that may be handed down, operator by operator, to a graph output."""
    out = set(m.kept)
    grown = True
    while grown:
        grown = False
        for a in m.access:
            if a.writes and a.writes[0] in out:
                new = set(a.takes) - out
                out |= new
                grown = grown or bool(new)
            for fresh, old in a.pins:
                if fresh in out and old not in out:
                    out.add(old)
                    grown = True
    return out


def node_bound(m: Memory, without: Collection[int] = ()) -> int:
    """Return bytes without which some node cannot run, in any order, whatever is recomputed.

    ``without``: nodes that do not count.

    While a node runs, its operands and its scratch are there: that holds for any plan of these
    nodes. Cells that might end up in the memory of a graph output are left out.
    """
    elsewhere = maybe_output(m)
    bound = 0
    for k, a in enumerate(m.access):
        if k in without:
            continue
        fresh = set(a.writes) - {new for new, _ in a.pins}
        if a.takes:
            fresh.discard(a.writes[0])
        here = (set(a.reads) | fresh) - elsewhere
        bound = max(bound, a.scratch + sum(m.sizes[c] for c in here if m.regions[c] == "arena"))
    return bound
