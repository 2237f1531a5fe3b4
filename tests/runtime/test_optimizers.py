"""Every optimizer: it learns, it resumes, it survives what is not finite; bytes of its state."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from tests.runtime.mlp import compiled, model, randomised, samples

import edgeloop as el
from edgeloop.options import Optimizer, parse_optimizer
from edgeloop.passes.attach_optimizer import UPDATES
from edgeloop.program.emit_c import _image
from edgeloop.store import Job, Store

# As text, its rate such that thirty steps learn; bytes of state for an element of a large matrix.
ALL = {
    "sgd:lr=0.3": 0, "sgd:lr=0.05,momentum=0.9": 4, "adamw:lr=0.02": 8, "adamw8bit:lr=0.02": 2.1,
    "lion:lr=0.01": 4, "lion:lr=0.01,bits=8": 1.1, "adafactor:lr=0.1": 0.03,
}
every = pytest.mark.parametrize("text", ALL)


def session(text: str, **options) -> el.Session:
    return randomised(el.Session(compiled(
        optimizer=parse_optimizer(text), entries=("train",), **options)))


def test_there_is_an_update_for_each_and_a_row_here():
    assert set(UPDATES) == set(get_args(Optimizer))
    assert {type(parse_optimizer(text)) for text in ALL} == set(UPDATES)


@every
def test_it_learns(text):
    s = session(text)
    x, y = samples(8)
    losses = [s.step(x, y) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


@every
def test_what_is_restored_goes_on_with_the_same_bits(text, tmp_path):
    """Through a saved program and the state file of the loop."""
    one = session(text)
    one.program.save(tmp_path / "p.elp")
    two = el.Session(el.load(tmp_path / "p.elp"))
    for seed in range(4):
        one.step(*samples(8, seed))
    with Store.open(tmp_path / "state.db") as store:
        store.save_job(Job(one.program.hash, None, one.snapshot(), b""))
    with Store.open(tmp_path / "state.db", readonly=True) as store:
        two.restore(store.job().snapshot)
    after = [(one.step(*samples(8, seed)), two.step(*samples(8, seed))) for seed in range(4, 8)]
    assert all(a == b for a, b in after)
    assert one.snapshot() == two.snapshot()
    control = session(text)  # one that was not restored has another history
    control.load_adapter(two.adapter())
    assert control.snapshot() != two.snapshot()


@every
def test_a_sum_of_gradients_that_is_half_gathered_goes_on_too(text):
    program = compiled(optimizer=parse_optimizer(text), entries=("accumulate", "apply"))
    one, two = (randomised(el.Session(program)) for _ in range(2))
    for _ in range(2):  # the second time with moments that are not zero
        one.accumulate(*samples(8, 1))
        two.restore(one.snapshot())
        for s in (one, two):
            s.accumulate(*samples(8, 2))
            s.apply()
        assert one.snapshot() == two.snapshot()


@every
def test_a_loss_that_is_not_finite_changes_nothing(text):
    s = session(text)
    x, y = samples(8)
    s.step(x, y)
    before = [bytes(r) for r in s._regions[:2]]
    with pytest.raises(el.NonFiniteError):
        s.step(x * np.float32(1e38), y)
    assert [bytes(r) for r in s._regions[:2]] == before
    s.step(x, y)
    assert [bytes(r) for r in s._regions[:2]] != before


@every
def test_bytes_of_state(text):
    """Full training of a dense layer 256 x 512; scalars of the optimizer take 64 bytes at most."""
    import onnx
    from onnx import helper, numpy_helper

    w = np.zeros((256, 512), np.float32)
    ends = [helper.make_tensor_value_info(n, 1, ["b", k]) for n, k in (("x", 512), ("y", 256))]
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w"], ["y"], "fc", transB=1)], "g",
                              [ends[0]], [ends[1]], [numpy_helper.from_array(w, "w")])
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(dense)
    plan = el.compile(dense, loss="mse", train=el.Full(), optimizer=parse_optimizer(text), batch=1,
                      entries=("train",)).plan
    assert 0.7 * ALL[text] <= plan.state_bytes / w.size <= ALL[text] + 64 / w.size


@every
def test_firmware_starts_with_the_state_of_a_session(text):
    program = compiled(optimizer=parse_optimizer(text), entries=("train",))
    assert _image(program, "state") == bytes(el.Session(program)._regions[1])
    if "8" in text:  # codes that mean zero are not zero bytes
        assert any(_image(program, "state"))


@every
def test_a_weight_may_have_the_name_of_a_scalar(text):
    optimizer = parse_optimizer(text)
    for name in optimizer.scalars():
        taken = model()
        taken.graph.initializer[0].name = name
        taken.graph.node[0].input[1] = name
        made = el.compile(taken, optimizer=optimizer, batch=2, entries=("train",))
        assert set(made.scalars) == set(optimizer.scalars())
