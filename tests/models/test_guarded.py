"""Every plan of the zoo, run step by step in a poisoned arena whose every byte is watched.

Memory that holds nothing is NaN before each step, so that whoever reads it is found out by the
result; after each step only what it may write has changed: its outputs and its scratch, to the
four bytes.
"""

from __future__ import annotations

import numpy as np
import pytest
from models.forced import in_strips
from models.zoo import ZOO

import edgeloop as el
from edgeloop import _core
from edgeloop.ops import OPS
from edgeloop.passes import encode
from edgeloop.passes.offsets import Layout
from edgeloop.program.lifetimes import lifetimes
from edgeloop.program.table import ITEM_BYTES
from edgeloop.runtime import session as runtime
from edgeloop.solver import Frame

POISON = np.uint32(0x7FC05A5A)  # a quiet NaN
OPTIONS = {
    "plain": {},
    "adamw8bit": {"optimizer": el.AdamW8bit()},
    "tight": {"share": 0.62, "slowdown": 1.4},
    "strips": {"batch": 1, "strips": True},
}


def compiled(name: str, monkeypatch, *, share: float = 1.0, strips: bool = False, **options):
    """The program, and for each entry how many operands each step writes."""
    case = ZOO[name]
    options = {"loss": case.loss, "train": el.LoRA(2), "batch": 2, "optimizer": el.SGD(lr=0.05),
               "entries": ("train", "predict")} | options
    if share < 1:
        options["budget"] = int(share * el.compile(case.build(), **options).plan.ram_bytes)
    written: dict[str, list[int]] = {}
    made = Frame.program

    def spy(frame, draft, ordered, notes=()):
        for entry, g in ordered.items():
            written[entry] = [len(n.outputs) for n in g.nodes if not OPS[n.op].view]
        return made(frame, draft, ordered, notes)

    with monkeypatch.context() as patched:
        patched.setattr(Frame, "program", spy)
        if strips:
            in_strips(patched, int8=True, strip=8192)
        return el.compile(case.build(), **options), written


class Watched(el.Session):
    """A session that runs each step by itself and looks at every byte of the arena."""

    def __init__(self, program: el.Program, written, monkeypatch, trim: int = 0) -> None:
        kept = []
        with monkeypatch.context() as patched:
            anonymous = runtime.anonymous
            patched.setattr(runtime, "anonymous", lambda n: kept.append(anonymous(n)) or kept[-1])
            super().__init__(program)
        size = program.table.sizes["arena"]
        arena = np.frombuffer(kept[0], np.uint32, size // 4)
        for key, value in (("_arena", arena), ("_written", written), ("_trim", trim)):
            object.__setattr__(self, key, value)

    def _run(self, entry) -> None:
        for slot, name in self._slots:
            slot[0] = self._scalars[name]
        table = self.program.table
        first = table.entries[entry.index].first
        lives = lifetimes(self.program, entry.name)
        writes = self._written.get(entry.name)
        assert writes is None or len(writes) == entry.steps  # an output of a view is copied
        for k in range(entry.steps):
            dead = np.ones(len(self._arena), bool)
            for x in lives:
                if x.first < k <= x.last:
                    dead[x.offset // 4 : (x.offset + x.nbytes) // 4] = False
            self._arena[dead] = POISON
            before = self._arena.copy()
            _core.run(self._runner, entry.index, k, k + 1)
            step = table.steps[first + k]
            allowed = np.zeros(len(self._arena), bool)
            for o in step.operands[-writes[k]:]:
                t = table.tensors[o]
                if t.region == "arena":
                    end = t.offset + t.size * ITEM_BYTES[t.dtype] + 3 - self._trim
                    allowed[t.offset // 4 : end // 4] = True
            scratch = step.scratch_bytes * table.threads
            allowed[step.scratch_offset // 4 : (step.scratch_offset + scratch) // 4] = True
            wrong = (before != self._arena) & ~allowed
            assert not wrong.any(), f"step {k} wrote at byte {4 * int(np.argmax(wrong))}"


def data(name: str, rows: int = 2):
    case = ZOO[name]
    x, y = case.data(case.build())
    return x[:rows], y[:rows]


@pytest.mark.parametrize(("name", "kind"), [
    *((name, "plain") for name in ZOO), ("har", "adamw8bit"), ("mlp", "adamw8bit"),
    ("ds_cnn", "tight"), ("resnet8", "tight"), ("mobilenet_v1", "tight"),
    ("ds_cnn", "strips"), ("resnet8", "strips"),
])
def test_no_plan_reads_or_writes_what_it_should_not(name, kind, monkeypatch):
    program, written = compiled(name, monkeypatch, **OPTIONS[kind])
    if kind == "strips":
        names = {code: name for code, name, _ in _core.kernels()}
        assert {"take_rows", "pack_i8"} <= {names[s.opcode] for s in program.table.steps}
    x, y = data(name, program.batch)
    plain, watched = el.Session(program), Watched(program, written, monkeypatch)
    assert [plain.step(x, y) for _ in range(2)] == [watched.step(x, y) for _ in range(2)]
    np.testing.assert_array_equal(plain.predict(x), watched.predict(x))
    assert plain.snapshot() == watched.snapshot()


def test_a_write_past_the_end_is_found(monkeypatch):
    """Where the last number of an output counts as outside of it, the watch says so."""
    program, written = compiled("mlp", monkeypatch)
    with pytest.raises(AssertionError, match="wrote at byte"):
        Watched(program, written, monkeypatch, trim=4).step(*data("mlp"))


def test_tensors_on_top_of_each_other_are_found(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(encode, "check_plan", lambda *_: None)  # or it would say so first
        patched.setattr(encode, "assign", lambda spans: Layout(
            (0,) * len(spans), max(s.size for s in spans), 0))
        bad, _ = compiled("ds_cnn", monkeypatch)
    good, _ = compiled("ds_cnn", monkeypatch)
    x, y = data("ds_cnn")
    assert el.Session(bad).step(x, y) != el.Session(good).step(x, y)
