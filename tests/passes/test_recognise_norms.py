"""recognise_norms: the forms that exporters write, and near misses."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.passes.text import assert_same, graph, shown, text

import edgeloop as el
from edgeloop.compiler import Options, normal_form
from edgeloop.importer import load_model
from edgeloop.passes.recognise_norms import recognise_norms

HEAD = """
input x : f32[2,3,4]
const w : f32[4]
const b : f32[4]
const eps : f32[]
const one : f32[]
"""
MEAN = "m = reduce_mean(x) {axes=[2] keepdims=1}  # ln\n"
VARIANCE = """
q = mul(d, d)  # ln
v = reduce_mean(q) {axes=[2] keepdims=1}  # ln
e = add(v, eps)  # ln
s = sqrt(e)  # ln
"""
TORCH = f"{MEAN}d = sub(x, m)  # ln\n{VARIANCE}n = div(d, s)  # ln\n"
TENSORFLOW = f"""{MEAN}d = sub(x, m)  # ln
{VARIANCE}
r = reciprocal(s)  # ln
k = mul(r, w)  # ln
p = mul(x, k)  # ln
o = mul(m, k)  # ln
h = sub(b, o)  # ln
y = add(p, h)  # ln
"""
KERAS = TENSORFLOW.replace("o = mul(m, k)", "g = neg(m)  # ln\no = mul(g, k)").replace(
    "sub(b, o)", "add(o, b)")
RMS = VARIANCE.replace("(d, d)", "(x, x)") + "r = reciprocal(s)  # ln\nn = mul(x, r)  # ln\n"


def written(lines: str, eps: float = 0.25):
    g = graph(f"{HEAD}{lines}")
    for v in g.constants:
        if v.name == "eps":
            g.constants[v] = np.array(eps, np.float32)
        if v.name == "one":
            g.constants[v] = np.array(1, np.float32)
    return g


FORMS = {
    "torch": (TORCH + "t = mul(n, w)  # ln\ny = add(t, b)  # ln", "layer_norm(x, w, b)"),
    "reversed": (TORCH.replace("add(v, eps)", "add(eps, v)") + "t = mul(w, n)\ny = add(b, t)  # ln",
                 "layer_norm(x, w, b)"),
    "tf2onnx": (TENSORFLOW, "layer_norm(x, w, b)"),
    "tf2onnx reversed": (TENSORFLOW.replace("(x, k)", "(k, x)").replace("(m, k)", "(k, m)")
                         .replace("(p, h)", "(h, p)").replace("(r, w)", "(w, r)"),
                         "layer_norm(x, w, b)"),
    "keras 3": (KERAS, "layer_norm(x, w, b)"),
    "no bias": (TORCH + "y = mul(n, w)  # ln", "layer_norm(x, w, bias)"),
    "bare": (TORCH.replace("n = div", "y = div"), "layer_norm(x, scale, bias)"),
    "rms": (RMS + "y = mul(w, n)  # ln", "rms_norm(x, w)"),
    "rms script": (RMS.replace("reciprocal(s)", "div(one, s)") + "y = mul(w, n)  # ln",
                   "rms_norm(x, w)"),
    "rms bare": (RMS.replace("n = mul", "y = mul"), "rms_norm(x)"),
    "rms quotient": (VARIANCE.replace("(d, d)", "(x, x)") + "n = div(x, s)\ny = mul(n, w)  # ln",
                     "rms_norm(x, w)"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_exporters_write(form):
    lines, call = FORMS[form]
    before = written(f"{lines}\noutput y")
    after = recognise_norms(before)
    names = call[call.index("(x") + 2:-1].replace(",", "").split()
    consts = "\n".join(f"const {n} : f32[4]" for n in names)
    assert text(after) == shown(f"""
        input x : f32[2,3,4]
        {consts}
        y = {call} {{eps=0.25}} : f32[2,3,4] # ln
        output y""")
    assert_same(before, after)


def test_vectors_of_higher_rank_are_taken_in():
    head = HEAD.replace("w : f32[4]", "w : f32[1,1,4]")
    before = graph(head + FORMS["torch"][0] + "\noutput y")
    after = recognise_norms(before)
    assert [n.op for n in after.nodes] == ["layer_norm"]
    assert_same(before, after)


def test_what_follows_and_is_no_constant_vector_stays_outside():
    before = written(TORCH + "t = mul(n, x)  # ln\ny = add(t, b)\noutput y")
    assert [n.op for n in recognise_norms(before).nodes] == ["layer_norm", "mul", "add"]
    before = written(RMS + "t = mul(n, w)  # ln\ny = add(t, b)\noutput y")
    assert [n.op for n in recognise_norms(before).nodes] == ["rms_norm", "add"]


@pytest.mark.parametrize("lines", [
    TORCH.replace("axes=[2]", "axes=[1]") + "y = mul(n, w)",
    RMS.replace("axes=[2]", "axes=[1,2]") + "y = mul(n, w)",
    RMS.replace("(x, x)", "(x, w)") + "y = mul(n, w)",
    RMS.replace("(x, r)", "(w, r)") + "y = mul(n, w)",
    RMS.replace("add(v, eps)", "add(v, w)") + "y = mul(n, w)",
    RMS + "y = mul(n, w)\noutput v",
    RMS + "y = mul(n, s)",
    RMS.replace("reciprocal(s)", "div(eps, s)") + "y = mul(n, w)",
    TENSORFLOW + "output k",
    TENSORFLOW.replace("(m, k)", "(w, k)"),
    TENSORFLOW.replace("sub(b, o)", "sub(o, b)"),
    TENSORFLOW.replace("sub(b, o)", "add(b, o)"),
    KERAS.replace("add(o, b)", "sub(b, o)"),
])
def test_near_misses_stay(lines):
    before = written(lines + "\noutput y")
    kept = written(lines + "\noutput y")
    kept.constants = {v: a for v, a in kept.constants.items() if kept.users().get(v)}
    assert text(recognise_norms(before)) == text(kept)


def test_an_eps_of_no_use_stays():
    before = written(RMS + "y = mul(n, w)\noutput y", eps=-1.0)
    assert "rms_norm" not in text(recognise_norms(before))


def test_the_compiler_sees_what_a_file_holds():
    """As PyTorch's exporter wrote layer normalisation and Gelu until opset 16."""
    constants = {"axis_two": 2.0, "eps": 1e-5, "root": 1.4142135, "one": 1.0, "half": 0.5,
                 "ln.weight": np.arange(1, 5), "ln.bias": np.arange(4)}
    calls = [
        ("ReduceMean", "x", "m"), ("Sub", "x m", "d"), ("Pow", "d axis_two", "q"),
        ("ReduceMean", "q", "v"), ("Add", "v eps", "e"), ("Sqrt", "e", "s"), ("Div", "d s", "n"),
        ("Mul", "n ln.weight", "t"), ("Add", "t ln.bias", "u"), ("Div", "u root", "g"),
        ("Erf", "g", "f"), ("Add", "f one", "a"), ("Mul", "u a", "b"), ("Mul", "b half", "y"),
    ]
    nodes = [
        helper.make_node(op, ins.split(), [out], f"/ln/{out}",
                         **({"axes": [-1]} if op == "ReduceMean" else {}))
        for op, ins, out in calls
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy"]
    made = helper.make_graph(nodes, "g", info[:1], info[1:], [
        numpy_helper.from_array(np.array(a, np.float32), n) for n, a in constants.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 14)])
    options = Options(el.loss.MSE(), (), el.SGD(), ("predict",), 0)
    nodes = normal_form(load_model(model, batch=2), options).nodes
    assert [n.op for n in nodes] == ["layer_norm", "gelu"]
