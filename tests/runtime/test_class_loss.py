"""Cross-entropy through a session: per token, dense labels, weights, what is ignored, padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el

CLASSES, WIDTH = 5, 3
# name: (shape of x, ONNX nodes, shape of the logits, shape of the labels)
KINDS = {
    "rows": ((4, WIDTH), "MatMul", (4, CLASSES), (4,)),
    "tokens": ((4, 6, WIDTH), "MatMul", (4, 6, CLASSES), (4, 6)),
    "pixels": ((4, WIDTH, 2, 3), "Conv", (4, CLASSES, 2, 3), (4, 2, 3)),
}


def model(kind: str) -> onnx.ModelProto:
    shape, op, logits, _ = KINDS[kind]
    rng = np.random.default_rng(3)
    w = rng.standard_normal((WIDTH, CLASSES)).astype("f4")
    if op == "Conv":
        w = w.T.reshape(CLASSES, WIDTH, 1, 1)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "head.weight"], ["logits"], "head")], "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape[1:]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *logits[1:]])],
        [numpy_helper.from_array(w, "head.weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def compiled(kind: str, batch: int = 4, entries=("train", "eval", "predict", "grad"), **loss):
    return el.Session(el.compile(
        model(kind), loss=el.loss.CrossEntropy(**loss), train=el.Full(), batch=batch,
        optimizer=el.SGD(lr=0.0), entries=entries))


def data(kind: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    shape, *_, labels = KINDS[kind]
    return rng.standard_normal(shape).astype("f4"), rng.integers(0, CLASSES, labels)


WEIGHTS = (0.5, 2.0, 0.0, 1.0, 1.5)
OPTIONS = {
    "plain": {},
    "ignored": {"ignore_index": -100},
    "a class": {"ignore_index": 2},
    "smooth": {"label_smoothing": 0.2, "ignore_index": -100},
    "weighted": {"class_weights": WEIGHTS},
    "everything": {"class_weights": WEIGHTS, "label_smoothing": 0.1, "ignore_index": -100},
}
CASES = [(k, o) for k in KINDS for o in OPTIONS] + [("tokens", "shift"), ("tokens", "shift -100")]
OPTIONS |= {"shift": {"shift": 1}, "shift -100": {"shift": 1, "ignore_index": -100}}


def labelled(kind: str, option: str):
    x, y = data(kind)
    if OPTIONS[option].get("ignore_index") == -100:
        y.reshape(-1)[[1, 2]] = -100
    return x, y


def by_hand(logits, y, class_weights=None, label_smoothing=0.0, ignore_index=None, shift=0):
    """(sum of losses, sum of label weights) of each row, written as sums of one label each."""
    if logits.ndim == 4:
        logits = logits.transpose(0, 2, 3, 1)
    if shift:
        logits, y = logits[:, :-1], y[:, 1:]
    w = np.ones(CLASSES) if class_weights is None else np.array(class_weights)
    out = np.zeros((len(y), 2))
    for at, label in np.ndenumerate(y):
        if label == ignore_index:
            continue
        logp = logits[at] - np.log(np.exp(logits[at].astype(float)).sum())
        out[at[0]] += [
            -(1 - label_smoothing) * w[label] * logp[label]
            - label_smoothing / CLASSES * (w * logp).sum(), w[label]]
    return out


@pytest.mark.parametrize(("kind", "option"), CASES)
def test_the_loss_is_the_mean_over_what_counts(kind, option):
    x, y = labelled(kind, option)
    s = compiled(kind, **OPTIONS[option])
    rows = by_hand(s.predict(x), y, **OPTIONS[option])
    want = rows[:, 0].sum() / rows[:, 1].sum()
    assert s.step(x, y) == pytest.approx(want, rel=1e-5)
    assert s.evaluate(x, y)[0] == pytest.approx(want, rel=1e-5)
    weight = np.array([0.5, 2, 0, 1])
    weighted = (weight * rows[:, 0]).sum() / (weight * rows[:, 1]).sum()
    assert s.step(x, y, weight) == pytest.approx(weighted, rel=1e-5)
    # evaluate over several runs, the last one partial, is the mean over all labels that count
    small = compiled(kind, batch=3, **OPTIONS[option])
    assert small.evaluate(x, y, weight)[0] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize("option", ["everything", "shift -100"])
def test_partial_batches_are_exact(option):
    x, y = labelled("tokens", option)
    whole = compiled("tokens", batch=2, **OPTIONS[option])
    padded = compiled("tokens", batch=7, **OPTIONS[option])
    assert padded.step(x[:2], y[:2]) == pytest.approx(whole.step(x[:2], y[:2]), rel=1e-6)
    a, b = whole.gradients(x[:2], y[:2]), padded.gradients(x[:2], y[:2])
    np.testing.assert_allclose(a["head.weight"], b["head.weight"], rtol=1e-5, atol=1e-7)


def test_accuracy_and_perplexity_are_over_counted_tokens():
    x, y = data("tokens")
    s = compiled("tokens", shift=1, ignore_index=-100)
    y[:, 1:] = s.predict(x).argmax(-1)[:, :-1]
    y[0, 3] = (y[0, 3] + 1) % CLASSES  # one wrong
    y[1, 1:4] = -100
    loss, metrics = s.evaluate(x, y)
    assert metrics["accuracy"] == pytest.approx(16 / 17)
    assert metrics["perplexity"] == pytest.approx(np.exp(loss))
    assert "perplexity" not in compiled("rows").evaluate(*data("rows"))[1]
    _, dense = compiled("pixels").evaluate(*data("pixels"))
    assert 0 <= dense["accuracy"] <= 1


@pytest.mark.parametrize(("kind", "option", "label", "message"), [
    ("tokens", "plain", -100, r"'labels' is -100 at row 1, position \[2\]; it must be in 0\.\.4$"),
    ("tokens", "ignored", 5, r"5 at row 1, position \[2\]; it must be in 0\.\.4, or -100"),
    ("tokens", "ignored", -1, "'labels' is -1"),
])
def test_wrong_labels_are_refused(kind, option, label, message):
    x, y = data(kind)
    y[1, 2] = label
    with pytest.raises(el.InputError, match=message):
        compiled(kind, **OPTIONS[option]).step(x, y)


def test_a_batch_in_which_nothing_counts_is_refused():
    x, y = data("tokens")
    with pytest.raises(el.InputError, match="no label in 'labels' counts"):
        compiled("tokens", ignore_index=-100).step(x, np.full_like(y, -100))


@pytest.mark.parametrize(("kind", "loss", "message"), [
    ("rows", {"class_weights": (1, 2)}, "2 class weights for 5 classes"),
    ("rows", {"shift": 1}, r"shift=1 needs an output \[batch, sequence, classes\]"),
    ("tokens", {"axis": 0}, "axis=0 is no class axis"),
    ("tokens", {"output": "z"}, r"no output 'z'; it has \['logits'\]"),
])
def test_what_does_not_fit_the_model(kind, loss, message):
    with pytest.raises(el.CompileError, match=message):
        compiled(kind, **loss)


@pytest.mark.parametrize(("loss", "message"), [
    ({"label_smoothing": 2}, "label_smoothing=2; it must be a number from 0 to 1"),
    ({"class_weights": (-1, 1)}, "class_weights=-1.0"),
    ({"class_weights": (0, 0)}, "all 0"),
    ({"ignore_index": 1.5}, "ignore_index=1.5"),
    ({"shift": 2}, "shift=2"),
])
def test_what_makes_no_sense(loss, message):
    with pytest.raises(el.CompileError, match=message):
        el.loss.CrossEntropy(**loss)


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "option"), CASES)
def test_loss_and_gradient_equal_pytorch(kind, option):
    import torch

    fields = dict(OPTIONS[option])
    x, y = labelled(kind, option)
    s = compiled(kind, **fields)
    w = torch.tensor(s.adapter()["head.weight"].reshape(CLASSES, WIDTH), requires_grad=True)
    flat = torch.tensor(x).movedim(1, -1) if kind == "pixels" else torch.tensor(x)
    logits, labels = (flat @ w.T).movedim(-1, 1), torch.tensor(y)
    if fields.pop("shift", 0):
        logits, labels = logits[:, :, :-1], labels[:, 1:]
    weights = fields.get("class_weights")
    loss = torch.nn.CrossEntropyLoss(
        None if weights is None else torch.tensor(weights),
        ignore_index=fields.get("ignore_index", -100),
        label_smoothing=fields.get("label_smoothing", 0.0),
    )(logits, labels)
    loss.backward()
    assert s.step(x, y) == pytest.approx(loss.item(), rel=1e-5)
    got = s.gradients(x, y)["head.weight"].reshape(CLASSES, WIDTH)
    np.testing.assert_allclose(got, w.grad.numpy(), rtol=1e-4, atol=1e-6)
