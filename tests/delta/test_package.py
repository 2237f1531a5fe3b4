"""A delta leads to exactly the stated adapter, or is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop import delta
from edgeloop.delta.codecs import CODECS
from edgeloop.errors import DeltaError
from edgeloop.store import Store
from edgeloop.trust import Envelope

META = {"program_hash": "cd" * 32, "device_id": "press-7", "samples": 32, "created": 1.5}
HEADER = 48


def adapter(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"conv.A": (4, 12), "conv.B": (16, 4), "bias": (3,), "gain": ()}
    return {n: (scale * rng.normal(size=s)).astype("f4").reshape(s) for n, s in shapes.items()}


def moved(parent, seed=9, scale=1e-2):
    change = adapter(seed, scale)
    return {name: parent[name] + change[name] for name in parent}


def reseal(manifest, payload):
    """A package whose hashes are right, whatever it says: what a hostile sender can make."""
    manifest = dataclasses.replace(
        manifest, payload_sha256=hashlib.sha256(payload).hexdigest(), payload_bytes=len(payload))
    return delta.seal(Envelope(delta.DELTA, manifest.exact), payload)


def test_lossless_round_trip():
    parent = adapter(0)
    result = moved(parent)
    package = delta.pack(parent, result, META)
    rebuilt = delta.apply(parent, package, program_hash=META["program_hash"])
    assert {n: a.tobytes() for n, a in rebuilt.items()} == {
        n: a.tobytes() for n, a in result.items()
    }
    assert rebuilt["gain"].shape == ()
    assert delta.pack(parent, result, META) == package
    _, manifest, _ = delta.unpack(package)
    assert manifest.metadata == {"device_id": "press-7", "samples": 32, "created": 1.5}
    assert manifest.exact in package


@pytest.mark.parametrize(("codec", "tolerance"), [("f16", 1e-3), ("int8", 1.0 / 127)])
def test_lossy_codecs_round_each_change(codec, tolerance):
    parent = adapter(0)
    result = moved(parent)
    package = delta.pack(parent, result, META, codec=codec)
    assert len(package) < len(delta.pack(parent, result, META))
    rebuilt = delta.apply(parent, package)
    for name in parent:
        change = np.abs(result[name] - parent[name]).max()
        assert np.abs(rebuilt[name] - result[name]).max() <= tolerance * change
    assert delta.unpack(package).manifest.result == delta.adapter_digest(rebuilt)


@pytest.mark.parametrize("codec", ["exact", "f16", "int8"])
def test_unchanged_weights_stay_and_cost_little(codec):
    parent = {"w": adapter(0)["conv.A"].repeat(100, 0)}
    package = delta.pack(parent, parent, META, codec=codec)
    assert len(package) < 1300
    assert delta.apply(parent, package)["w"].tobytes() == parent["w"].tobytes()


def test_every_flipped_byte_is_refused():
    parent = adapter(0)
    package = delta.pack(parent, moved(parent), META, codec="int8")
    for place in range(len(package)):
        bad = bytearray(package)
        bad[place] ^= 1 << (place % 8)
        with pytest.raises(DeltaError):
            delta.apply(parent, bytes(bad))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_cut_and_extended_packages_are_refused(data):
    parent = adapter(0)
    package = delta.pack(parent, moved(parent), META)
    cut = data.draw(st.integers(0, len(package) - 1))
    for bad in (package[:cut], package + package[: cut + 1]):
        with pytest.raises(DeltaError):
            delta.apply(parent, bad)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_hostile_manifests_are_refused(exact):
    with pytest.raises(DeltaError):
        delta.unpack(delta.seal(Envelope(delta.DELTA, exact), b""))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_hostile_envelopes_are_refused(text):
    head = struct.pack("<4sHHII32s", b"EDLD", 2, 0, len(text), 0, hashlib.sha256(text).digest())
    with pytest.raises(DeltaError):
        delta.unpack(head + text)


@pytest.mark.parametrize("exact", [b"[" * 60000, b"[]", b'{"a":1}', b'{"codec":NaN}', b"\xff"])
def test_odd_json_is_refused(exact):
    with pytest.raises(DeltaError):
        delta.unpack(delta.seal(Envelope(delta.DELTA, exact), b""))
    head = struct.pack("<4sHHII32s", b"EDLD", 2, 0, len(exact), 0, hashlib.sha256(exact).digest())
    with pytest.raises(DeltaError):
        delta.unpack(head + exact)


def test_wrong_parent_program_and_shapes():
    parent = adapter(0)
    package = delta.pack(parent, moved(parent), META)
    with pytest.raises(DeltaError, match="made from adapter"):
        delta.apply(adapter(1), package)
    with pytest.raises(DeltaError, match="for program cdcdcd"):
        delta.apply(parent, package, program_hash="ef" * 32)
    with pytest.raises(DeltaError, match="other names or shapes"):
        delta.apply({**parent, "gain": np.zeros(2, "f4")}, package)


def test_bomb_is_refused_without_being_inflated():
    parent = adapter(0)
    _, manifest, _ = delta.unpack(delta.pack(parent, moved(parent), META))
    bomb = reseal(manifest, zlib.compress(bytes(200 << 20), 9))
    tracemalloc.start()
    with pytest.raises(DeltaError, match="not as long"):
        delta.apply(parent, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_resealed_other_content_misses_the_result_digest():
    parent = adapter(0)
    _, manifest, _ = delta.unpack(delta.pack(parent, moved(parent), META))
    _, _, other = delta.unpack(delta.pack(parent, moved(parent, seed=5), META))
    with pytest.raises(DeltaError, match="does not have the stated SHA-256"):
        delta.apply(parent, reseal(manifest, other))
    with pytest.raises(DeltaError, match="not as long"):
        delta.apply(parent, reseal(manifest, other[:-1]))


@pytest.mark.parametrize("codec", ["exact", "f16", "int8"])
def test_weights_that_are_not_finite_are_refused(codec):
    parent = adapter(0)
    bad = moved(parent)
    bad["bias"][0] = np.nan
    with pytest.raises(DeltaError, match="not finite"):
        delta.pack(parent, bad, META, codec=codec)
    _, manifest, payload = delta.unpack(delta.pack(parent, moved(parent), META, codec=codec))
    raw = b"\xff" * len(zlib.decompress(payload))
    if codec == "exact":  # what leads to a NaN, which nobody would pack
        flat = np.concatenate([parent[n].reshape(-1) for n in sorted(parent)])
        raw = CODECS[codec].encode(flat, np.full_like(flat, np.nan), [])
    manifest = dataclasses.replace(manifest, raw_bytes=len(raw))
    with pytest.raises(DeltaError, match="not finite"):
        delta.apply(parent, reseal(manifest, zlib.compress(raw)))


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=40))
def test_the_exact_codec_keeps_every_bit_of_any_floats(pairs):
    before, after = (np.array(side, "<f4") for side in zip(*pairs, strict=True))
    raw = CODECS["exact"].encode(before, after, [])
    assert len(raw) == CODECS["exact"].size(len(pairs), 1)
    assert CODECS["exact"].decode(before, raw, []).tobytes() == after.tobytes()


def test_the_exact_codec_at_the_ends_of_the_numbers():
    ends = np.array([0.0, -0.0, 3.4028235e38, -3.4028235e38, 1e-45, -1e-45, 1.0, -1.0], "<f4")
    before, after = np.repeat(ends, 8), np.tile(ends, 8)
    raw = CODECS["exact"].encode(before, after, [])
    assert CODECS["exact"].decode(before, raw, []).tobytes() == after.tobytes()


def test_pack_says_what_is_wrong():
    parent = adapter(0)
    with pytest.raises(DeltaError, match="codec 'zip' is unknown"):
        delta.pack(parent, parent, META, codec="zip")
    with pytest.raises(DeltaError, match="needs 'program_hash'"):
        delta.pack(parent, parent, {})
    with pytest.raises(DeltaError, match="differ in names or shapes"):
        delta.pack(parent, {"w": np.zeros(2, "f4")}, META)
    with pytest.raises(DeltaError, match="not float32"):
        delta.pack({"w": np.zeros(2)}, {"w": np.zeros(2)}, META)
    with pytest.raises(DeltaError, match="cannot be written"):
        delta.pack(parent, parent, {**META, "x": float("nan")})
    with pytest.raises(DeltaError, match="at most 64 KiB"):
        delta.pack(parent, parent, {**META, "x": "y" * 70000})
    with pytest.raises(DeltaError, match="more than float16"):
        delta.pack({"w": np.zeros(1, "f4")}, {"w": np.full(1, 1e6, "f4")}, META, codec="f16")


def test_read_limits_before_reading(tmp_path):
    path = tmp_path / "d.bin"
    path.write_bytes(bytes(1000))
    assert len(delta.read(path)) == 1000
    with pytest.raises(DeltaError, match="larger than the limit"):
        delta.read(path, limit=999)
    with pytest.raises(DeltaError, match="cannot be read"):
        delta.read(tmp_path / "none")


def test_digest_is_the_one_in_the_store(tmp_path):
    with Store.open(tmp_path / "s.db") as store:
        version = store.commit(adapter(0), program_hash="x", parent=None, metrics={}, live=True)
        assert version.sha256 == delta.adapter_digest(adapter(0))
        assert version.sha256 == delta.adapter_digest(store.adapter(1))
