"""Costs of an operation and a byte, fitted to readings of programs that differ in their ratio."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.device import Calibration
from edgeloop.errors import ConfigError, DataError

FLOP, BYTE, IDLE = 3e-10, 1e-9, 4.0  # joules, joules, watts


def reading(flops, nbytes, *, seconds=10.0, wrong=1.0, flop=FLOP, byte=BYTE, idle=IDLE):
    """Reading of a program that does so much a second on a machine with these costs."""
    above = flop * flops + byte * nbytes
    return Calibration.of(
        watts=idle + wrong * above, idle_watts=idle, flops=int(flops * seconds),
        nbytes=int(nbytes * seconds), seconds=seconds, program=f"{flops:g}/{nbytes:g}")


DENSE, SPARSE = (8e9, 0.5e9), (1e9, 1.5e9)  # operations and bytes a second


def test_two_programs_give_both_costs():
    made = reading(*SPARSE).joined(reading(*DENSE))
    assert made.joules_per_flop == pytest.approx(FLOP, rel=1e-9)
    assert made.joules_per_byte == pytest.approx(BYTE, rel=1e-9)
    assert (made.program, [m.program for m in made.others]) == ("1e+09/1.5e+09", ["8e+09/5e+08"])


def test_one_program_gives_only_their_sum():
    """The control of the one above: one equation, so the split is the one that is assumed."""
    one = reading(*SPARSE)
    assert one.joules_per_flop * 1e9 + one.joules_per_byte * 1.5e9 == pytest.approx(
        FLOP * 1e9 + BYTE * 1.5e9)
    assert one.joules_per_byte == pytest.approx(10.0 * one.joules_per_flop)
    assert abs(one.joules_per_byte / BYTE - 1.0) > 0.05
    assert (one.flop_uncertainty, one.byte_uncertainty, one.others) == (None, None, ())


def test_each_reading_counts_whichever_order_they_came_in():
    made = [reading(*SPARSE, wrong=1.02), reading(*DENSE), reading(4e9, 1e9, wrong=0.99)]
    one = made[0].joined(made[1]).joined(made[2])
    other = made[2].joined(made[0].joined(made[1]))
    assert len(one.readings) == len(other.readings) == 3
    assert one.joules_per_flop == pytest.approx(other.joules_per_flop, rel=1e-9)
    assert one.joules_per_byte == pytest.approx(other.joules_per_byte, rel=1e-9)
    assert one.joules_per_flop == pytest.approx(FLOP, rel=0.05)
    assert one.joules_per_byte == pytest.approx(BYTE, rel=0.05)


def test_uncertainty_is_that_of_the_readings_and_more_where_programs_are_alike():
    apart = reading(*DENSE).joined(reading(*SPARSE))
    alike = reading(*DENSE).joined(reading(8e9, 0.8e9))
    for made in (apart, alike):
        # Two readings are met exactly: a program that was measured is as sure as its reading.
        shares = [0.05 * math.hypot(m.watts, IDLE) / (m.watts - IDLE) for m in made.readings]
        assert made.uncertainty == pytest.approx(max(shares))
        assert made.flop_uncertainty > 0.0
        assert made.byte_uncertainty > 0.0
    assert alike.byte_uncertainty > 2.0 * apart.byte_uncertainty


def test_the_uncertainty_of_the_costs_is_how_they_scatter():
    """Against costs that readings with small errors of their meter would give."""
    made = reading(*DENSE).joined(reading(*SPARSE))
    squares = [0.0, 0.0]
    for i in range(2):  # one reading at a time is wrong by its own half-width
        rates = [DENSE, SPARSE]
        above = FLOP * rates[i][0] + BYTE * rates[i][1]
        off = 0.05 * math.hypot(IDLE + above, IDLE) / above
        moved = [reading(*r, wrong=1.0 + off * 0.01 * (j == i)) for j, r in enumerate(rates)]
        both = moved[0].joined(moved[1])
        flops, nbytes = both.joules_per_flop / FLOP - 1.0, both.joules_per_byte / BYTE - 1.0
        squares = [squares[0] + (100 * flops) ** 2, squares[1] + (100 * nbytes) ** 2]
    assert made.flop_uncertainty == pytest.approx(math.sqrt(squares[0]), rel=1e-4)
    assert made.byte_uncertainty == pytest.approx(math.sqrt(squares[1]), rel=1e-4)


def test_readings_that_contradict_each_other_widen_the_uncertainty():
    agree = reading(*DENSE).joined(reading(*SPARSE)).joined(reading(4e9, 1e9))
    contradict = reading(*DENSE).joined(reading(*SPARSE)).joined(reading(4e9, 1e9, wrong=2.0))
    assert contradict.uncertainty > 1.5 * agree.uncertainty
    assert contradict.byte_uncertainty > 1.5 * agree.byte_uncertainty


@pytest.mark.parametrize("other", [SPARSE, (2e9, 3e9), (1e9, 1.55e9)])
def test_programs_of_equal_ratio_are_one_error(other):
    with pytest.raises(ConfigError, match=r"bytes an operation: too alike .* `--batch 1`"):
        reading(*SPARSE).joined(reading(*other))


def test_programs_that_move_nothing_are_alike():
    with pytest.raises(ConfigError, match="too alike"):
        reading(1e9, 0).joined(reading(2e9, 0))


def test_watts_beyond_what_can_be_told_apart_are_one_error():
    with pytest.raises(ConfigError, match="to tell both costs apart"):
        reading(*DENSE, wrong=1e200).joined(reading(*SPARSE, wrong=1e200))


def test_readings_that_would_make_a_cost_negative_are_one_error():
    with pytest.raises(ConfigError, match=r"a byte would cost -.* read the meter again"):
        reading(*DENSE).joined(reading(*SPARSE, byte=0.0, flop=FLOP / 4))
    with pytest.raises(ConfigError, match=r"an operation would cost -.* read the meter again"):
        reading(*DENSE, flop=0.0, byte=BYTE / 4).joined(reading(*SPARSE))


def test_a_file_holds_the_readings_and_takes_more(tmp_path):
    path = tmp_path / "c.json"
    made = reading(*DENSE).joined(reading(*SPARSE))
    made.save(path)
    assert Calibration.load(path) == made
    more = reading(4e9, 1e9).joined(Calibration.load(path))
    more.save(path)
    assert Calibration.load(path) == more
    assert [m.program for m in more.readings] == ["4e+09/1e+09", "8e+09/5e+08", "1e+09/1.5e+09"]


def test_a_file_without_further_readings_is_read_and_takes_more(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({
        "joules_per_flop": 1e-10, "joules_per_byte": 1e-9, "watts": 6.0, "idle_watts": 4.0,
        "flops_per_second": 5e9, "bytes_per_second": 5e8, "uncertainty": 0.3, "program": "p"}))
    old = Calibration.load(path)
    assert old.others == ()
    both = reading(*SPARSE).joined(old)
    assert both.joules_per_byte == pytest.approx(BYTE)
    assert [m.program for m in both.readings] == ["1e+09/1.5e+09", "p"]


@pytest.mark.parametrize("others", [
    7, "p", [7], [{}], [[1, 2]], [{"watts": 1}], None,
    [{"watts": -1.0, "idle_watts": 0.0, "flops_per_second": 1.0, "bytes_per_second": 1.0,
      "program": "p"}],
    [{"watts": 1.0, "idle_watts": 0.0, "flops_per_second": 0.0, "bytes_per_second": 1.0,
      "program": "p"}],
    [{"watts": 1.0, "idle_watts": 1.0, "flops_per_second": 1.0, "bytes_per_second": 1.0,
      "program": "p"}],
    [{"watts": 1.0, "idle_watts": 0.0, "flops_per_second": 1.0, "bytes_per_second": 1.0,
      "program": 7}],
])
def test_damaged_readings_are_one_error(others, tmp_path):
    path = tmp_path / "c.json"
    reading(*DENSE).joined(reading(*SPARSE)).save(path)
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"others": others}))
    with pytest.raises(DataError, match="calibrate"):
        Calibration.load(path)


@pytest.mark.parametrize("key", ["flop_uncertainty", "byte_uncertainty"])
@pytest.mark.parametrize("value", [-1.0, "1", math.inf])
def test_a_damaged_uncertainty_is_one_error(key, value, tmp_path):
    path = tmp_path / "c.json"
    reading(*DENSE).joined(reading(*SPARSE)).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match="calibrate"):
        Calibration.load(path)


def loads(low, high):
    """Watts above idle, and the share of operations in them."""
    return st.tuples(st.floats(0.5, 20.0), st.floats(low, high))


@given(flop=st.floats(-12.0, -8.0).map(lambda e: 10.0**e), ratio=st.floats(0.5, 50.0),
       idle=st.floats(0.0, 20.0), dense=loads(0.6, 0.95), sparse=loads(0.05, 0.4),
       more=st.lists(loads(0.05, 0.95), max_size=4))
def test_exact_readings_give_the_costs_back(flop, ratio, idle, dense, sparse, more):
    byte, made = ratio * flop, None
    for watts, share in (dense, sparse, *more):
        one = reading(watts * share / flop, watts * (1.0 - share) / byte, flop=flop, byte=byte,
                      idle=idle, seconds=1000.0)
        made = one if made is None else one.joined(made)
    assert len(made.readings) == 2 + len(more)
    assert made.joules_per_flop == pytest.approx(flop, rel=1e-6)
    assert made.joules_per_byte == pytest.approx(byte, rel=1e-6)
