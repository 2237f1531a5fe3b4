"""The logic of combinations: Kleene's three values."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.errors import ConfigError
from edgeloop.loop.triggers import AllOf, AnyOf, Charging, Facts, Not, Samples, condition

VALUES = (True, False, None)


class Fixed(Charging):
    """Holds as told."""

    def __init__(self, held):
        self.held = held

    def holds(self):
        return self.held


trees = st.recursive(
    st.sampled_from(VALUES).map(Fixed),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: AllOf(*parts)),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: AnyOf(*parts)),
        inner.map(Not),
    ),
    max_leaves=12,
)


@given(trees, trees)
def test_de_morgan(a, b):
    assert (~(a & b)).holds() is (~a | ~b).holds()
    assert (~(a | b)).holds() is (~a & ~b).holds()
    assert (~~a).holds() is a.holds()


@given(trees, trees, trees)
def test_distribution(a, b, c):
    assert (a & (b | c)).holds() is ((a & b) | (a & c)).holds()


@pytest.mark.parametrize(("a", "b"), list(itertools.product(VALUES, VALUES)))
def test_tables(a, b):
    """Minimum, maximum and mirror over false < unknown < true."""
    rank = {False: -1, None: 0, True: 1}
    assert rank[(Fixed(a) & Fixed(b)).holds()] == min(rank[a], rank[b])
    assert rank[(Fixed(a) | Fixed(b)).holds()] == max(rank[a], rank[b])
    assert rank[(~Fixed(a)).holds()] == -rank[a]


def test_every_part_sees_every_item():
    both = condition({"any": [{"samples": 1}, {"loss": {"above": 0.5, "window": 2}}]}, "t")
    for _ in range(2):
        both.update(Facts(since=5, error=1.0))
    assert [part.holds() for part in both.parts] == [True, True]
    assert both.needs == {"error"}


def test_a_group_has_parts():
    with pytest.raises(ConfigError, match="all: has no conditions"):
        AllOf()


def test_round_trip_of_a_tree():
    tree = (Samples(3) & ~Charging()) | Samples(9)
    again = condition(tree.describe(), "t")
    assert again.describe() == tree.describe()
    assert eval(repr(tree), {"AnyOf": AnyOf, "AllOf": AllOf, "Not": Not, "Samples": Samples,
                             "Charging": Charging}).describe() == tree.describe()
