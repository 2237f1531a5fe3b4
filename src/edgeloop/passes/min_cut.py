"""The cheapest set of edges whose removal separates a source from a sink (Dinic 1970)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

INFINITE = 1 << 200


@dataclass(slots=True)
class Network:
    """Directed edges with integer capacities between vertices 0, 1, .."""

    to: list[int] = field(default_factory=list)
    room: list[int] = field(default_factory=list)  # edge k ^ 1 is the reverse of edge k
    edges: list[list[int]] = field(default_factory=list)

    def vertex(self) -> int:
        """Add a vertex and return its number."""
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, a: int, b: int, capacity: int) -> None:
        """Add an edge from a to b."""
        for x, y, c in ((a, b, capacity), (b, a, 0)):
            self.edges[x].append(len(self.to))
            self.to.append(y)
            self.room.append(c)

    def cut(self, source: int, sink: int) -> tuple[int, set[int]]:
        """Saturate the network; return the cost of the cut and the vertices on the sink's side.

        Of several cheapest cuts it is the one nearest to the sink. The network is used up.
        """
        total = 0
        while total < INFINITE:
            level = self._levels(source)
            if sink not in level:
                break
            start = [0] * len(self.edges)
            while (pushed := self._push(source, sink, level, start)) > 0:
                total += pushed
        return total, self._reaching(sink)

    def _levels(self, source: int) -> dict[int, int]:
        level, queue = {source: 0}, deque([source])
        while queue:
            v = queue.popleft()
            for e in self.edges[v]:
                if self.room[e] and self.to[e] not in level:
                    level[self.to[e]] = level[v] + 1
                    queue.append(self.to[e])
        return level

    def _push(self, source: int, sink: int, level: dict[int, int], start: list[int]) -> int:
        """Send what fits along one shortest path; 0 when there is none left."""
        path: list[int] = []
        v = source
        while v != sink:
            while start[v] < len(self.edges[v]):
                e = self.edges[v][start[v]]
                if self.room[e] and level.get(self.to[e], -1) == level[v] + 1:
                    break
                start[v] += 1
            if start[v] < len(self.edges[v]):
                path.append(self.edges[v][start[v]])
                v = self.to[path[-1]]
            elif path:
                v = self.to[path.pop() ^ 1]
                start[v] += 1
            else:
                return 0
        amount = min(self.room[e] for e in path)
        for e in path:
            self.room[e] -= amount
            self.room[e ^ 1] += amount
        return amount

    def _reaching(self, sink: int) -> set[int]:
        found, queue = {sink}, deque([sink])
        while queue:
            v = queue.popleft()
            for e in self.edges[v]:
                if self.room[e ^ 1] and self.to[e] not in found:
                    found.add(self.to[e])
                    queue.append(self.to[e])
        return found
