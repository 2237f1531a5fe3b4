from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open
from tests.program.tiny import tiny_spec

from edgeloop.errors import ProgramError
from edgeloop.program import Program, artifact, memory
from edgeloop.program.table import decode, encode


def test_a_program_survives_save_and_load(tmp_path):
    made = Program.from_spec(tiny_spec())
    made.save(tmp_path / "a.elp")
    read = Program.load(tmp_path / "a.elp")
    assert read.hash == made.hash == hashlib.sha256((tmp_path / "a.elp").read_bytes()).hexdigest()
    assert read.plan == made.plan
    assert read.table == made.table
    assert read.batch == 4
    assert read.metadata["program_hash"] == read.hash
    np.testing.assert_array_equal(read.weights()["w"], [0, 1, 2])
    np.testing.assert_array_equal(read.initial()["p"], np.full(5, 0.5))


def test_the_same_spec_gives_the_same_bytes():
    assert artifact.build(tiny_spec()) == artifact.build(tiny_spec())


def test_the_stock_package_reads_it(tmp_path):
    spec = tiny_spec()
    data = artifact.build(spec)
    tensors = safetensors.numpy.load(data)
    np.testing.assert_array_equal(tensors["weights.u"], spec.weights["u"])
    (tmp_path / "a.elp").write_bytes(data)
    with safe_open(tmp_path / "a.elp", "np") as f:
        assert list(f.metadata()) == ["edgeloop"]
        document = json.loads(f.metadata()["edgeloop"])
    assert document["params"] == {"p": 4}


def test_tensors_lie_in_execution_order_at_multiples_of_64():
    layout = artifact.read(memoryview(artifact.build(tiny_spec())), "a")
    names = [n for n in layout.tensors if not n.startswith("pad.")]
    assert names == ["table", "weights.u", "weights.w", "initial.p", "initial.m"]
    assert all(layout.tensors[n].start % 64 == 0 for n in names)


def test_every_damaged_byte_is_found():
    good = artifact.build(tiny_spec())
    for i in range(0, len(good), 7):
        bad = bytearray(good)
        bad[i] ^= 0x10
        with pytest.raises(ProgramError):
            Program.from_bytes(bytes(bad), "a.elp")


@pytest.mark.parametrize("cut", [0, 5, 8, 100, -1])
def test_truncated_files_are_refused(tmp_path, cut):
    path = tmp_path / "a.elp"
    path.write_bytes(artifact.build(tiny_spec())[:cut])
    with pytest.raises(ProgramError, match=r"a\.elp"):
        Program.load(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(ProgramError, match=r"none\.elp: cannot read the program: No such file"):
        Program.load(tmp_path / "none.elp")


def test_other_versions_are_named(tmp_path):
    data = artifact.build(tiny_spec()).replace(b'\\"version\\":1', b'\\"version\\":9')
    with pytest.raises(ProgramError, match="artifact version 9, this edgeloop reads 1"):
        Program.from_bytes(data)


def test_a_program_is_not_hurt_by_what_happens_to_its_file(tmp_path, monkeypatch):
    """Both policies: read into memory, and mapped from the content-addressed copy."""
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.elp"
    for limit, resident in ((1 << 20, True), (1, False)):
        monkeypatch.setattr(memory, "IN_MEMORY_BYTES", limit)
        Program.from_spec(tiny_spec()).save(path)
        program = Program.load(path)
        assert (program.resident_bytes > 0) == resident
        path.write_bytes(b"x")  # truncates the same inode
        np.testing.assert_array_equal(program.weights()["w"], [0, 1, 2])
    cached = tmp_path / "cache" / "programs" / f"{program.hash}.elp"
    assert cached.stat().st_mode & 0o777 == 0o444


def test_a_damaged_cached_copy_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "IN_MEMORY_BYTES", 1)
    path = tmp_path / "a.elp"
    made = Program.from_spec(tiny_spec())
    made.save(path)
    cached = tmp_path / "cache" / "programs" / f"{made.hash}.elp"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"rotten")
    assert Program.load(path).hash == made.hash
    assert hashlib.sha256(cached.read_bytes()).hexdigest() == made.hash


def test_save_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.elp"
    path.write_bytes(b"old")
    with pytest.raises(ProgramError, match="cannot write"):
        Program.from_spec(tiny_spec()).save(tmp_path / "missing" / "a.elp")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_decode_is_the_inverse_of_encode():
    spec = tiny_spec()
    table = decode(encode(spec))
    assert [t.region for t in table.tensors] == [t.region for t in spec.tensors]
    assert [t.shape for t in table.tensors] == [t.shape for t in spec.tensors]
    assert [s.operands for s in table.steps] == [
        s.operands for e in spec.entries for s in e.steps
    ]
    assert table.sizes == {"weights": 128, "arena": 192, "params": 64, "state": 64, "io": 576}


def test_metadata_must_be_json():
    with pytest.raises(ProgramError, match="JSON"):
        artifact.build(tiny_spec(metadata={"x": float("nan")}))


def test_the_plan_is_a_report_and_json():
    plan = Program.from_spec(tiny_spec()).plan
    assert plan.ram_bytes == 192 + 64 + 64 + 576
    assert (plan.trainable_params, plan.total_params) == (5, 13)
    assert json.loads(plan.to_json())["entries"][1]["lower_bound_bytes"] == 128
    assert "arena 192 B" in str(plan)
