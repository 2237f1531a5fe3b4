"""keep_small: one bit or two bytes while a value waits for backward."""

from __future__ import annotations

import numpy as np
import pytest
from models.forced import waiting
from models.vit import cct
from models.zoo import ZOO

import edgeloop as el
from edgeloop import _core
from edgeloop.ir import Graph, Type, verify
from edgeloop.ops import Builder, evaluate
from edgeloop.passes.keep_small import keep_small
from edgeloop.passes.lifetimes import peak_bytes
from edgeloop.passes.schedule import schedule

ACTS = {"relu": {}, "leaky_relu": {"alpha": 0.1}, "clip": {"min": -0.5, "max": 0.5}}


def step(act: str, *, view: bool = False, length: int = 5) -> Graph:
    """x -> act(x W) x length, and back through the same weights and the activations' gradients."""
    g = Graph()
    b = Builder(g)
    rng = np.random.default_rng(0)
    y, saved, attrs = b.input("x", Type((16, 32))), [], ACTS.get(act, {})
    for _ in range(length):
        w = b.constant(rng.standard_normal((32, 32)).astype(np.float32) / 6)
        pre = b.op("linear", y, w)
        y = b.op(act, pre, **attrs)
        saved.append((w, y if act == "relu" else pre))
    d = y
    for w, v in reversed(saved):
        seen = v
        if view:  # backward sees the value in another shape
            seen, d = (b.op("reshape", a, shape=(8, 64)) for a in (v, d))
        d = b.op(f"{act}_grad", d, seen, **attrs)
        if view:
            d = b.op("reshape", d, shape=(16, 32))
        d = b.op("linear_dx", d, w)
    g.outputs = [b.op("neg", d, out="dx")]
    return schedule(verify(g))


def run(g: Graph) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)
    return evaluate(g, {"x": x})[g.outputs[0]]


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_masks_save_memory_and_change_no_bit(act, view):
    g = step(act, view=view)
    out = verify(keep_small(g, kind="mask", limit=0))
    assert any(n.op == "mask_grad" for n in out.nodes)
    assert peak_bytes(out) < 0.6 * peak_bytes(g)
    np.testing.assert_array_equal(run(out), run(g))


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("act", ["gelu", "silu"])
@pytest.mark.parametrize(("kind", "share", "most"), [("f16", 0.75, 2e-3), ("i8", 0.62, 5e-2)])
def test_fewer_bits_save_memory_and_round(act, view, kind, share, most):
    g = step(act, view=view, length=9)
    out = verify(keep_small(g, kind=kind, limit=0))
    assert peak_bytes(out) < share * peak_bytes(g)
    want = run(g)
    error = np.abs(run(out) - want).max() / np.abs(want).max()
    assert 0 < error < most


def test_relu_and_windows_of_maxima_keep_bits_and_taps(monkeypatch):
    """CCT: convolution, relu, pool, twice; both gradients read what relu gave."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3, 32, 32), np.float32), np.arange(2, dtype=np.int32)
    options = {"train": el.Full(), "batch": 2, "entries": ("train",)}
    free = el.compile(cct(), **options)
    waiting(monkeypatch, "mask")
    small = el.compile(cct(), **options)
    names = {code: name for code, name, _ in _core.kernels()}
    used = [names[s.opcode] for s in small.table.steps]
    assert used.count("max_pool2d_tap") == used.count("max_pool2d_tap_grad") == 2
    assert used.count("pack_mask") == used.count("mask_grad") >= 2
    one, two = el.Session(free), el.Session(small)
    assert [one.step(x, y) for _ in range(3)] == [two.step(x, y) for _ in range(3)]
    assert all(np.array_equal(v, two.adapter()[k]) for k, v in one.adapter().items())


def test_windows_over_another_view_of_the_value_keep_numbers():
    g = Graph()
    b = Builder(g)
    v = b.op("exp", b.input("x", Type((16, 32))))
    image = b.op("reshape", v, shape=(1, 8, 8, 8))
    pooled = b.op("max_pool2d", image, kernel=(2, 2), strides=(2, 2))
    d = b.op("max_pool2d_grad", b.op("neg", pooled), image, pooled, kernel=(2, 2), strides=(2, 2))
    g.outputs = [b.op("reshape", d, shape=(16, 32), out="dx")]
    out = keep_small(schedule(verify(g)), kind="mask", limit=0)
    assert not any(n.op == "max_pool2d_tap" for n in out.nodes)


def test_values_that_backward_reads_as_numbers_get_no_mask():
    g = step("gelu")
    assert keep_small(g, kind="mask", limit=0) is g


def test_no_more_is_packed_than_the_limit_asks_for():
    g = step("relu")
    packed = [
        sum(n.op == "pack_mask" for n in
            keep_small(g, kind="mask", limit=int(share * peak_bytes(g))).nodes)
        for share in (1.0, 0.9, 0.5)]
    assert packed[0] == 0 < packed[1] < packed[2]


def compiled(name: str, **more) -> el.Program:
    case = ZOO[name]
    return el.compile(case.build(), loss=case.loss, train=el.LoRA(rank=2), batch=case.batch,
                      optimizer=el.SGD(lr=0.05), **({"entries": ("train",)} | more))


@pytest.mark.parametrize("name", ["ds_cnn", "mobilenet_v2", "mobilenet_v1"])
def test_programs_with_masks_keep_every_bit(name, monkeypatch):
    case = ZOO[name]
    x, y = case.data(case.build())
    free = compiled(name)
    waiting(monkeypatch, "mask")
    small = compiled(name)
    assert small.plan.arena_bytes < free.plan.arena_bytes
    one, two = el.Session(free), el.Session(small)
    assert [one.step(x, y) for _ in range(10)] == [two.step(x, y) for _ in range(10)]
    assert all(np.array_equal(v, two.adapter()[k]) for k, v in one.adapter().items())


@pytest.mark.parametrize(("kind", "share", "rtol"), [("f16", 0.85, 0.02), ("i8", 0.8, 0.1)])
def test_programs_with_fewer_bits_start_with_the_same_loss_and_learn_alike(
    kind, share, rtol, monkeypatch
):
    case = ZOO["ds_cnn"]
    x, y = case.data(case.build())
    free = compiled("ds_cnn")
    waiting(monkeypatch, kind)
    small = compiled("ds_cnn")
    assert small.plan.arena_bytes < share * free.plan.arena_bytes
    one, two = ([s.step(x, y) for _ in range(40)] for s in (el.Session(free), el.Session(small)))
    assert one[0] == two[0]
    assert one[-1] < 0.9 * one[0]
    assert one != two
    np.testing.assert_allclose(two, one, rtol=rtol)


def test_the_solver_takes_fewer_bits_only_where_it_is_allowed():
    """With an entry that hands gradients out there are no micro-batches to fall back on."""
    options = {"entries": ("train", "grad"), "slowdown": 1.1}
    least, refused = compiled("ds_cnn", **options).plan.ram_bytes // 2, ""
    while not refused:
        try:
            least = compiled(
                "ds_cnn", budget=least - least // 50, allow=(), **options).plan.ram_bytes
        except el.BudgetError as e:
            refused = str(e)
    assert "'saved'" in refused
    kinds = []
    while "int8" not in kinds:
        program = compiled("ds_cnn", budget=least - least // 50, allow=("saved",), **options)
        assert program.plan.ram_bytes < least
        least = program.plan.ram_bytes
        kinds.append(program.plan.notes[-1].partition("wait in ")[2].partition(" (")[0])
    assert set(kinds[:-1]) == {"f16"}
