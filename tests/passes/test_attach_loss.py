"""attach_loss: what it takes off the model's end, and which inputs it adds."""

from __future__ import annotations

import pytest
from tests.passes.text import graph, shown, text

from edgeloop.errors import CompileError
from edgeloop.loss import BCE, MSE, CrossEntropy
from edgeloop.passes.attach_loss import attach_loss

NET = "input x : f32[2,3]\nconst w : f32[4,3]\nh = linear(x, w)  # fc\n"


@pytest.mark.parametrize(("end", "loss", "reads"), [
    ("y = softmax(h)", CrossEntropy(), "h"),
    ("y = log_softmax(h)", CrossEntropy(), "h"),
    ("p = softmax(h)\ny = identity(p)", CrossEntropy(), "h"),
    ("y = relu(h)", CrossEntropy(), "y"),
    ("y = sigmoid(h)", BCE(), "h"),
    ("y = sigmoid(h)", MSE(), "y"),
])
def test_probabilities_train_on_their_logits(end, loss, reads):
    before = graph(f"{NET}{end}\noutput y")
    made = attach_loss(before, loss)
    node = made.graph.producers()[made.loss]
    if node.op == "weighted_loss":
        node = made.graph.producers()[node.inputs[0]]
    assert node.inputs[0].name == reads
    assert [v.name for v in made.graph.outputs] == ["y"]  # what the model says stays


def test_before_and_after():
    made = attach_loss(graph(NET + "y = softmax(h)\noutput y"), CrossEntropy())
    assert text(made.graph) == shown("""
        input x : f32[2,3]
        input labels : i32[2]
        input sample_weight : f32[2]
        input norm : f32[1]
        const w : f32[4,3]
        h = linear(x, w) : f32[2,4] # fc
        y = softmax(h) : f32[2,4]
        loss, loss.1 = softmax_cross_entropy(h, labels, sample_weight, norm) : """
        "f32[1], f32[2,4] # loss\noutput y")
    assert (made.targets[0].name, made.loss.name) == ("labels", "loss")
    targets = attach_loss(graph(NET + "y = tanh(h)\noutput y"), MSE()).targets[0]
    assert (targets.name, targets.type.shape) == ("targets", (2, 4))


def test_rows_are_steps_of_their_own_where_there_are_many_or_not_all_count():
    loss = CrossEntropy(ignore_index=-100, label_smoothing=0.5)
    tail = """
        losses, losses.1 = cross_entropy(h, labels) {ignore=-100 shift=0 smoothing=0.5} """
    tail += """: f32[2], f32[2] # loss
        loss = weighted_loss(losses, sample_weight, norm) : f32[1] # loss
        output y"""
    assert text(attach_loss(graph(NET + "y = softmax(h)\noutput y"), loss).graph).endswith(
        shown(tail))
    many = graph("input x : f32[32,1024]\noutput x")
    assert attach_loss(many, CrossEntropy()).graph.nodes[0].op == "cross_entropy"


def test_images_are_read_where_their_classes_are_last():
    nchw = "input x : f32[2,3,4,5]\nt = softmax(x)\ny = transpose(t) {perm=[0,3,1,2]}\noutput y"
    made = attach_loss(graph(nchw), CrossEntropy())
    assert [n.op for n in made.graph.nodes] == [
        "softmax", "transpose", "cross_entropy", "weighted_loss"]
    assert made.graph.nodes[2].inputs[0].name == "x"
    assert made.targets[0].type.shape == (2, 3, 4)


def test_outputs_that_fit_no_loss():
    with pytest.raises(CompileError, match=r"needs an output \[batch, .., classes\]; 'x' is"):
        attach_loss(graph("input x : f32[2]\noutput x"), CrossEntropy())
    with pytest.raises(CompileError, match=r"mse needs an output \[batch, ...\]"):
        attach_loss(graph("input x : f32[2]\noutput x"), MSE())


@pytest.mark.parametrize(("end", "loss", "fits"), [
    ("sigmoid", CrossEntropy(), "bce"),
    ("softmax", BCE(), "cross_entropy"),
    ("log_softmax", BCE(), "cross_entropy"),
])
def test_probabilities_are_not_taken_for_logits(end, loss, fits):
    with pytest.raises(CompileError, match=f"ends in {end}.*use loss='{fits}'"):
        attach_loss(graph(NET + f"y = {end}(h)\noutput y"), loss)


def test_tokens_flattened_into_the_batch_are_refused_with_the_remedy():
    flat = """
        input ids : i32[8,16]
        const w : f32[32,8]
        y = gather(w, ids)
        logits = reshape(y) {shape=[128,8]}
        output logits
    """
    with pytest.raises(CompileError, match=r"128 rows of 'labels' for a batch of 8.*'logits'.*"
                                           r"\[batch, sequence, classes\]"):
        attach_loss(graph(flat), CrossEntropy())
