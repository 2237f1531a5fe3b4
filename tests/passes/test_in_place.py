"""in_place: depthwise convolutions over the image that dies there."""

from __future__ import annotations

import numpy as np
import pytest
from models.zoo import ZOO

import edgeloop as el
from edgeloop.ir import Graph, Type, verify
from edgeloop.ops import OPS, Builder, evaluate
from edgeloop.ops.depthwise import DEPTHWISE_PLANE
from edgeloop.ops.kernels import OPCODES, run_kernel, variants
from edgeloop.passes.in_place import in_place
from edgeloop.passes.lifetimes import peak_bytes
from edgeloop.passes.needs import Needs
from edgeloop.passes.schedule import schedule

SAME = {"pads": (1, 1, 1, 1), "groups": 64}


def tower(*, again: bool = False, width: int = 1, **more) -> Graph:
    """x -> relu -> depthwise -> its gradient; ``again``: what relu made is read at the end too."""
    g = Graph()
    b = Builder(g)
    rng = np.random.default_rng(0)
    w = b.constant(rng.standard_normal((64, 3, 3, width)).astype(np.float32))
    attrs = SAME | more
    x = b.op("relu", b.input("x", Type((2, 24, 24, 64))))
    d = b.op("conv2d", x, w, act=1, **attrs)
    d = b.op("conv2d_dx", d, w, in_hw=(24, 24), **attrs)
    if again:
        d = b.op("add", x, d)
    g.outputs = [b.op("reduce_mean", d, axes=(1, 2))]
    return schedule(verify(g))


def ops(g: Graph) -> list[str]:
    return [n.op for n in g.nodes if n.op.startswith(("conv", "depth"))]


@pytest.mark.parametrize(("isa", "share"), [("ref", 0.6), ("auto", 0.8)])
def test_two_images_become_one(isa, share):
    g, scratch = tower(), Needs(1, isa).scratch
    out = verify(in_place(g, scratch=scratch))
    assert [(n.op, n.attrs["flip"]) for n in out.nodes if n.op.startswith("depth")] == [
        ("depthwise_plane", 0), ("depthwise_plane", 1)]
    assert peak_bytes(out, scratch) < share * peak_bytes(g, scratch)
    x = np.random.default_rng(1).standard_normal((2, 24, 24, 64)).astype(np.float32)
    got, want = (evaluate(a, {"x": x})[a.outputs[0]] for a in (out, g))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "more", [{"strides": (2, 2)}, {"pads": (0, 0, 2, 0)}, {"groups": 1, "width": 64}])
def test_what_is_not_depthwise_or_not_as_large_stays(more):
    g = tower(**more)
    assert in_place(g) is g


def test_an_image_that_is_read_again_stays():
    assert ops(in_place(tower(again=True))) == ["conv2d", "depthwise_plane"]


@pytest.mark.parametrize("isa", variants(DEPTHWISE_PLANE))
def test_each_sum_is_that_of_the_convolution(isa):
    for sample in DEPTHWISE_PLANE.samples():
        if sample.inputs[0].shape[3] == 1:
            continue  # one channel is no depthwise convolution to `conv2d`
        attrs = dict(sample.attrs)
        inputs = [np.ascontiguousarray(a) for a in sample.inputs]
        op = "conv2d"
        if attrs.pop("flip"):
            if len(inputs) == 3:
                continue  # `conv2d_dx` adds no bias
            op, attrs["in_hw"] = "conv2d_dx", inputs[0].shape[1:3]
        want, got = np.empty_like(inputs[0]), np.empty_like(inputs[0])
        run_kernel(OPS[op], inputs, [want], attrs, isa)
        run_kernel(DEPTHWISE_PLANE, inputs, [got], dict(sample.attrs), isa)
        np.testing.assert_array_equal(got, want)


def test_a_budget_uses_it_and_keeps_every_bit():
    case = ZOO["ds_cnn"]
    options = {"loss": case.loss, "train": el.LoRA(2), "target": "mcu", "batch": 1,
               "entries": ("train",), "optimizer": el.SGD(lr=0.05)}
    free = el.compile(case.build(), **options)
    tight = el.compile(case.build(), budget=int(0.4 * free.plan.ram_bytes), **options)
    assert OPCODES["depthwise_plane"] in [s.opcode for s in tight.table.steps]
    x, y = case.data(case.build())
    one, two = el.Session(free), el.Session(tight)
    for _ in range(3):
        assert one.step(x[:1], y[:1]) == two.step(x[:1], y[:1])
