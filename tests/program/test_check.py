"""The checker: nothing hostile in a table crashes the process."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from tests.program.tiny import ROWS, WIDTH, relu, tiny_spec

from edgeloop import _core
from edgeloop.errors import EdgeLoopError, ProgramError
from edgeloop.program import Program, artifact
from edgeloop.program.table import decode, encode
from edgeloop.runtime import Session


def reseal(data: bytes) -> bytes:
    """What an attacker does after changing bytes: write a seal that fits."""
    import hashlib

    size = 8 + int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8:size])["__metadata__"]["edgeloop"])
    head = data[:size].replace(document["sha256"].encode(), b"0" * 64)
    digest = hashlib.sha256(head + data[size:]).hexdigest()
    before, _, after = head.rpartition(b"0" * 64)
    return before + digest.encode() + after + data[size:]


def exercise(program: Program) -> None:
    x = np.ones((ROWS, WIDTH), np.float32)
    session = Session(program)
    session.predict(x)
    session.step(x, np.zeros(ROWS, np.int32))


def test_resealing_an_untouched_program_changes_nothing():
    data = artifact.build(tiny_spec())
    assert reseal(data) == data


def test_every_flipped_byte_of_the_table_is_refused_or_harmless():
    data = artifact.build(tiny_spec())
    table = artifact.read(memoryview(data), "a").tensors["table"]
    refused = 0
    for i in range(table.start, table.start + table.nbytes):
        for bit in (0x01, 0x10, 0x80):
            bad = bytearray(data)
            bad[i] ^= bit
            try:
                exercise(Program.from_bytes(reseal(bytes(bad))))
            except EdgeLoopError:
                refused += 1
    assert refused > table.nbytes  # of three flips for each byte


def check(spec) -> None:
    _core.check(encode(spec), "ref", spec.threads)


def with_tensor(index, **change):
    spec = tiny_spec()
    tensors = list(spec.tensors)
    tensors[index] = dataclasses.replace(tensors[index], **change)
    return dataclasses.replace(spec, tensors=tuple(tensors))


def with_predict(*steps):
    spec = tiny_spec()
    entry = dataclasses.replace(spec.entries[1], steps=steps)
    return dataclasses.replace(spec, entries=(spec.entries[0], entry))


def test_the_tiny_program_is_accepted():
    check(tiny_spec())
    check(with_tensor(5, offset=16))  # a state


@pytest.mark.parametrize(("spec", "message"), [
    pytest.param(with_tensor(0, offset=512), "out of bounds", id="offset behind the end"),
    pytest.param(with_tensor(0, offset=32), "out of bounds", id="misaligned offset"),
    pytest.param(with_tensor(5, offset=8), "out of bounds", id="misaligned state"),
    pytest.param(with_tensor(0, shape=(4000, 8)), "out of bounds", id="too many rows"),
    pytest.param(with_tensor(0, shape=(-4, 8)), "out of bounds", id="negative dim"),
    pytest.param(with_tensor(0, shape=(0, 8)), "out of bounds", id="empty dim"),
    pytest.param(with_tensor(0, strides=(2**31 - 1, 1)), "out of bounds", id="huge stride"),
    pytest.param(with_tensor(0, strides=(-8, 1)), "out of bounds", id="negative stride"),
    pytest.param(with_tensor(0, shape=(2**16, 2**16), strides=(0, 0)), "out of bounds",
                 id="dims product wraps"),
    pytest.param(with_tensor(0, dtype="i32"), "do not fit", id="wrong type"),
    pytest.param(with_predict(relu("a", 0, 3)), "do not fit", id="shapes differ"),
    pytest.param(with_predict(relu("a", 4, 7)), "out of bounds", id="writes the weights"),
    pytest.param(with_predict(relu("a", None, 1)), "do not fit", id="absent input"),
    pytest.param(with_predict(relu("a", 0, None)), "do not fit", id="absent output"),
    pytest.param(with_predict(relu("a", 0, 1, chunks=0)), "damaged", id="no chunks"),
    pytest.param(with_predict(relu("a", 0, 1, chunks=3)), "do not fit", id="other chunks"),
    pytest.param(with_predict(relu("a", 0, 1, scratch=(128, 128))), "out of bounds",
                 id="scratch leaves the arena"),
    pytest.param(with_predict(relu("a", 0, 1, scratch=(32, 64))), "out of bounds",
                 id="misaligned scratch"),
])
def test_what_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        check(spec)


def test_an_operand_that_does_not_exist_is_refused():
    table = encode(tiny_spec())
    with pytest.raises(ValueError, match=r"step 4: .*out of bounds"):
        _core.check(table[:-2] + b"\x63\0", "ref", 1)


def test_scratch_is_checked_for_every_thread():
    spec = with_predict(relu("a", 0, 1, scratch=(64, 64)))
    check(dataclasses.replace(spec, threads=2))
    with pytest.raises(ValueError, match=r"step 3: .*out of bounds"):
        check(dataclasses.replace(spec, threads=3))


def test_a_short_or_long_table_is_refused():
    table = encode(tiny_spec())
    for bad in (b"", table[:-1], table + b"\0", table[:95]):
        with pytest.raises(ValueError, match="damaged"):
            _core.check(bad, "ref", 1)
        with pytest.raises(ProgramError):
            decode(bad)


def test_memory_that_does_not_fit_the_table_is_refused():
    spec = tiny_spec()
    regions = [bytearray(n + 64) for n in decode(encode(spec)).sizes.values()]
    with pytest.raises(ValueError, match="fewer than the program needs"):
        _core.open(encode(spec), "ref", 1, *regions[:4], bytearray(8))


def leaves(value, path=()):
    """Paths of everything inside a JSON document, containers too."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(v, (*path, k))


def with_document(data: bytes, change) -> bytes:
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    document = json.loads(header["__metadata__"]["edgeloop"])
    change(document)
    header["__metadata__"]["edgeloop"] = artifact.dumps(document)
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return reseal(len(text).to_bytes(8, "little") + text + data[size:])


PATHS = [
    p for p in leaves(json.loads(artifact.dumps(artifact._document(tiny_spec()))))
    if p[0] != "sha256"
]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_hostile_metadata_is_refused_or_harmless(path):
    data = artifact.build(tiny_spec())
    for value in (None, -1, 3, 10**9, 0.5, "x", [], {}, [None], {"x": 1}):

        def put(document, value=value):
            for k in path[:-1]:
                document = document[k]
            document[path[-1]] = value

        with contextlib.suppress(EdgeLoopError):
            exercise(Program.from_bytes(with_document(data, put)))
