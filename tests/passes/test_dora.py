"""LoRA's DoRA: PEFT's numbers and gradients, an exact no-op at the start."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import graph, randomise, results

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Value
from edgeloop.methods import LoRA
from edgeloop.ops import Builder, evaluate
from edgeloop.passes.autodiff import add_gradients
from edgeloop.passes.lora import insert_lora
from edgeloop.passes.measure_rows import measure_rows
from edgeloop.passes.quantize_base import quantize_base
from edgeloop.quantize import Quantize

DENSE = """
    input x : f32[3,5]
    const w : f32[4,5]
    const b : f32[4]
    y = linear(x, w, b)  # fc
    output y
"""
CONV = """
    input x : f32[2,6,5,4]
    const w : f32[6,3,3,4]
    const b : f32[6]
    y = conv2d(x, w, b) {pads=[1,1,0,0] strides=[2,1] groups=1}  # fc
    output y
"""
GROUPED = """
    input x : f32[2,6,5,4]
    const w : f32[6,3,3,2]
    const b : f32[6]
    y = conv2d(x, w, b) {pads=[1,1,0,0] strides=[2,1] groups=2}  # fc
    output y
"""
CASES = {"dense": DENSE, "conv": CONV, "grouped": GROUPED}


@pytest.mark.parametrize("case", CASES)
def test_a_no_op_at_the_start_and_rows_of_the_trained_length_later(case):
    before = graph(CASES[case])
    after = insert_lora(before, LoRA(rank=2, dora=True, targets="fc"))
    old, new = results(before, np.float32)[0], results(after, np.float32)[0]
    np.testing.assert_array_equal(new, old)  # bit for bit
    randomise(randomise(after, "lora_B"), "lora_magnitude", seed=3)
    a, b, m = after.params.values()
    merged = graph(CASES[case])
    w = merged.nodes[0].inputs[1]
    total = merged.constants[w].reshape(len(m), -1) + 2 * b @ a.reshape(2, -1)
    total *= (m / np.linalg.norm(total, axis=1))[:, None]
    merged.constants[w] = total.reshape(w.type.shape)
    np.testing.assert_allclose(results(after)[0], results(merged)[0], rtol=1e-4, atol=1e-5)


def test_a_row_of_zeros_stays_finite():
    g = graph(DENSE)
    w = g.nodes[0].inputs[1]
    g.constants[w][1] = 0
    after = insert_lora(g, LoRA(rank=2, dora=True))
    np.testing.assert_array_equal(results(after, np.float32)[0], results(g, np.float32)[0])


def test_layers_without_a_stored_weight_are_refused():
    embedding = graph("""
        input i : i32[3]
        const t : f32[7,4]
        y = gather(t, i) {axis=0}  # fc
        output y
    """)
    with pytest.raises(CompileError, match="LoRA with dora does not fit layer 'fc'"):
        insert_lora(embedding, LoRA(dora=True, targets="fc"))


@pytest.mark.parametrize("case", ["dense", "conv"])
def test_lengths_are_those_of_the_stored_weights(case):
    after = insert_lora(graph(CASES[case]), LoRA(rank=2, dora=True))
    stored = measure_rows(quantize_base(after, Quantize("int4")))
    base = quantize_base(graph(CASES[case]), Quantize("int4"))
    np.testing.assert_array_equal(results(stored, np.float32)[0], results(base, np.float32)[0])
    w = next(iter(base.constants.values()))
    want = np.linalg.norm(w.reshape(len(w), -1), axis=1)
    length = {v.name: a for v, a in stored.params.items()}["fc.lora_magnitude"]
    np.testing.assert_allclose(length, want, rtol=1e-6)
    before = {v.name: a for v, a in after.params.items()}["fc.lora_magnitude"]
    assert np.abs(length - before).max() > 1e-4
    randomise(stored, "lora_B")
    a, b, m = stored.params.values()
    total = w.reshape(len(m), -1) + 2 * b @ a.reshape(2, -1)
    total *= (m / np.linalg.norm(total, axis=1))[:, None]
    base.constants[next(iter(base.constants))] = total.reshape(w.shape)
    np.testing.assert_allclose(results(stored)[0], results(base)[0], rtol=1e-5, atol=1e-5)


def gradients(after: Graph, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The output, and gradients of sum(y * y)."""
    y = after.outputs[0]
    b = Builder(after)
    loss: Value = b.op("reduce_sum", b.op("mul", y, y), axes=tuple(range(y.type.rank)), keepdims=0)
    made, grads = add_gradients(after, loss, list(after.params))
    env = evaluate(made, {"x": x}, dtype=np.float64)
    return env[y], {p.name.rpartition("_")[2]: env[d] for p, d in grads.items()}


def torch_net(case: str, weight: np.ndarray, bias: np.ndarray):
    """The base model of a case in PyTorch, images channels last at its boundary."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = (torch.nn.Linear(5, 4) if case == "dense" else
                       torch.nn.Conv2d(4, 6, 3, stride=(2, 1)))
            w = weight if case == "dense" else weight.transpose(0, 3, 1, 2)
            with torch.no_grad():
                self.fc.weight.copy_(torch.tensor(w))
                self.fc.bias.copy_(torch.tensor(bias))

        def forward(self, x):
            if case == "dense":
                return self.fc(x)
            x = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (1, 0, 1, 0))
            return self.fc(x).permute(0, 2, 3, 1)

    return Net()


@pytest.mark.oracle
@pytest.mark.parametrize("case", ["dense", "conv"])
@pytest.mark.parametrize("options", [
    {"use_dora": True}, {"use_dora": True, "use_rslora": True}, {"use_rslora": True}, {}])
def test_numbers_and_gradients_are_pefts(case, options):
    import torch
    from peft import LoraConfig, get_peft_model

    dora, rslora = options.get("use_dora", False), options.get("use_rslora", False)
    before = graph(CASES[case])
    after = insert_lora(before, LoRA(rank=2, alpha=6, dora=dora, rslora=rslora, targets="fc"))
    randomise(randomise(after, "lora_B"), "lora_magnitude", seed=3)
    net = get_peft_model(torch_net(case, *before.constants.values()), LoraConfig(
        target_modules=["fc"], r=2, lora_alpha=6, **options)).double()
    layer = net.base_model.model.fc
    theirs = {"A": layer.lora_A["default"].weight, "B": layer.lora_B["default"].weight}
    if dora:
        theirs["magnitude"] = layer.lora_magnitude_vector["default"].weight

    def ours(name, array):  # PyTorch's layout -> ours
        return array.transpose(0, 2, 3, 1) if name == "A" and array.ndim == 4 else array

    for v, array in after.params.items():
        name = v.name.rpartition("_")[2]
        like = ours(name, theirs[name].detach().numpy()).shape
        value = array.reshape(like)
        value = value.transpose(0, 3, 1, 2) if name == "A" and value.ndim == 4 else value
        with torch.no_grad():
            theirs[name].copy_(torch.tensor(value))
    x = np.random.default_rng(4).standard_normal(before.inputs[0].type.shape)
    y = net(torch.tensor(x))
    (y * y).sum().backward()
    got, grads = gradients(after, x)
    np.testing.assert_allclose(got, y.detach().numpy(), rtol=1e-6, atol=1e-6)
    for name, p in theirs.items():
        want = ours(name, p.grad.numpy()).reshape(grads[name].shape)
        np.testing.assert_allclose(grads[name], want, rtol=1e-5, atol=1e-5)
