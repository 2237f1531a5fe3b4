"""Minimum cuts of random networks against trying every one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeloop.passes.min_cut import Network


def cost(edges, above: set[int]) -> int:
    """What it costs that the vertices ``above`` lie with the sink."""
    return sum(c for a, b, c in edges if a not in above and b in above)


@pytest.mark.parametrize("seed", range(40))
def test_no_other_parting_is_cheaper(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 9))
    edges = [(int(a), int(b), int(rng.integers(0, 9))) for a, b in rng.integers(0, n, (3 * n, 2))
             if a != b]
    net = Network()
    for _ in range(n):
        net.vertex()
    for e in edges:
        net.edge(*e)
    found, above = net.cut(0, 1)
    inner = range(2, n)
    every = [{1, *chosen} for k in range(n - 1) for chosen in itertools.combinations(inner, k)]
    assert found == cost(edges, above) == min(cost(edges, a) for a in every)
    assert 1 in above
    assert 0 not in above
    # Nearest to the sink: no cheapest parting leaves fewer vertices there.
    assert len(above) == min(len(a) for a in every if cost(edges, a) == found)
