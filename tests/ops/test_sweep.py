"""Checks that run over every registered operator, so that a new one needs no test file.

infer agrees with reference; each kernel variant agrees with the reference and with the portable
variant; the gradient graph agrees with central differences in float64; records and kernels match
one to one.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.ir import NUMPY_NAME, Graph, Type, Value
from edgeloop.ops import NO_GRAD, OPS, Builder, OpDef, Sample, evaluate
from edgeloop.ops.kernels import OPCODES, TOLERANCE, run_kernel, variants

CODE = {"float32": "f32", "float64": "f32", "int32": "i32", "uint8": "u8", "int8": "i8",
        "float16": "f16", "uint16": "bf16"}
SAMPLES = [
    pytest.param(op, s, id=f"{op.name}-{i}")
    for op in OPS.values()
    for i, s in enumerate(op.samples())
]


def types_of(sample):
    return [
        None if a is None else Type(tuple(np.shape(a)), CODE[np.asarray(a).dtype.name])
        for a in sample.inputs
    ]


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def test_every_record_has_samples():
    assert all(list(op.samples()) for op in OPS.values())


def test_records_and_kernels_match_one_to_one():
    named = {op.kernel for op in OPS.values() if op.kernel}
    assert named == set(OPCODES)


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_infer_agrees_with_reference(op: OpDef, sample):
    types = as_tuple(op.infer(*types_of(sample), **sample.attrs))
    arrays = as_tuple(op.reference(*sample.inputs, **sample.attrs))
    assert [t.shape for t in types] == [np.shape(a) for a in arrays]
    assert [t.dtype for t in types] == [CODE[np.asarray(a).dtype.name] for a in arrays]


def product_scale(op: OpDef, sample, out: int) -> np.ndarray:
    """sum|a*b| for each output element: the reference on absolute values, or the record's own."""
    if op.error is not None:
        exact = [a if a is None or np.asarray(a).dtype.kind != "f" else np.asarray(a, np.float64)
                 for a in sample.inputs]
        return op.error(*exact, **sample.attrs)[out] + 1e-30
    absolute = [
        None if a is None else (np.abs(a) if np.asarray(a).dtype.kind == "f" else a)
        for a in sample.inputs
    ]
    return np.abs(np.asarray(as_tuple(op.reference(*absolute, **sample.attrs))[out])) + 1e-30


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0, np.abs(a - b))


def run(op: OpDef, sample, isa: str, over: int | None = None) -> list[np.ndarray]:
    """Outputs of a kernel; ``over``: the input that the first one is written over."""
    inputs = [None if a is None else np.array(a, order="C") for a in sample.inputs]
    outputs = []
    updated = dict(op.updates)
    types = as_tuple(op.infer(*types_of(sample), **sample.attrs))
    for i, t in enumerate(types):
        fresh = np.full(t.shape, 77, NUMPY_NAME[t.dtype])
        outputs.append(inputs[updated[i]] if i in updated else fresh)
    if over is not None:
        outputs[0] = inputs[over]
    run_kernel(op, inputs, outputs, dict(sample.attrs), isa)
    return outputs


@pytest.mark.parametrize(
    ("op", "sample", "isa"),
    [pytest.param(*p.values, isa, id=f"{p.id}-{isa}")
     for p in SAMPLES if p.values[0].kernel for isa in variants(p.values[0])],
)
def test_kernel_agrees_with_reference(op: OpDef, sample, isa):
    exact = [None if a is None else (a.astype(np.float64) if a.dtype.kind == "f" else a)
             for a in (None if a is None else np.asarray(a) for a in sample.inputs)]
    expected = as_tuple(op.reference(*exact, **sample.attrs))
    got = run(op, sample, isa)
    portable = run(op, sample, "ref")
    eps = float(np.finfo(np.float32).eps)
    for i, (g, e, p) in enumerate(zip(got, expected, portable, strict=True)):
        if g.dtype != np.float32:
            np.testing.assert_array_equal(g, e)
            continue
        tol = TOLERANCE[op.kernel]
        if tol == 0:
            np.testing.assert_array_equal(g.view(np.int32), p.view(np.int32))
            np.testing.assert_allclose(g, e, rtol=2e-6, atol=2e-6)
        else:
            bound = tol * eps * product_scale(op, sample, i)
            assert np.all(distance(g, e) <= bound + 1e-7)
            assert np.all(distance(p, e) <= bound + 1e-7)


IN_PLACE = [
    pytest.param(op, s, over, isa, id=f"{p.id}-{over}-{isa}")
    for p in SAMPLES for op, s in (p.values,) if op.kernel for over in op.inplace
    if over < len(s.inputs) and s.inputs[over] is not None
    and types_of(s)[over] == as_tuple(op.infer(*types_of(s), **s.attrs))[0]
    for isa in variants(op)
]


@pytest.mark.parametrize(("op", "sample", "over", "isa"), IN_PLACE)
def test_a_result_over_an_input_is_the_same(op: OpDef, sample, over, isa):
    for there, apart in zip(run(op, sample, isa, over), run(op, sample, isa), strict=True):
        np.testing.assert_array_equal(there, apart)


def test_every_operator_in_place_is_run_so():
    declared = {op.name for op in OPS.values() if op.kernel and op.inplace}
    assert {p.values[0].name for p in IN_PLACE} == declared


def test_an_operator_that_reads_what_it_wrote_is_caught():
    from edgeloop.ops.depthwise import DEPTHWISE_PLANE

    (x, w), attrs = next(
        (s.inputs, s.attrs) for s in DEPTHWISE_PLANE.samples()
        if s.inputs[0].shape[1] > 1 and len(s.inputs) == 2 and not s.attrs["flip"])
    wrong = Sample((x, w), {k: v for k, v in attrs.items() if k != "flip"})
    with pytest.raises(AssertionError):
        test_a_result_over_an_input_is_the_same(OPS["conv2d"], wrong, 0, "ref")


def gradient_graph(op: OpDef, sample, wrt: set[int]):
    """Build y = op(inputs) and the gradients for `wrt`, with random dy as graph inputs."""
    g = Graph()
    b = Builder(g)
    values: list[Value | None] = []
    for i, t in enumerate(types_of(sample)):
        values.append(None if t is None else b.input(f"x{i}", t))
    outs = b.ops(op.name, *values, **sample.attrs)
    node = g.nodes[-1]
    b = Builder(g, wanted={values[i] for i in wrt})
    dys = [b.input(f"dy{i}", v.type) if v.type.dtype == "f32" and i not in op.kept else None
           for i, v in enumerate(outs)]
    grads = op.grad(b, node, *dys)
    assert len(grads) == len(values), "grad returns one entry per input"
    return g, outs, grads


@pytest.mark.parametrize(
    ("op", "sample"),
    [p for p in SAMPLES if p.values[0].grad is not NO_GRAD and p.values[1].wrt != ()],
)
def test_gradient_agrees_with_central_differences(op: OpDef, sample):
    inputs = [None if a is None else np.asarray(a) for a in sample.inputs]
    floats = [i for i, a in enumerate(inputs) if a is not None and a.dtype.kind == "f"]
    wrt = set(floats if sample.wrt is None else sample.wrt)
    if not wrt:
        return  # integers only: nothing to differentiate
    graph, outs, grads = gradient_graph(op, sample, wrt)
    rng = np.random.default_rng(7)
    feeds = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    dys = {}
    for i, v in enumerate(outs):
        if v.type.dtype == "f32" and i not in op.kept:
            dys[i] = rng.standard_normal(v.type.shape)
            feeds[f"dy{i}"] = dys[i]
    env = evaluate(graph, feeds, dtype=np.float64)

    def loss(args) -> float:
        ys = as_tuple(op.reference(*args, **sample.attrs))
        return float(sum(np.sum(ys[i] * dy) for i, dy in dys.items()))

    args = [a if a is None or a.dtype.kind != "f" else a.astype(np.float64) for a in inputs]
    for i in wrt:
        assert grads[i] is not None, f"no gradient for input {i}"
        got = env[grads[i]]
        assert got.shape == args[i].shape
        flat = args[i].reshape(-1)
        picks = rng.permutation(flat.size)[:12]
        for k in picks:
            h = 1e-5 * max(1.0, abs(flat[k]))
            old = flat[k]
            flat[k] = old + h
            up = loss(args)
            flat[k] = old - h
            down = loss(args)
            flat[k] = old
            want = (up - down) / (2 * h)
            assert got.reshape(-1)[k] == pytest.approx(want, rel=1e-5, abs=1e-6), (i, int(k))


def test_a_wrong_gradient_rule_is_caught():
    """Negative control: a rule that is off by a factor fails the central difference check."""
    import dataclasses

    good = OPS["relu"]
    bad = dataclasses.replace(
        good, grad=lambda g, node, dy: (g.op("mul", dy, g.constant(1.01)),)
    )
    with pytest.raises(AssertionError):
        test_gradient_agrees_with_central_differences(bad, next(iter(good.samples())))
