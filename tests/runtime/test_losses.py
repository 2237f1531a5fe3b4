"""Every loss through a session: values by hand, PyTorch beside it, several targets and outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el

WIDTH, OUT, BATCH = 3, 4, 6
FLOAT = TensorProto.FLOAT


def proto(nodes, inputs, outputs, weights=()) -> onnx.ModelProto:
    info = [[helper.make_tensor_value_info(n, t, s) for n, t, s in part]
            for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *info, [
        numpy_helper.from_array(np.asarray(a, "f4"), n) for n, a in weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def model(outputs: int = 1) -> onnx.ModelProto:
    """y = tanh(x w) * 2, or several such outputs y0, y1, .. of inputs x0, x1, .. by the same w."""
    w = np.random.default_rng(3).standard_normal((WIDTH, OUT))
    tails = [""] if outputs == 1 else [str(i) for i in range(outputs)]
    nodes = []
    for t in tails:
        nodes += [helper.make_node("MatMul", [f"x{t}", "fc.weight"], [f"h{t}"], f"fc{t}"),
                  helper.make_node("Tanh", [f"h{t}"], [f"t{t}"], f"tanh{t}"),
                  helper.make_node("Mul", [f"t{t}", "two"], [f"y{t}"], f"mul{t}")]
    return proto(nodes, [(f"x{t}", FLOAT, ["batch", WIDTH]) for t in tails],
                 [(f"y{t}", FLOAT, ["batch", OUT]) for t in tails],
                 [("fc.weight", w), ("two", 2.0)])


def session(loss, outputs: int = 1, batch: int = BATCH):
    return el.Session(el.compile(
        model(outputs), loss=loss, train=el.Full(), batch=batch, optimizer=el.SGD(lr=0.0),
        entries=("train", "eval", "grad", "predict")))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cosine(a, b, t, margin=0.0):
    cos = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(t > 0, 1 - cos, np.maximum(0, cos - margin))


def triplet(a, p, n, margin=1.0, norm=2):
    near, far = (np.linalg.norm(a - v + 1e-6, norm, axis=1) for v in (p, n))
    return np.maximum(0, near - far + margin)


def huber(y, t, delta):
    d = np.abs(y - t)
    return np.where(d <= delta, d * d / 2, delta * (d - delta / 2)).mean(1)


def bce(y, t, w):
    p = 1 / (1 + np.exp(-y))
    return -(w * t * np.log(p) + (1 - t) * np.log(1 - p)).mean(1)


def distilled(y, labels, teacher, temperature, alpha):
    q, p = softmax(teacher / temperature), softmax(y / temperature)
    kl = temperature**2 * (q * np.log(q / p)).sum(1)
    hard = -np.log(softmax(y)[np.arange(len(y)), labels])
    return alpha * kl + (1 - alpha) * hard


W = (0.5, 1.0, 2.0, 4.0)
# loss, targets: f(rng) -> y, rows(y, targets) -> loss of each row
CASES = {
    "mse": (el.loss.MSE(), lambda r: r.standard_normal((BATCH, OUT)),
            lambda y, t: ((y - t) ** 2).mean(1)),
    "l1": (el.loss.L1(), lambda r: r.standard_normal((BATCH, OUT)),
           lambda y, t: np.abs(y - t).mean(1)),
    "huber": (el.loss.Huber(delta=0.7), lambda r: r.standard_normal((BATCH, OUT)),
              lambda y, t: huber(y, t, 0.7)),
    "bce": (el.loss.BCE(), lambda r: r.uniform(0, 1, (BATCH, OUT)), lambda y, t: bce(y, t, 1)),
    "bce weighted": (el.loss.BCE(pos_weight=W), lambda r: r.uniform(0, 1, (BATCH, OUT)),
                     lambda y, t: bce(y, t, np.array(W))),
    "bce weight": (el.loss.BCE(pos_weight=3), lambda r: r.uniform(0, 1, (BATCH, OUT)),
                   lambda y, t: bce(y, t, 3)),
    "distillation": (
        el.loss.Distillation(temperature=3, alpha=0.3),
        lambda r: {"labels": r.integers(0, OUT, BATCH),
                   "teacher": r.standard_normal((BATCH, OUT))},
        lambda y, t: distilled(y, t["labels"], t["teacher"], 3, 0.3)),
    "teacher alone": (
        el.loss.Distillation(temperature=2, alpha=1), lambda r: r.standard_normal((BATCH, OUT)),
        lambda y, t: distilled(y, np.zeros(BATCH, int), t, 2, 1)),
    "cosine rows": (
        el.loss.CosineEmbedding(margin=0.1), lambda r: np.array([1.0, 1, -1, -1, -1, -1]),
        lambda y, t: np.repeat(cosine(y[::2], y[1::2], t[::2], 0.1), 2)),
    "triplet rows": (
        el.loss.Triplet(margin=2), lambda r: None,
        lambda y, t: np.repeat(triplet(y[::3], y[1::3], y[2::3], 2), 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_values_by_hand(case):
    loss, make, rows = CASES[case]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((BATCH, WIDTH)), make(rng)
    s = session(loss)
    each = rows(s.predict(x).astype(float), y)
    assert s.step(x, y) == pytest.approx(each.mean(), rel=1e-5)
    weight = np.array([2, 2, 2, 0.5, 0.5, 0.5]) if "rows" in case else np.arange(6) / 2
    want = (weight * each).sum() / weight.sum()
    assert s.step(x, y, weight) == pytest.approx(want, rel=1e-5)
    assert s.evaluate(x, y, weight)[0] == pytest.approx(want, rel=1e-5)
    # padding: the same rows in a larger batch, and evaluate over two runs
    assert session(loss, batch=12).step(x, y, weight) == pytest.approx(want, rel=1e-5)
    if "triplet" not in case:
        assert session(loss, batch=4).evaluate(x, y, weight)[0] == pytest.approx(want, rel=1e-5)


def test_losses_over_several_outputs():
    rng = np.random.default_rng(2)
    x = {f"x{i}": rng.standard_normal((5, WIDTH)) for i in range(3)}
    s = session(el.loss.Triplet(p=1, outputs=("y2", "y0", "y1")), 3)
    y = s.predict(x)
    want = triplet(y["y2"], y["y0"], y["y1"], norm=1).mean()
    assert s.step(x) == pytest.approx(want, rel=1e-5)
    t = np.array([1, -1, 1, -1, -1.0])
    s = session(el.loss.CosineEmbedding(), 3)
    assert s.step(x, t) == pytest.approx(cosine(y["y0"], y["y1"], t).mean(), rel=1e-5)
    s = session(el.loss.L1(output="y1"), 3)
    assert s.step(x, y["y1"] + 0.5) == pytest.approx(0.5, rel=1e-5)


def test_tokens_are_distilled_where_their_labels_count():
    w = np.random.default_rng(3).standard_normal((WIDTH, OUT))
    m = proto([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
              [("x", FLOAT, ["batch", 5, WIDTH])], [("y", FLOAT, ["batch", 5, OUT])], [("w", w)])
    s = el.Session(el.compile(
        m, loss=el.loss.Distillation(temperature=2, alpha=0.4, shift=1, ignore_index=-1),
        train=el.Full(), batch=2, optimizer=el.SGD(lr=0.0)))
    rng = np.random.default_rng(1)
    x, teacher = rng.standard_normal((2, 5, WIDTH)), rng.standard_normal((2, 5, OUT))
    labels = rng.integers(0, OUT, (2, 5))
    labels[0, 2] = -1
    counts = labels[:, 1:] >= 0
    each = distilled(s.predict(x)[:, :-1][counts].astype(float), labels[:, 1:][counts],
                     teacher[:, :-1][counts], 2, 0.4)
    y = {"labels": labels, "teacher": teacher}
    assert s.step(x, y) == pytest.approx(each.mean(), rel=1e-5)
    loss, metrics = s.evaluate(x, y)
    assert loss == pytest.approx(each.mean(), rel=1e-5)
    assert set(metrics) == {"accuracy"}  # the loss is no mean of -log p


@pytest.mark.parametrize(("loss", "y", "n", "message"), [
    (el.loss.CosineEmbedding(), [1.0, 1, 0.5, 1], 4, "'targets' must be 1"),
    (el.loss.CosineEmbedding(), [1.0, 1, 1], 3, "3 rows; the loss takes groups of 2"),
    (el.loss.Triplet(), None, 4, "4 rows; the loss takes groups of 3"),
    (el.loss.Triplet(), [1.0, 1, 1], 3, "has no targets"),
    (el.loss.MSE(), None, 3, "needs targets: pass y"),
    (el.loss.Distillation(), [0, 1], 2, "the loss has 2 targets; pass a dict"),
    (el.loss.Distillation(), {"labels": [0, 1]}, 2, r"targets are .*; the loss has"),
    (el.loss.BCE(pos_weight=2), np.full((2, OUT), 2.0), 2, "bce needs 0 to 1"),
])
def test_targets_that_do_not_fit(loss, y, n, message):
    with pytest.raises(el.InputError, match=message):
        session(loss).step(np.ones((n, WIDTH)), y)


@pytest.mark.parametrize(("loss", "message"), [
    (el.loss.Triplet(outputs=("y", "z", "y")), r"no output \['z'\]"),
    (el.loss.BCE(pos_weight=(1, 2)), "2 pos_weight for an output whose last axis is 4"),
])
def test_losses_that_do_not_fit_the_model(loss, message):
    with pytest.raises(el.CompileError, match=message):
        session(loss)
    with pytest.raises(el.CompileError, match="groups of 3 neighbouring rows, batch=4"):
        session(el.loss.Triplet(), batch=4)


@pytest.mark.parametrize(("record", "fields", "message"), [
    (el.loss.Huber, {"delta": 0}, "delta=0"),
    (el.loss.Triplet, {"p": 3}, "norm 1 or 2"),
    (el.loss.Triplet, {"outputs": ("a",)}, "name 3 outputs"),
    (el.loss.CosineEmbedding, {"margin": 2}, "from -1 to 1"),
    (el.loss.Distillation, {"temperature": 0}, "temperature=0"),
    (el.loss.Distillation, {"alpha": 1, "shift": 1}, "no labels to ignore or to shift"),
    (el.loss.BCE, {"pos_weight": (-1.0,)}, "pos_weight=-1.0"),
])
def test_what_makes_no_sense(record, fields, message):
    with pytest.raises(el.CompileError, match=message):
        record(**fields)


def own(kind: str) -> onnx.ModelProto:
    """Weighted squared error as a user writes it: of each row, or one number."""
    nodes = [helper.make_node("Sub", ["y", "wanted"], ["d"]),
             helper.make_node("Mul", ["d", "d"], ["d2"]),
             helper.make_node("Mul", ["d2", "importance"], ["each"])]
    if kind == "rows":
        nodes.append(helper.make_node("ReduceMean", ["each"], ["loss"], axes=[1], keepdims=0))
    else:
        nodes.append(helper.make_node("ReduceMean", ["each"], ["loss"], keepdims=0))
    return proto(nodes, [("y", FLOAT, ["n", OUT]), ("wanted", FLOAT, ["n", OUT]),
                         ("importance", FLOAT, ["n", 1])],
                 [("loss", FLOAT, ["n"] if kind == "rows" else [])])


@pytest.mark.parametrize("kind", ["rows", "one number"])
def test_own_loss_as_onnx(kind, tmp_path):
    path = tmp_path / "loss.onnx"
    onnx.save(own(kind), path)
    rng = np.random.default_rng(4)
    x, wanted = rng.standard_normal((BATCH, WIDTH)), rng.standard_normal((BATCH, OUT))
    y = {"wanted": wanted, "importance": rng.uniform(1, 2, (BATCH, 1))}
    s = session(el.loss.Onnx(path))
    each = ((s.predict(x) - wanted) ** 2 * y["importance"]).mean(1)
    assert s.step(x, y) == pytest.approx(each.mean(), rel=1e-5)
    assert s.evaluate(x, y) == (pytest.approx(each.mean(), rel=1e-5), {})
    part = {k: v[:2] for k, v in y.items()}
    if kind == "rows":
        assert s.step(x[:2], part) == pytest.approx(each[:2].mean(), rel=1e-5)
        assert s.step(x, y, [1, 0, 0, 0, 0, 3]) == pytest.approx((each[0] + 3 * each[5]) / 4)
    else:
        with pytest.raises(el.InputError, match="2 rows; the loss is one number for a whole batch"):
            s.step(x[:2], part)
        with pytest.raises(el.InputError, match="takes no sample_weight"):
            s.step(x, y, np.ones(BATCH))
    reloaded = el.Program.from_bytes(s.program.to_bytes())
    assert el.Session(reloaded).step(x, y) == pytest.approx(each.mean(), rel=1e-5)


def test_own_losses_that_do_not_fit():
    elsewhere = proto([helper.make_node("Neg", ["z"], ["loss"])],
                      [("z", FLOAT, ["n", OUT])], [("loss", FLOAT, ["n", OUT])])
    with pytest.raises(el.CompileError, match=r"none of its inputs .* is an output of the model"):
        session(el.loss.Onnx(elsewhere))
    narrow = proto([helper.make_node("Neg", ["y"], ["loss"])],
                   [("y", FLOAT, ["n", 2])], [("loss", FLOAT, ["n", 2])])
    with pytest.raises(el.CompileError, match=r"input 'y' is f32\[6,2\], the model's output is"):
        session(el.loss.Onnx(narrow))


def torch_loss(case, y, t):
    import torch
    from torch.nn import functional as F  # noqa: N812

    if case in ("mse", "l1"):
        return (F.mse_loss if case == "mse" else F.l1_loss)(y, t)
    if case == "huber":
        return F.huber_loss(y, t, delta=0.7)
    if case.startswith("bce"):
        weight = {"bce": 1.0, "bce weight": 3.0}.get(case, W)
        return F.binary_cross_entropy_with_logits(y, t, pos_weight=torch.tensor(weight))
    if case == "cosine rows":
        return F.cosine_embedding_loss(y[::2], y[1::2], t[::2], margin=0.1)
    if case == "triplet rows":
        return F.triplet_margin_loss(y[::3], y[1::3], y[2::3], margin=2)
    heat, alpha = (3, 0.3) if case == "distillation" else (2, 1)
    teacher = t["teacher"] if alpha < 1 else t
    kl = F.kl_div(F.log_softmax(y / heat, 1), F.softmax(teacher / heat, 1), reduction="batchmean")
    hard = F.cross_entropy(y, t["labels"]) if alpha < 1 else 0
    return alpha * heat**2 * kl + (1 - alpha) * hard


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_pytorch(case):
    import torch

    loss, make, _ = CASES[case]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((BATCH, WIDTH)).astype("f4"), make(rng)
    s = session(loss)
    w = torch.tensor(s.adapter()["fc.weight"], requires_grad=True)
    w_ = w.T if w.shape[0] == OUT else w

    def tensor(a):
        return torch.tensor(a if a.dtype.kind == "i" else a.astype("f4"))

    t = {k: tensor(v) for k, v in y.items()} if isinstance(y, dict) else (
        None if y is None else tensor(y))
    want = torch_loss(case, 2 * torch.tanh(torch.tensor(x) @ w_), t)
    want.backward()
    assert s.step(x, y) == pytest.approx(want.item(), rel=1e-5)
    np.testing.assert_allclose(
        s.gradients(x, y)["fc.weight"], w.grad.numpy(), rtol=1e-4, atol=1e-6)
