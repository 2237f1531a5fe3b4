"""onnx's own node tests: every case of float32, int32, int64 and bool of each supported operator.

Shapes, axes and the like become initializers, and so do parameters where the operator knows them
only as such. Whole numbers come out through a Cast, as outputs are floats.
"""

import importlib
import pkgutil
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgeloop import compiler
from edgeloop.errors import UnsupportedError
from edgeloop.importer import load_model
from edgeloop.importer.convert import ON_INTEGERS, converters
from edgeloop.ir import verify
from edgeloop.ops import evaluate
from edgeloop.passes.encode import encode
from edgeloop.passes.fold_batchnorm import fold_batchnorm
from edgeloop.passes.fold_constants import fold_constants
from edgeloop.passes.layout import attach_bias, pointwise_to_linear, sink_transposes
from edgeloop.passes.name_outputs import name_outputs
from edgeloop.passes.needs import Needs
from edgeloop.passes.schedule import schedule
from edgeloop.passes.share import share
from edgeloop.program import Program
from edgeloop.runtime import Session

# Operators of the importer's list that are folded or spliced away, and so have no converter.
FOLDED = {"Constant"}
# Supported, but onnx has no node case from float32 to float32.
WITHOUT_CASES = {"Cast", "Einsum", "ReduceLogSumExp"}
OPERATORS = {op for domain, op in converters() if domain == ""} | FOLDED
# Inputs that are constants by nature, from this position on.
CONSTANT_FROM = {"BatchNormalization": 1, "Clip": 1, "Dropout": 1, "Pad": 1, "Resize": 1,
                 "LSTM": 1, "GRU": 1, "OneHot": 1}
# Operators of integers that read shapes, axes and the like from this position on.
SHAPES_FROM = dict.fromkeys(
    ("CumSum", "Expand", "OneHot", "Pad", "ReduceMax", "ReduceMin", "ReduceSum", "Reshape", "Slice",
     "Split", "Squeeze", "Tile", "Trilu", "Unsqueeze"), 1,
)
# Operators whose second input is constant places.
PLACES = {"ScatterElements", "ScatterND"}
# Operators whose inputs or outputs are whole numbers.
WHOLE = ON_INTEGERS | {"IsInf", "IsNaN"}
TYPES = (np.float32, np.int32, np.int64, np.bool_)

_RANDOM = "Dropout is compiled as the identity, in training mode too"
_OLD = "Dropout of opset 11, before the oldest that is read"
_CORNERS = "onnx divides by scale * size - 1; ONNX Runtime and PyTorch by the result's size - 1"
SKIP = {
    "test_resize_downsample_scales_cubic_align_corners": _CORNERS,
    "test_resize_downsample_scales_linear_align_corners": _CORNERS,
    "test_dropout_default_old": _OLD,
    "test_dropout_random_old": _OLD,
    "test_constant": "a model without inputs has nothing to run; see test_fold",
    "test_training_dropout": _RANDOM,
    "test_training_dropout_default": _RANDOM,
    "test_training_dropout_default_mask": _RANDOM,
    "test_training_dropout_mask": _RANDOM,
}
_COMBINED = "reductions are not supported"
_SCORES = "the output qk_matmul_output is not supported"
# Beginnings of cases that the importer refuses -> what its error says.
REFUSED = {
    "test_averagepool_3d": "only 1-D and 2-D are supported",
    "test_convtranspose_3d": "only 1-D and 2-D are supported",
    "test_lstm_with_peepholes": "peepholes are not supported",
    "test_maxpool_3d": "only 1-D and 2-D are supported",
    "test_batchnorm_example_training_mode": "training mode",
    "test_batchnorm_epsilon_training_mode": "training mode",
    "test_mod_float": "only supported on integers",
    "test_mod_mixed_sign_float32": "only supported on integers",
    "test_reversesequence": "the lengths must be the full one",
    "test_scatter_elements_with_duplicate_indices": _COMBINED,
    "test_scatter_elements_with_reduction": _COMBINED,
    "test_scatternd_add": _COMBINED,
    "test_scatternd_max": _COMBINED,
    "test_scatternd_min": _COMBINED,
    "test_scatternd_multiply": _COMBINED,
    "test_attention_4d_with_qk_matmul": _SCORES,
    "test_attention_4d_with_past_and_present_qk_matmul": _SCORES,
    "test_attention_3d_with_past_and_present_qk_matmul": _SCORES,
    "test_attention_23_fullymasked_qk_matmul": _SCORES,
    "test_attention_24_fullymasked_qk_matmul": _SCORES,
    "test_attention_local_window_gqa_rank4_mask": _SCORES,
}



def collect():
    """Cases of supported operators; importing only their modules keeps this fast."""
    node = importlib.import_module("onnx.backend.test.case.node")
    names = {op.lower() for op in OPERATORS} | {"batch_normalization", "instance_normalization"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.iter_modules(node.__path__):
            if module.name.replace("_", "") in names:
                importlib.import_module(f"{node.__name__}.{module.name}")
    return [c for c in node._NodeTestCases if applies(c)]


def applies(case):
    if {n.op_type for n in case.model.graph.node} - OPERATORS:
        return False
    inputs, outputs = case.data_sets[0]
    if not any(isinstance(a, np.ndarray) and a.dtype in TYPES for a in outputs):
        return False
    if any(isinstance(a, np.ndarray) and a.size == 0 for a in (*inputs, *outputs)):
        return False  # tensors without elements have no place in a static plan
    op = case.model.graph.node[0].op_type
    if op not in WHOLE and not any(a.dtype == np.float32 for a in outputs):
        return False
    arrays = [a for a in (*inputs, *outputs) if isinstance(a, np.ndarray)]
    if op in WHOLE and any(a.dtype not in TYPES for a in arrays):
        return False  # computed as i32
    floats = [a for a in inputs if getattr(a, "dtype", None) is not None and a.dtype.kind in "fV"]
    return all(a.dtype == np.float32 for a in floats)


ALL_CASES = {c.name: c for c in collect()}
CASES = {name: c for name, c in ALL_CASES.items() if name not in SKIP}


def prepared(case):
    """The model at an opset that is read (13 or more, same operator version), shapes constant."""
    model, (arrays, outputs) = onnx.ModelProto(), case.data_sets[0]
    model.CopyFrom(case.model)
    for o in model.opset_import:
        if o.domain == "" and o.version < 13:
            for n in model.graph.node:
                old = onnx.defs.get_schema(n.op_type, o.version).since_version
                assert onnx.defs.get_schema(n.op_type, 13).since_version == old
            o.version = 13
    op = model.graph.node[0].op_type
    constant = {n.input[i] for n in model.graph.node for i in range(len(n.input))
                if i >= CONSTANT_FROM.get(n.op_type, 99)}
    shapes = {i for n in model.graph.node for i in n.input[SHAPES_FROM.get(n.op_type, 99):]}
    shapes |= {n.input[1] for n in model.graph.node if n.op_type in PLACES}
    feeds = {}
    kept = []
    for info, a in zip(model.graph.input, arrays, strict=True):
        whole = a.dtype != np.float32 and (op not in ON_INTEGERS or info.name in shapes)
        if info.name in constant or whole:
            model.graph.initializer.append(numpy_helper.from_array(a, info.name))
        else:
            kept.append(info)
            feeds[info.name] = a if a.dtype == np.float32 else a.astype(np.int32)
    if op == "LayerNormalization":
        del model.graph.output[1:]  # statistics for a backward pass that is compiled here
    del model.graph.input[:]
    model.graph.input.extend(kept)
    expected = dict(zip((o.name for o in model.graph.output), outputs, strict=False))
    if op in WHOLE:
        expected = as_floats(model, expected)
    return model, feeds, expected


def as_floats(model, expected):
    """Cast the outputs of whole numbers."""
    found = {}
    for o in model.graph.output:
        want = expected[o.name]
        if isinstance(want, np.ndarray) and want.dtype != np.float32:
            node = onnx.helper.make_node("Cast", [o.name], [f"{o.name}.f"], to=TensorProto.FLOAT)
            model.graph.node.append(node)
            o.name, want = f"{o.name}.f", want.astype(np.float32)
            o.type.tensor_type.elem_type = TensorProto.FLOAT
        found[o.name] = want
    return found


def imported_case(name):
    case = CASES[name]
    model, feeds, expected = prepared(case)
    message = next((m for start, m in REFUSED.items() if name.startswith(start)), None)
    if message is not None:
        with pytest.raises(UnsupportedError, match=message):
            load_model(model, batch=None)
        return None
    imported = load_model(model, batch=None)
    assert imported.outputs
    return imported, feeds, [expected[o] for o in imported.outputs], case


def agree(results, expected, case):
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == np.float32
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)


def predict(imported, feeds):
    """Run the graph as a program: the compiler's steps for a predict entry, without training."""
    graph = imported.graph
    for step in (fold_constants, sink_transposes, fold_constants, attach_bias, pointwise_to_linear,
                 fold_batchnorm, sink_transposes, fold_constants):
        graph = verify(step(graph), step.__name__)
    graph = name_outputs(graph, dict(zip(imported.outputs, graph.outputs, strict=True)))
    options = compiler._options("mse", None, None, ["predict"], 0, None)
    made = share({"predict": compiler.predict_entry(graph, options)})
    made = {k: verify(schedule(v, scratch=Needs(1, "auto").scratch)) for k, v in made.items()}
    session = Session(Program.from_spec(encode(made, metadata={"outputs": imported.outputs})))
    (entry,) = session._entries
    for k, a in feeds.items():
        if k in entry.inputs:
            entry.inputs[k][...] = a
    session._run(entry)
    return [entry.outputs[o].copy() for o in imported.outputs]


@pytest.mark.parametrize("name", sorted(CASES))
def test_node_interpreted_and_compiled(name):
    found = imported_case(name)
    if found:
        imported, feeds, expected, case = found
        env = evaluate(imported.graph, feeds)
        agree([env[v] for v in imported.graph.outputs], expected, case)
        if all(t.rank for t in imported.inputs.values()):  # inputs of a program have rows
            agree(predict(imported, feeds), expected, case)


def test_every_operator_of_the_list_has_cases():
    tested = {n.op_type for c in CASES.values() for n in c.model.graph.node}
    assert tested >= OPERATORS - FOLDED - WITHOUT_CASES


def test_listed_cases_exist():
    assert set(SKIP) <= set(ALL_CASES)
    for start in REFUSED:
        assert any(name.startswith(start) for name in CASES)
