"""Weights come back exact, or within the error that their codec states."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeloop.errors import StateError
from edgeloop.store import CODECS, adapter_to_bytes, rounded
from edgeloop.store.compress import decode, encode

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TENSORS = st.dictionaries(
    st.sampled_from(["a", "layer.0.lora_A", "z"]),
    array_shapes(min_dims=0, max_dims=3, max_side=6).flatmap(
        lambda shape: arrays(np.float32, shape, elements=FLOATS)),
    min_size=1)


def bits(adapter):
    return {n: (a.shape, np.ascontiguousarray(a).tobytes()) for n, a in adapter.items()}


def weights(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {"A": (scale * rng.standard_normal((4, 96))).astype("f4"),
            "B": (scale * rng.standard_normal((96, 4))).astype("f4")}


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.sampled_from(CODECS))
def test_what_is_read_back_is_what_rounding_says(adapter, codec):
    base = {n: a * np.float32(0.5) for n, a in adapter.items()} if codec == "xor" else None
    got = decode(encode(adapter, codec, base), codec, base)
    assert bits(got) == bits(rounded(adapter, codec))
    assert bits(rounded(got, codec)) == bits(got) or codec == "int8"  # its scale may round again
    for name, value in adapter.items():
        exact, read = value.astype(np.float64), got[name].astype(np.float64)
        error = np.abs(exact - read)
        if codec in ("f32", "xor"):
            assert not error.any()
        elif codec == "f16":
            assert (error <= np.maximum(np.abs(exact) * 2.0**-11, 2.0**-25)).all()
        else:
            rows = exact.reshape(-1, exact.shape[-1] if exact.ndim else 1)
            most = np.abs(rows).max(axis=1, initial=0.0)
            bound = most / 254 * (1 + 2.0**-20) + np.abs(rows).max(initial=0.0) * 2.0**-22 + 1e-44
            assert (error.reshape(rows.shape) <= bound[:, None]).all()


def test_sizes_are_what_the_table_says():
    adapter = weights()
    size = {codec: len(encode(adapter, codec, weights(1, 0.9))) for codec in CODECS}
    n = sum(a.size for a in adapter.values())
    head = size["f32"] - 4 * n
    assert size["f16"] <= 2 * n + head
    assert size["int8"] <= n + 4 * (4 + 96) + 2 * head
    near = {k: v + np.float32(1e-4) for k, v in adapter.items()}
    assert len(encode(near, "xor", adapter)) < 0.85 * size["f32"]


def test_a_tensor_beyond_float16_stays_as_it_is():
    adapter = {"a": np.array([70000.0, 1e-3], "f4"), "b": np.array([1.0], "f4")}
    assert bits(rounded(adapter, "f16")) == bits(adapter)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_not_finite_is_never_stored(codec):
    with pytest.raises(StateError, match="'A' is not finite"):
        encode(weights() | {"A": np.array([[np.nan]], "f4")}, codec, weights())


@pytest.mark.parametrize("codec", CODECS)
def test_other_bytes_are_refused(codec):
    good = encode(weights(), codec, weights(1))
    for blob in (b"", b"garbage", good[: len(good) // 2], zlib.compress(b"\0" * 10_000_000)):
        with pytest.raises(StateError):
            decode(blob, codec, weights(1))
    with pytest.raises(StateError):
        decode(good, "zip", None)


def test_a_difference_needs_its_base():
    blob = encode(weights(), "xor", weights(1))
    with pytest.raises(StateError, match="missing"):
        decode(blob, "xor", None)
    for other in (None, {"A": weights()["A"]}):
        with pytest.raises(StateError, match="same tensors"):
            encode(weights(), "xor", other)


def test_equal_weights_have_equal_bytes_whatever_their_order():
    turned = dict(reversed(weights().items()))
    assert adapter_to_bytes(turned) == adapter_to_bytes(weights())
    for codec in CODECS:
        assert encode(turned, codec, weights(1)) == encode(weights(), codec, weights(1))
