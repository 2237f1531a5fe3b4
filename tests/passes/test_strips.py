"""strips: rows of an operator's result alone, whole programs in strips, int8 rows between them."""

from __future__ import annotations

import numpy as np
import pytest
from models.forced import in_strips
from models.zoo import ZOO, mobilenet_v2

import edgeloop as el
from edgeloop.ir import Graph, Node, Type, Value, verify
from edgeloop.ops import OPS, Builder, evaluate
from edgeloop.passes import strip_rules
from edgeloop.passes.lifetimes import memory, peak_bytes
from edgeloop.passes.schedule import schedule
from edgeloop.passes.strip_rules import part, reduced, runs_in_strips
from edgeloop.passes.strips import strips
from edgeloop.passes.units import contracted

RULES = strip_rules._RULES
# Operand that is summed into the result of a product over channels.
ACC = {"linear": 3, "linear_dx": 2, "qlinear": 5, "qlinear_dx": 4, "qlinear_i8": 4,
       "qlinear_i8_dx": 3, "qlinear_bf16": 5, "qlinear_bf16_dx": 4}
TALLEST = 9  # rows of an image; each strip of it is tried
CODE = {"float32": "f32", "int32": "i32", "uint8": "u8", "int8": "i8", "float16": "f16",
        "uint16": "bf16"}


def one_image(op: str, sample) -> tuple[list, dict] | None:
    """A sample's operands as one image [1, h, w, c], None where it is something else."""
    arrays = [None if a is None else np.asarray(a) for a in sample.inputs]
    x = arrays[0]
    if op.endswith(("conv2d", "conv2d_i8", "conv2d_dx", "conv2d_i8_dx")):
        return (arrays, dict(sample.attrs)) if x.shape[0] == 1 else None
    if op in ACC:
        for i in (0, ACC[op]):
            if i < len(arrays) and arrays[i] is not None:
                if arrays[i].ndim != 2 or len(arrays[i]) > TALLEST:
                    return None
                arrays[i] = arrays[i].reshape(1, -1, 1, arrays[i].shape[1])
        return arrays, dict(sample.attrs)
    if op == "broadcast_to":
        return [np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)], {"shape": (1, 5, 3, 6)}
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 5, 2, 4)).astype(np.float32)
    if op == "mask_grad":
        return [image, rng.integers(0, 256, 5, np.uint8)], dict(sample.attrs)
    others = [None if a is None else rng.standard_normal(image.shape if k % 2 else (4,)).astype(
        np.float32) for k, a in enumerate(arrays[1:], 1)]
    return [image, *others], dict(sample.attrs)


def whole_and_parts(op: str, operands, attrs, shift: int = 0):
    """Yield the rows of the whole result, and the result of these rows' part."""
    values = [None if a is None else Value(f"x{i}", Type(a.shape, CODE[a.dtype.name]))
              for i, a in enumerate(operands)]
    types = [None if v is None else v.type for v in values]
    out = OPS[op].infer(*types, **attrs)
    n = Node(op, tuple(values), (Value("y", out),), attrs)
    y = OPS[op].reference(*operands, **attrs)
    h = out.shape[1]
    for lo in range(h):
        for hi in range(lo + 1, h + 1):
            p = part(n, lo, hi)
            if p is None:
                continue
            some = list(operands)
            for i, (a, b) in p.rows.items():
                if op == "mask_grad" and i == 1:
                    some[i] = operands[i][a * y[0, 0].size // 8 : -(-b * y[0, 0].size // 8)]
                else:
                    some[i] = operands[i][:, a + shift : b + shift]
            yield y[:, lo:hi], lambda some=some, p=p: OPS[op].reference(*some, **p.attrs)


@pytest.mark.parametrize("op", sorted(RULES))
def test_rows_alone_are_the_rows_of_the_whole(op):
    found = 0
    for sample in OPS[op].samples():
        given = one_image(op, sample)
        if given is None:
            continue
        for want, got in whole_and_parts(op, *given):
            if op in strip_rules.BY_IMAGE:  # rounds strip by strip
                np.testing.assert_allclose(got(), want, atol=0.05 * np.abs(want).max() + 1e-6)
            else:
                np.testing.assert_allclose(got(), want, rtol=1e-5, atol=1e-5)
            found += 1
    assert found > 5


def test_rows_that_are_one_off_are_found():
    sample = list(OPS["conv2d"].samples())[3]
    wrong = 0
    for want, got in whole_and_parts("conv2d", *one_image("conv2d", sample), shift=1):
        try:
            wrong += not np.allclose(got(), want, rtol=1e-5, atol=1e-5)
        except (ValueError, el.EdgeLoopError):  # rows that are not there
            wrong += 1
    assert wrong > 5


@pytest.mark.parametrize("op", ["linear_dw", "conv2d_dw", "col_sum", "reduce_sum"])
def test_sums_over_rows_are_the_sum_of_strips(op):
    rng = np.random.default_rng(1)
    dy, x = (rng.standard_normal((1, 6, 5, c)) for c in (3, 3))
    attrs = {"linear_dw": {"alpha": 0.5}, "reduce_sum": {"axes": (1, 2), "keepdims": 1}}.get(op, {})
    if op == "conv2d_dw":
        attrs = {"kernel": (3, 3), "pads": (1, 1, 1, 1), "groups": 3}
    operands = [dy, x][: 2 if op.endswith("dw") else 1]
    values = tuple(Value(f"x{i}", Type(a.shape)) for i, a in enumerate(operands))
    out = OPS[op].infer(*(v.type for v in values), **attrs)
    n = Node(op, values, (Value("y", out),), attrs)
    total = 0
    for lo, hi in ((0, 1), (1, 4), (4, 6)):
        p = reduced(n, lo, hi)
        some = [a[:, slice(*p.rows[i])] for i, a in enumerate(operands)]
        total = total + OPS[op].reference(*some, **p.attrs)
    np.testing.assert_allclose(total, OPS[op].reference(*operands, **attrs), rtol=1e-12)


def test_operators_that_look_at_whole_images_do_not_run_in_strips():
    y = Value("y", Type((1, 8, 8, 4)))
    norm = Node("group_norm", (Value("x", y.type), None, None), (y,), {"groups": 2})
    assert not runs_in_strips(norm, int8=True)
    several = Value("x", Type((2, 8, 8, 4)))
    assert not runs_in_strips(Node("relu", (several,), (Value("z", several.type),)), int8=True)


def inverted_residual(stride: int = 1) -> Graph:
    """x -> expansion to six times as many channels -> depthwise -> projection, plus x."""
    g = Graph()
    b = Builder(g)
    rng = np.random.default_rng(0)

    def weight(*shape):
        return b.constant(rng.standard_normal(shape).astype(np.float32) / 3)

    x = b.op("relu", b.input("x", Type((1, 16, 16, 8))))
    y = b.op("linear", x, weight(48, 8), weight(48), act=2)
    y = b.op("conv2d", y, weight(48, 3, 3, 1), weight(48), act=2, groups=48, pads=(1, 1, 1, 1),
             strides=(stride, stride))
    y = b.op("linear", y, weight(8, 48))
    if stride == 1:
        y = b.op("add", x, y)
    g.outputs = [b.op("reduce_sum", b.op("sigmoid", y), axes=(1, 2), keepdims=1, out="y")]
    return verify(g)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_an_inverted_residual_expands_is_never_whole(stride):
    g = inverted_residual(stride)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 16, 16, 8)).astype(np.float32)}
    want = evaluate(g, feeds)[g.outputs[0]]
    cut, units = strips(g, strip=3072)
    cut = schedule(verify(cut), units=units)
    np.testing.assert_allclose(evaluate(verify(cut), feeds)[g.outputs[0]], want, rtol=1e-6)
    assert peak_bytes(cut) < 0.45 * peak_bytes(schedule(g))
    assert max(v.type.size for n in cut.nodes for v in n.outputs) < 16 * 16 * 48 / 4
    small, units = strips(g, strip=3072, int8=True)
    small = schedule(verify(small), units=units)
    assert peak_bytes(small) < peak_bytes(cut)
    np.testing.assert_allclose(evaluate(verify(small), feeds)[g.outputs[0]], want, rtol=0.02)


def test_a_run_counts_as_one_node_with_its_insides_as_scratch():
    """x -> [a -> b -> c] -> d: the run reads x, writes c, and a and b are its own."""
    g = Graph()
    b = Builder(g)
    v = b.op("exp", b.input("x", Type((4, 16))))
    for _ in range(3):
        v = b.op("linear", v, b.constant(np.ones((16, 16), np.float32)))
    g.outputs = [b.op("neg", v, out="y")]
    m = memory(g)
    one = contracted(m, [[0], [1, 2, 3], [4]])
    run = one.access[1]
    assert [c for c in run.reads if m.regions[c] == "arena"] == list(m.access[0].writes)
    assert run.writes == m.access[3].writes
    assert run.scratch == 2 * 256
    assert one.access[0] is m.access[0]


def compiled(model, **more) -> el.Program:
    options = {"loss": "cross_entropy", "train": el.LoRA(2), "batch": 1,
               "optimizer": el.SGD(lr=0.02), "entries": ("train",)}
    return el.compile(model, **(options | more))


NETS = ["ds_cnn", "resnet8", "mobilenet_v1", "mobilenet_v2"]
OPTIMIZERS = {"sgd": el.SGD(lr=0.02), "adamw": el.AdamW(lr=1e-3)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_programs_in_strips_learn_the_same(name, optimizer, monkeypatch):
    case = ZOO[name]
    x, y = (a[:1] for a in case.data(case.build()))
    free = compiled(case.build(), optimizer=OPTIMIZERS[optimizer])
    in_strips(monkeypatch, int8=False)
    cut = compiled(case.build(), optimizer=OPTIMIZERS[optimizer])
    assert len(cut.table.steps) > len(free.table.steps)
    one, two = ([s.step(x, y) for _ in range(8)] for s in (el.Session(free), el.Session(cut)))
    np.testing.assert_allclose(two, one, rtol=1e-4)


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("name", NETS)
def test_programs_with_int8_rows_start_alike_and_learn(name, quantize, monkeypatch):
    case = ZOO[name]
    x, y = (a[:1] for a in case.data(case.build()))
    more = {"quantize": quantize, "compute": "int8"} if quantize else {}
    free = compiled(case.build(), **more)
    in_strips(monkeypatch, int8=True)
    small = compiled(case.build(), **more)
    assert small.plan.arena_bytes < 0.75 * free.plan.arena_bytes
    one, two = ([s.step(x, y) for _ in range(40)] for s in (el.Session(free), el.Session(small)))
    np.testing.assert_allclose(two[0], one[0], rtol=0.05)
    assert two[-1] < two[0] - 0.5 * (one[0] - one[-1])


def test_gradients_are_rounded_so_that_their_mean_is_right():
    """Stochastic rounding keeps what nearest loses: elements far below a row's largest."""
    x = np.full((1, 1, 1, 4000), 1e-3, np.float32)
    x[..., 0] = 1
    empty = np.zeros((1, 4004), np.int8)

    def kept(seed: int) -> float:
        q = OPS["pack_i8"].reference(empty, x, seed=seed)
        return float(OPS["unpack_i8"].reference(q, shape=x.shape)[..., 1:].mean())

    assert kept(0) == 0
    assert abs(np.mean([kept(s) for s in range(1, 9)]) - 1e-3) < 5e-5


def test_a_small_budget_takes_strips_and_says_so():
    model = ZOO["ds_cnn"].build()
    free = compiled(model)
    budget = int(0.27 * free.plan.ram_bytes)
    with pytest.raises(el.BudgetError, match=r"allow=.*'int8'"):
        compiled(model, budget=budget, allow=("saved", "state"))
    small = compiled(model, budget=budget)
    assert small.plan.ram_bytes <= budget
    assert "images in strips, activations and gradients between operators in int8" in (
        small.plan.notes[-1])


def test_bytes_of_a_camera_stay_bytes():
    """A uint8 image is read strip by strip, and never whole as floats."""
    model = mobilenet_v2(64, camera=True)
    program = compiled(model, train=el.LastLayers(1), target="mcu",
                       budget="96 KiB", quantize="int8", compute="int8")
    assert program.metadata["inputs"]["x"]["dtype"] == "u8"
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    label = np.zeros(1, np.int32)
    session = el.Session(program)
    first = session.step(image, label)
    assert [session.step(image, label) for _ in range(20)][-1] < first
    with pytest.raises(el.InputError, match=r"0\.\.255"):
        session.step(image.astype(np.int32) + 256, label)
    plain = el.Session(compiled(model, train=el.LastLayers(1)))
    assert abs(plain.step(image, label) - first) < 0.1 * first
