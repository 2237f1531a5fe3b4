"""recognise_activations: the forms that exporters write, and near misses."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.passes.recognise_activations import recognise_activations

NUMBERS = {"half": 0.5, "one": 1.0, "root2": 1.4142135, "half_root": 0.70710678, "c": 0.044715,
           "r": 0.7978846, "wrong": 1.41, "near_c": 0.0447, "two": 2.0}
USED = "input x : f32[2,3]\n" + "\n".join(f"const {n} : f32[]" for n in NUMBERS)


def written(lines: str):
    g = graph(f"{USED}\n{lines}")
    for v in g.constants:
        g.constants[v] = np.array(NUMBERS[v.name], np.float32)
    return g


ERF = "d = div(x, root2)\ne = erf(d)\na = add(e, one)\n"
FORMS = {
    # PyTorch's exporters: x (1 + erf) * 0.5 and x * (0.5 (1 + erf))
    "script": ("gelu", ERF + "m = mul(x, a)\ny = mul(m, half)  # act"),
    "dynamo": ("gelu", ERF + "m = mul(half, a)\ny = mul(x, m)  # act"),
    # TensorFlow: 0.5 x first, x times the root of a half
    "tf2onnx": ("gelu", ("h = mul(half, x)\nd = mul(half_root, x)\ne = erf(d)\n"
                        "a = add(one, e)\ny = mul(h, a)  # act")),
    # Keras 3 has 0.5 x erfc(-x times the root of a half), and erfc(u) is 1 + erf(-u)
    "erfc": ("gelu", ("h = mul(half, x)\nm = neg(x)\nd = mul(m, half_root)\nu = neg(d)\n"
                     "e = erf(u)\na = add(one, e)\ny = mul(h, a)  # act")),
    "halved": ("gelu", ERF + "m = mul(a, x)\ny = div(m, two)  # act"),
    "gpt2": ("gelu_tanh", ("h = mul(x, half)\ns = mul(x, x)\nt = mul(s, x)\nu = mul(t, c)\n"
                          "v = add(x, u)\nw = mul(v, r)\nz = tanh(w)\na = add(z, one)\n"
                          "y = mul(h, a)  # act")),
    "script tanh": ("gelu_tanh", ("s = mul(x, x)\nt = mul(x, s)\nu = mul(c, t)\nv = add(x, u)\n"
                                 "w = mul(r, v)\nz = tanh(w)\na = add(one, z)\nm = mul(x, a)\n"
                                 "y = mul(half, m)  # act")),
    "factored": ("gelu_tanh", ("s = mul(x, x)\nu = mul(c, s)\nv = add(one, u)\nq = mul(x, r)\n"
                              "w = mul(q, v)\nz = tanh(w)\na = add(z, one)\nh = mul(half, x)\n"
                              "y = mul(h, a)  # act")),
    "silu": ("silu", "s = sigmoid(x)\ny = mul(s, x)  # act"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_exporters_write(form):
    op, lines = FORMS[form]
    before = written(f"{lines}\noutput y")
    after = recognise_activations(before)
    assert text(after) == shown(f"""
        input x : f32[2,3]
        y = {op}(x) : f32[2,3] # act
        output y""")
    assert_same(before, after)


def test_inside_a_gated_product():
    before = written("s = sigmoid(x)\na = mul(x, s)\ny = mul(a, half)\nz = mul(y, y)\noutput z")
    assert [n.op for n in recognise_activations(before).nodes] == ["silu", "mul", "mul"]


@pytest.mark.parametrize("lines", [
    ERF.replace("root2", "wrong") + "m = mul(x, a)\ny = mul(m, half)",
    ERF.replace("one", "two") + "m = mul(x, a)\ny = mul(m, half)",
    ERF + "m = mul(x, a)\ny = mul(m, two)",
    ERF + "m = mul(x, x)\ny = mul(m, a)",
    ERF + "m = mul(x, a)\ny = mul(m, half)\noutput a",
    ERF + "m = mul(x, a)\ny = mul(m, half)\nz = neg(e)\noutput z",
    FORMS["gpt2"][1].replace("(t, c)", "(t, near_c)"),
    FORMS["gpt2"][1].replace("(s, x)", "(s, s)"),
    FORMS["factored"][1].replace("(x, r)", "(half, r)"),
    FORMS["silu"][1] + "\noutput s",
    "s = sigmoid(x)\nt = mul(s, x)\nu = sigmoid(t)\ny = mul(u, x)\nz = mul(t, s)\noutput z",
    "t = mul(x, two)\ns = sigmoid(t)\ny = mul(x, s)",
])
def test_near_misses_stay(lines):
    before = written(lines + "\noutput y")
    kept = written(lines + "\noutput y")
    kept.constants = {v: a for v, a in kept.constants.items() if kept.users().get(v)}
    assert text(recognise_activations(before)) == text(kept)
