"""Every gradient, loss and optimizer against PyTorch.

Gradient graphs are evaluated in float64 and compared with torch.autograd in float64, on the samples
of each record. Optimizers run their C kernels beside torch.optim.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.ops.test_sweep import gradient_graph

from edgeloop.ops import NO_GRAD, OPS, OpDef, evaluate
from edgeloop.ops.kernels import isas, run_kernel

pytestmark = pytest.mark.oracle

OPTIMIZERS = {"sgd_update", "momentum_update", "adam_tick", "adamw_update", "linear_sgd"}
NO_COUNTERPART = {
    "batch_norm": "always folded into multiplications before differentiation",
    "cast": "no float comes out where a float goes in",
    "dropout": "its mask comes from a generator of our own",
    "detach": "stops gradients, as its name says; tests/passes/test_dora.py",
    "compare": "no float comes out", "integer": "no float comes out",
    "argmax": "no float comes out",
    "equal": "only inside the gradients of maximum, minimum and reduce_max",
    "accumulate": "sums gradients over micro-batches; tests/passes/test_gradient_entries.py",
    "zero_": "clears what was accumulated",
    "merge_codes": "int8 codes come out; tests/test_merged.py",
    "from_codes": "codes go in; tests/test_merged.py",
    "quant_range": "ONNX's DynamicQuantizeLinear, compared with onnxruntime",
    "linear_cross_entropy_both": "put in after differentiation; tests/passes/test_join_head.py",
    "counted": "says which labels count; no float goes in",
    "norm_sq": "a plain sum of squares that the loop watches",
    "adafactor_update": "tests/ops/test_adafactor.py",
    "adafactor_vector": "tests/ops/test_adafactor.py",
    "adamw8_update": "the map is compared in tests/ops/test_optim8.py",
    "lion_update": "torch.optim has no Lion; its reference is the paper's",
    "lion8_update": "as lion_update",
    "fetch": "brings bytes of the file; tests/runtime/test_streaming.py",
    **dict.fromkeys(("qhead", "qhead_dx", "qhead_loss"),
                    "put in after differentiation; tests/passes/test_part_heads.py"),
    **dict.fromkeys(("pack_mask", "mask_grad", "pack_f16", "unpack_f16", "max_pool2d_tap",
                     "max_pool2d_tap_grad"),
                    "put in after differentiation; tests/passes/test_keep_small.py"),
    "depthwise_plane": "put in after differentiation; tests/passes/test_in_place.py",
    **dict.fromkeys(("blank", "take_rows", "put_rows", "pack_i8", "unpack_i8"),
                    "put in after differentiation; tests/passes/test_strips.py"),
    **{n: "over codes of a frozen weight, put in after differentiation; tests/test_quantize.py"
       for n in OPS if n.startswith(("qlinear", "qconv2d", "qgather"))},
}


def differentiated(op: OpDef, sample) -> set[int]:
    """Every float input, also where central differences would meet a kink; not targets, angles."""
    if op.name.endswith(("_entropy", "_loss", "fake_quant", "rotary", "interpolate")):
        return {0, 2} if op.name == "linear_cross_entropy" else {0}
    arrays = [None if a is None else np.asarray(a) for a in sample.inputs]
    return {i for i, a in enumerate(arrays) if a is not None and a.dtype.kind == "f"}


SAMPLES = [
    pytest.param(op, s, id=f"{op.name}-{i}")
    for op in OPS.values() if op.grad is not NO_GRAD and op.name not in NO_COUNTERPART
    for i, s in enumerate(op.samples())
    if differentiated(op, s) and not s.attrs.get("act")  # act is fused after differentiation
]


def compare(op: OpDef, sample) -> None:
    import torch
    from tests.ops.torch_table import TABLE

    wrt = differentiated(op, sample)
    graph, outs, grads = gradient_graph(op, sample, wrt)
    arrays = [None if a is None else np.asarray(a) for a in sample.inputs]
    tensors = [None if a is None else torch.tensor(a.astype(np.float64) if a.dtype.kind == "f"
                                                   else a, requires_grad=i in wrt)
               for i, a in enumerate(arrays)]
    ys = TABLE[op.name](*tensors, **sample.attrs)
    ys = ys if isinstance(ys, tuple) else (ys,)
    rng = np.random.default_rng(7)
    seen = [i for i in range(len(outs)) if i not in op.kept]
    outs = [outs[i] for i in seen]
    dys = [rng.standard_normal(v.type.shape) for v in outs]
    feeds = {f"x{i}": a for i, a in enumerate(arrays) if a is not None}
    feeds |= {f"dy{i}": d for i, d in zip(seen, dys, strict=True)}
    torch.autograd.backward(ys, [torch.tensor(d).reshape(y.shape)
                                 for d, y in zip(dys, ys, strict=True)])
    env = evaluate(graph, feeds, dtype=np.float64)
    pairs = [(env[v], y.detach().reshape(v.type.shape)) for v, y in zip(outs, ys, strict=True)]
    pairs += [(env[grads[i]], tensors[i].grad) for i in sorted(wrt)]
    for got, want in pairs:
        assert got.shape == tuple(want.shape)
        want = want.numpy()  # noqa: PLW2901
        size = float(np.abs(want[np.isfinite(want)]).max(initial=0))
        # Constants in graphs are float32: 1 / n and 2 / sqrt(pi) are off by 6e-8.
        np.testing.assert_allclose(got, want, rtol=2e-7, atol=2e-7 * size)


def test_every_operator_is_compared_or_has_a_reason():
    from tests.ops.torch_table import TABLE

    inside = set()
    for p in SAMPLES:
        op, sample = p.values
        graph, _, _ = gradient_graph(op, sample, differentiated(op, sample))
        inside |= {n.op for n in graph.nodes}
    backward = {n for n in inside if OPS[n].grad is NO_GRAD}
    listed = [*TABLE, *OPTIMIZERS, *NO_COUNTERPART]
    assert set(OPS) == {*listed, *backward}
    assert len(listed) == len(set(listed))
    differentiable = {n for n, op in OPS.items() if op.grad is not NO_GRAD}
    assert differentiable - set(NO_COUNTERPART) == set(TABLE)


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_gradient_equals_autograd(op: OpDef, sample):
    compare(op, sample)


def test_a_wrong_function_is_caught(monkeypatch):
    """Negative control: a slope that is off by a millionth fails."""
    from tests.ops.torch_table import TABLE

    relu = TABLE["relu"]
    monkeypatch.setitem(TABLE, "relu", lambda x: relu(x) + 1e-6 * (x - x.detach()))
    with pytest.raises(AssertionError):
        compare(OPS["relu"], next(iter(OPS["relu"].samples())))


def call(name: str, isa: str, updated: list[np.ndarray], *rest) -> None:
    """Run an update kernel in place; numbers become scalars [1], and ``ok`` says go on."""
    arrays = [np.array([a], np.float32) if isinstance(a, float) else a for a in (*rest, 0.5)]
    run_kernel(OPS[name], [*updated, *arrays], updated, {}, isa)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "linear_sgd"])
def test_five_steps_equal_torch_optim(name, isa):
    import torch

    rng = np.random.default_rng(5)
    shape, lr, wd = (7, 33), 0.03, 0.1
    w = rng.standard_normal(shape).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(w))
    m, v = np.zeros_like(w), np.zeros_like(w)
    powers = np.ones(2, np.float32)
    optimizer = (
        torch.optim.AdamW([theirs], lr, (0.9, 0.99), 1e-6, wd) if name == "adamw"
        else torch.optim.SGD([theirs], lr, 0.9 if name == "momentum" else 0.0, weight_decay=wd)
    )
    for _ in range(5):
        dy, x = (rng.standard_normal((4, n)).astype(np.float32) for n in shape)
        g = dy.T @ x
        theirs.grad = torch.tensor(g)
        optimizer.step()
        if name == "sgd":
            call("sgd_update", isa, [w], g, lr, wd)
        elif name == "linear_sgd":
            call("linear_sgd", isa, [w], dy, x, lr, wd)
        elif name == "momentum":
            call("momentum_update", isa, [w, m], g, lr, wd, 0.9)
        else:
            call("adam_tick", isa, [powers], 0.9, 0.99)
            call("adamw_update", isa, [w, m, v], g, powers, lr, wd, 0.9, 0.99, 1e-6)
        np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
