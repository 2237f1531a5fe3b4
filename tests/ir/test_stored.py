"""Codes and scales: what they mean, and what may be done to them without losing that."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Stored, Type, Value, verify
from edgeloop.ir.stored import from_bf16, pack4, to_bf16, unpack4
from edgeloop.passes.fold_constants import fold_constants

RNG = np.random.default_rng(3)


def stored(shape=(4, 6), kind="int8", group=0, zero=False) -> Stored:
    low, high = (-127, 127) if kind == "int8" else (-8, 7)
    codes = RNG.integers(low, high, shape, np.int8, endpoint=True)
    groups = -(-codes[0].size // group) if group else 1
    scale = RNG.uniform(0.01, 0.02, (shape[0], groups)).astype(np.float32)
    offset = RNG.integers(-3, 3, scale.shape, np.int8) if zero else None
    return Stored(codes, scale, offset, kind, group)


def graph_of(entry: Stored) -> tuple[Graph, Value]:
    v, y = Value("w", Type(entry.codes.shape)), Value("y", Type(entry.codes.shape))
    g = Graph(outputs=[y], constants={v: entry.array()}, stored={v: entry})
    g.nodes = [Node("relu", (v,), (y,))]
    return g, v


def test_every_element_is_code_minus_zero_times_scale():
    e = stored((3, 5), "int4", group=2, zero=True)
    a = e.array()
    for i, j in np.ndindex(3, 5):
        want = np.float32(int(e.codes[i, j]) - int(e.zero[i, j // 2])) * e.scale[i, j // 2]
        assert a[i, j] == want


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_int4_packs_two_in_a_byte(width):
    codes = RNG.integers(-8, 7, (5, width), np.int8, endpoint=True)
    packed = pack4(codes)
    assert packed.shape == (5, -(-width // 2))
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack4(packed, width), codes)


def test_bytes_in_the_artifact():
    assert stored((4, 7)).nbytes == 4 * 7 + 4 * 4
    assert stored((4, 7), "int4", group=4, zero=True).nbytes == 4 * 4 + 8 * 4 + 8


def test_verify_demands_that_the_codes_mean_the_array():
    g, v = graph_of(stored())
    assert verify(g) is g
    assert v in g.copy().stored
    g.constants[v] = g.constants[v] * 1.5
    with pytest.raises(CompileError, match="int8 codes of w are wrong"):
        verify(g)


def test_verify_demands_a_constant():
    g, v = graph_of(stored())
    g.params[v] = g.constants.pop(v)
    with pytest.raises(CompileError, match="stored as int8 but is no constant"):
        verify(g)


def test_verify_names_a_wrong_scale():
    g, v = graph_of(stored())
    e = g.stored[v]
    g.stored[v] = Stored(e.codes, e.scale[:, 0], None, "int8")
    with pytest.raises(CompileError, match=r"the scale is not float32 \[4, 1\]"):
        verify(g)


def folded(entry: Stored, op: str, to: tuple[int, ...], *more: np.ndarray, **attrs) -> Graph:
    x = Value("x", Type(to))
    w, t, y = Value("w", Type(entry.codes.shape)), Value("t", Type(to)), Value("y", Type(to))
    g = Graph([x], [y], constants={w: entry.array()}, stored={w: entry})
    extra = [Value(f"c{i}", Type(a.shape)) for i, a in enumerate(more)]
    g.constants.update(zip(extra, more, strict=True))
    g.nodes = [Node(op, (w, *extra), (t,), attrs), Node("add", (t, x), (y,))]
    return verify(fold_constants(verify(g)))


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_transposes_reshapes_and_channel_scales_keep_the_codes(kind):
    e = stored((4, 6), kind)
    g = folded(e, "transpose", (6, 4), perm=(1, 0))
    assert [s.axis for s in g.stored.values()] == [1]
    g = folded(e, "reshape", (4, 3, 2), shape=(4, 3, 2))
    assert [s.codes.shape for s in g.stored.values()] == [(4, 3, 2)]
    by_channel = RNG.uniform(1, 2, (4, 1)).astype(np.float32)
    g = folded(e, "mul", (4, 6), by_channel)
    assert len(g.stored) == 1
    np.testing.assert_allclose(next(iter(g.constants.values())), e.array() * by_channel, rtol=3e-7)


def test_what_would_tear_the_codes_apart_drops_them():
    assert not folded(stored((4, 6)), "mul", (4, 6), np.full((1, 6), 2, np.float32)).stored
    assert not folded(stored((4, 6)), "reshape", (3, 8), shape=(3, 8)).stored
    e = stored((4, 3, 2), group=2)
    assert e.transposed((0, 2, 1)) is None
    assert e.transposed((1, 0, 2)).axis == 1


def test_f16_stands_for_its_values():
    half = RNG.standard_normal((3, 4)).astype(np.float16)
    e = Stored(half, np.zeros(0, np.float32), None, "f16")
    np.testing.assert_array_equal(e.array(), half.astype(np.float32))
    assert e.nbytes == 24
    assert verify(graph_of(e)[0])


def test_bf16_rounds_to_nearest_ties_to_even():
    one = np.float32(1)
    step = np.float32(2**-7)
    values = {
        1: 1, 1 + 0.49 * step: 1, 1 + 0.51 * step: 1 + step, 1 + 0.5 * step: 1,
        1 + 1.5 * step: 1 + 2 * step, -(1 + 1.5 * step): -(1 + 2 * step), 3.4e38: np.inf,
        2.0**-126: 2.0**-126, 2.0**-127: 0, -np.inf: -np.inf,
    }
    got = from_bf16(to_bf16(np.array(list(values), np.float32)))
    np.testing.assert_array_equal(got, np.array(list(values.values()), np.float32) * one)
    quiet = np.array([0x7F800001, 0xFFC12345], np.uint32).view(np.float32)
    assert np.all(np.isnan(from_bf16(to_bf16(quiet))))
    assert np.signbit(from_bf16(to_bf16(np.array([-1e-45, -0.0], np.float32)))).all()


def test_every_bf16_stands_for_itself():
    bits = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    normal = (bits & 0x7F80) != 0
    number = (bits & 0x7FFF) <= 0x7F80
    np.testing.assert_array_equal(
        to_bf16(from_bf16(bits))[normal & number], bits[normal & number])
    e = Stored(bits[:24].reshape(4, 6), np.zeros(0, np.float32), None, "bf16")
    assert e.nbytes == 48
    assert verify(graph_of(e)[0])
    assert Stored(np.zeros((2, 2), np.float16), e.scale, None, "bf16").fault()
