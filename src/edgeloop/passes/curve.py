"""curve: live bytes of an order, and what they become when one node moves, counted where it moves.

Between its old and its new place, and nowhere else, other values are alive than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from edgeloop.passes.bounds import maybe_output
from edgeloop.passes.lifetimes import Memory, live_bytes

Cost = tuple[int, int]


def cost_of(m: Memory, order: Sequence[int]) -> Cost:
    """Peak first; then the area under the curve, so that a search sees progress."""
    live = live_bytes(m, order)
    return max(live, default=0), sum(live)


@dataclass(frozen=True, slots=True)
class _Move:
    """A move that was counted: the steps from ``low`` on as they would be."""

    low: int
    inside: list[int]
    last: dict[int, int]
    live: list[int]


class Curve:
    """The bytes live at each step of an order of nodes.

    Attributes
    ----------
    order, place
        Node at each step, and step of each node.
    cost
        What `cost_of` says of the order.
    """

    def __init__(self, m: Memory, order: Sequence[int]) -> None:
        self.m = m
        self._odd = maybe_output(m)  # cells that may share the memory of a graph output
        arena = [region == "arena" for region in m.regions]
        self._touch = [tuple(dict.fromkeys(c for c in (*a.writes, *a.reads) if arena[c]))
                       for a in m.access]
        self._strange = [not self._odd.isdisjoint(touch) for touch in self._touch]
        self._begin(order)

    def _begin(self, order: Sequence[int]) -> None:
        """Count all of an order."""
        m = self.m
        self.order = list(order)
        self._last = [-1] * len(m.sizes)
        for t, k in enumerate(self.order):
            for c in self._touch[k]:
                self._last[c] = t
        self._taken: dict[int, int] = {}  # of odd cells: what they are written over
        for t, k in enumerate(self.order):
            if self._strange[k]:
                self._taken |= self._takes(k, t, self._last)
        # What ends up in a graph output is not in the arena.
        self._sizes = list(m.sizes)
        for c in m.kept:
            while c >= 0:
                self._sizes[c] = 0
                c = self._taken.get(c, -1)  # noqa: PLW2901  along the chain
        sizes = self._sizes
        # Per node: bytes that it makes; those that it needs beside what is alive, unless what it
        # makes is written over something that dies: how much, and over what.
        self._makes = [sum(sizes[c] for c, _, _ in a.made) for a in m.access]
        self._needs = [a.scratch + sum(sizes[c] for c, _, old in a.made if old < 0)
                       for a in m.access]
        self._over = [[(sizes[c], takes) for c, takes, old in a.made if takes and old < 0]
                      for a in m.access]
        self._live = self._count(self.order, 0, 0, self._last)
        self._sum_up()

    def _sum_up(self) -> None:
        live = self._live
        self.place = {k: t for t, k in enumerate(self.order)}
        # Per step: bytes of all before it, the peak before it, and the peak from it on.
        self._area = [0, *accumulate(live)]
        self._until = [0, *accumulate(live, max)]
        self._after = [*[*accumulate(live[::-1], max)][::-1], 0]
        self.cost = self._until[-1], self._area[-1]

    def _takes(self, k: int, t: int, last: Sequence[int] | dict[int, int]) -> dict[int, int]:
        """Return what each cell that node k makes at step t is written over; -1: nothing."""
        return {c: next((r for r in takes if last[r] == t), old)
                for c, takes, old in self.m.access[k].made}

    def _here(self, k: int, t: int, last: Sequence[int] | dict[int, int]) -> int:
        """Bytes that node k needs at step t beside what is alive already."""
        here = self._needs[k]
        for size, takes in self._over[k]:
            for r in takes:
                if last[r] == t:
                    here -= size
                    break
        return here

    def _count(
        self, nodes: Sequence[int], first: int, alive: int, last: Sequence[int] | dict[int, int]
    ) -> list[int]:
        """Return the bytes live at steps from ``first`` on, ``alive`` of them from before."""
        live, sizes = [], self._sizes
        for t, n in enumerate(nodes, first):
            live.append(alive + self._here(n, t, last))
            alive += self._makes[n]
            for c in self._touch[n]:
                if last[c] == t:
                    alive -= sizes[c]
        return live

    def moved(self, k: int, to: int) -> Cost:
        """Return the cost when node k stands at step ``to`` of the others' order."""
        found = self._tried(k, to)
        if found is None:
            return cost_of(self.m, self._with(k, to))
        end = found.low + len(found.live)
        return (max(self._until[found.low], *found.live, self._after[end]),
                self.cost[1] - self._area[end] + self._area[found.low] + sum(found.live))

    def _tried(self, k: int, to: int) -> _Move | None:
        """Count a move; None where other memory than before would be a graph output's."""
        now = self.place[k]
        low, high = min(now, to), max(now, to)
        inside = self.order[low : high + 1]
        inside.insert(to - low, inside.pop(now - low))
        last = {c: t for t, n in enumerate(inside, low) for c in self._touch[n]}
        for c in last:
            if self._last[c] > high:
                last[c] = self._last[c]
        for t, n in enumerate(inside, low):
            if self._strange[n] and any(
                    self._taken[c] != r for c, r in self._takes(n, t, last).items()):
                return None
        alive = self._live[low] - self._here(self.order[low], low, self._last)
        return _Move(low, inside, last, self._count(inside, low, alive, last))

    def _with(self, k: int, to: int) -> list[int]:
        order = [n for n in self.order if n != k]
        order.insert(to, k)
        return order

    def move(self, k: int, to: int) -> None:
        """Let node k stand at step ``to`` of the others' order."""
        found = self._tried(k, to)
        if found is None:
            self._begin(self._with(k, to))
            return
        end = found.low + len(found.live)
        self.order[found.low : end] = found.inside
        self._live[found.low : end] = found.live
        for c, t in found.last.items():
            self._last[c] = t
        self._sum_up()
