import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.importer import load_model

RNG = np.random.default_rng(3)


def weights(*shapes):
    return [RNG.standard_normal(s).astype(np.float32) for s in shapes]


def node(op, inputs, outputs, name="", **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attrs)


# Unsupported operators --------------------------------------------------------------------------


def test_every_unsupported_operator_is_listed_with_its_place(build):
    (w,) = weights((4, 4))
    model = build(
        [
            node("Sinh", "x", "a", "early"), node("Gemm", "a w", "b", "fc"),
            node("Cosh", "b", "c", "late"), node("Gemm", "c w", "d", "fc2"),
            node("Foo", "d", "y", "odd", domain="com.example"),
        ],
        [("x", ["N", 4])], [("y", ["N", 4])], {"w": w},
    )
    model.opset_import.add(domain="com.example", version=1)
    with pytest.raises(UnsupportedError) as e:
        load_model(model, batch=2)
    found = [(u.op, u.node, u.on_gradient_path) for u in e.value.operators]
    assert found == [
        ("Sinh", "early", False), ("Cosh", "late", True), ("com.example.Foo", "odd", True),
    ]
    paths = ("'early' (off the gradient's path)", "'late' (on the gradient's path)")
    for text in ("not supported (3)", *paths):
        assert text in str(e.value)


def test_unsupported_operators_off_the_outputs_do_not_matter(build):
    model = build(
        [node("Relu", "x", "y"), node("Sinh", "x", "dead")], [("x", ["N", 4])], [("y", ["N", 4])]
    )
    assert [n.op for n in load_model(model, batch=2).graph.nodes] == ["relu"]


def test_shape_arithmetic_behind_an_unsupported_operator_is_not_blamed(build):
    model = build(
        [
            node("Det", "x", "a", "det"), node("Shape", "a", "s"),
            node("Equal", "s s", "e"), node("Where", "e s s", "t"), node("Expand", "a t", "y"),
        ],
        [("x", ["N", 3, 3])], [("y", ["N"])],
    )
    with pytest.raises(UnsupportedError) as e:
        load_model(model, batch=2)
    assert [u.op for u in e.value.operators] == ["Det"]


# Control flow ------------------------------------------------------------------------------------


def if_model(build, condition, shapes=("N", 4)):
    def branch(name, op):
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shapes))
        return helper.make_graph([node(op, "x", name)], name, [], [out])

    choose = helper.make_node(
        "If", ["c"], ["y"], name="choose",
        then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg"),
    )
    inputs = [("x", ["N", 4])]
    if condition is None:
        inputs.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    known = {} if condition is None else {"c": np.array(condition)}
    return build([choose], inputs, [("y", ["N", 4])], known)


@pytest.mark.parametrize(("condition", "op"), [(True, "relu"), (False, "neg")])
def test_if_with_a_constant_condition_becomes_its_branch(build, agrees, condition, op):
    imported = agrees(if_model(build, condition), 3)
    assert [n.op for n in imported.graph.nodes] == [op]


def test_if_on_run_time_data_is_unsupported(build):
    with pytest.raises((UnsupportedError, ModelError), match=r"If|'c'"):
        load_model(if_model(build, None), batch=2)


# Inputs and outputs ------------------------------------------------------------------------------


def test_an_input_that_is_no_number_is_a_clear_error(build):
    words = helper.make_tensor_value_info("words", TensorProto.COMPLEX64, ["N"])
    model = build([node("Abs", "words", "y")], [words], [("y", ["N"])])
    with pytest.raises(ModelError, match="input 'words' has element type complex64"):
        load_model(model, batch=2)


def test_double_and_half_become_float32_with_a_note(build):
    w = RNG.standard_normal((4, 3))
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", 3])
    imported = load_model(build([node("MatMul", "x w", "y")], [x], [y], {"w": w}), batch=2)
    assert {a.dtype.name for a in imported.graph.constants.values()} == {"float32"}
    assert any("float64 initializers" in n for n in imported.notes)
    assert any("'x' (double) is taken as float32" in n for n in imported.notes)


def test_outputs_keep_their_names_and_order_even_when_they_are_inputs_or_twice(build, agrees):
    model = build(
        [node("Relu", "x", "a"), node("Identity", "a", "b"), node("Identity", "x", "c")],
        [("x", ["N", 4])], [(n, ["N", 4]) for n in "cba"],
    )
    imported = agrees(model, 2)
    assert imported.outputs == ["c", "b", "a"]
    assert [v.name for v in imported.graph.outputs] == ["c", "b", "a"]


def test_outputs_that_are_no_floats_are_left_out_with_a_note(build):
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    model = build(
        [node("Relu", "x", "y"), node("ArgMax", "y", "label", axis=1, keepdims=0)],
        [("x", ["N", 4])], [label, ("y", ["N", 4])],
    )
    imported = load_model(model, batch=2)
    assert imported.outputs == ["y"]
    assert any("'label' (int64)" in n for n in imported.notes)


def test_output_that_depends_on_nothing_is_refused(build):
    model = build(
        [node("Relu", "x", "y"), node("Identity", "w", "z")], [("x", ["N", 4])],
        [("y", ["N", 4]), ("z", [2])], {"w": np.ones(2, np.float32)},
    )
    with pytest.raises(ModelError, match="output 'z' does not depend on any input"):
        load_model(model, batch=2)


def test_unused_inputs_are_left_out(build):
    model = build(
        [node("Relu", "x", "y")], [("x", ["N", 4]), ("unused", ["N", 4])], [("y", ["N", 4])]
    )
    imported = load_model(model, batch=2)
    assert list(imported.inputs) == ["x"]
    assert any("unused" in n for n in imported.notes)


def test_nodes_that_do_not_fit_are_model_errors(build):
    (w,) = weights((5, 4))
    product = node("MatMul", "x w", "y", "mm")
    model = build([product], [("x", ["N", 3])], [("y", ["N", 4])], {"w": w})
    with pytest.raises(ModelError, match="mm"):
        load_model(model, batch=2)


# Weights -----------------------------------------------------------------------------------------


def consts(imported, op="linear", index=1):
    return [n.inputs[index] for n in imported.graph.nodes if n.op == op]


def test_constants_keep_their_initializers_names(build, agrees):
    w, b = weights((3, 4), (3,))
    model = build(
        [node("Gemm", "x fc.weight fc.bias", "y", "/fc/Gemm", transB=1)], [("x", ["N", 4])],
        [("y", ["N", 3])], {"fc.weight": w, "fc.bias": b},
    )
    imported = agrees(model, 2)
    assert {v.name for v in imported.graph.constants} == {"fc.weight", "fc.bias"}
    assert [(x.name, x.params) for x in imported.layers] == [("fc", 15)]


def test_equal_zeros_of_two_layers_are_separate_and_tied_weights_stay_one(build, agrees):
    w, a = weights((4, 4), (4, 4))
    model = build(
        [
            node("Gemm", "x w a.bias", "h", "/a/Gemm", transB=1),
            node("Gemm", "h v a.bias", "i", "/b/Gemm", transB=1),
            node("Gemm", "i w", "y", "/c/Gemm", transB=1),
        ],
        [("x", ["N", 4])], [("y", ["N", 4])], {"w": w, "v": a, "a.bias": np.zeros(4, np.float32)},
    )
    imported = agrees(model, 2)
    first, second, third = [n for n in imported.graph.nodes if n.op == "linear"]
    assert first.inputs[1] is third.inputs[1]
    assert first.inputs[2] is not second.inputs[2]
    assert second.inputs[2].name == "b.bias"
    assert [n.name for n in (first, second, third)] == ["a", "b", "c"]


def test_transposed_weights_keep_their_names_and_ties(build, agrees):
    w, v, k = weights((4, 4), (4, 4), (2, 3, 3, 3))
    model = build(
        [
            node("MatMul", "x w", "a"), node("MatMul", "a v", "b"), node("MatMul", "b w", "y"),
            node("Conv", "image stem.weight", "z"),
        ],
        [("x", ["N", 4]), ("image", ["N", 3, 5, 5])], [("y", ["N", 4]), ("z", ["N", 2, 3, 3])],
        {"w": w, "v": v, "stem.weight": k},
    )
    imported = agrees(model, 2)
    assert [c.name for c in consts(imported)] == ["w", "v", "w"]
    assert len(imported.graph.constants) == 3
    assert consts(imported, "conv2d")[0].name == "stem.weight"


def test_quantized_weights_are_dequantized_at_import(build, agrees):
    q = RNG.integers(-100, 100, (4, 3)).astype(np.int8)
    model = build(
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w", "y")],
        [("x", ["N", 4])], [("y", ["N", 3])], {"q": q, "s": np.float32(0.02)},
    )
    agrees(model, 2)


# Patterns that exporters write -------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_dynamos_guarded_softplus_is_a_softplus(build, agrees, beta):
    scaled = [node("Mul", "x b", "z")] if beta != 1 else []
    z = "z" if scaled else "x"
    nodes = [
        *scaled, node("Softplus", z, "s"), node("Div", "s b", "d"), node("Greater", f"{z} t", "g"),
        node("Where", "g x d", "y"),
    ]
    model = build(nodes, [("x", ["N", 50])], [("y", ["N", 50])],
                  {"b": np.float32(beta), "t": np.float32(20)})
    imported = agrees(model, 8)
    assert "softplus" in [n.op for n in imported.graph.nodes]


@pytest.mark.parametrize(("threshold", "x"), [(2.0, "x"), (20.0, "w")])
def test_another_where_is_not_taken_for_a_softplus(build, agrees, threshold, x):
    nodes = [
        node("Relu", "x", "w"), node("Softplus", "x", "s"), node("Greater", "x t", "g"),
        node("Where", f"g {x} s", "y"),
    ]
    model = build(nodes, [("x", ["N", 5])], [("y", ["N", 5])], {"t": np.float32(threshold)})
    assert "where" in [n.op for n in agrees(model, 2).graph.nodes]


def test_indexing_with_a_list_is_a_gather(build, agrees):
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0]), node("GatherND", "t i", "g"),
        node("Transpose", "g", "y", perm=[1, 0]),
    ]
    model = build(nodes, [("x", ["N", 5])], [("y", ["N", 2])], {"i": np.array([[3], [0]])})
    agrees(model, 4)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [("Mish", {}), ("Celu", {"alpha": 2.0}), ("Softsign", {}),
     ("ReduceL2", {"keepdims": 1}), ("ReduceSumSquare", {"keepdims": 1})],
)
def test_operators_that_onnx_defines_by_supported_ones(build, agrees, op, attrs):
    inputs = "x axes" if op.startswith("Reduce") else "x"
    model = build([node(op, inputs, "y", **attrs)], [("x", ["N", 5])], [("y", ["N", None])],
                  {"axes": np.array([1])} if op.startswith("Reduce") else {}, opset=22)
    agrees(model, 4)
