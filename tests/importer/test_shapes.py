import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeloop.errors import ModelError
from edgeloop.importer import load_model
from edgeloop.importer.shapes import bind

BIG = 2**40


def info(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize(
    ("shape", "batch", "shapes", "expected"),
    [
        (["N", 3], 8, None, (8, 3)),
        (["batch", 3], 8, None, (8, 3)),
        ([None, 3], 8, None, (8, 3)),
        (["unk__6", 3], 8, None, (8, 3)),
        ([-1, 3], 8, None, (8, 3)),
        (["N", "time"], 8, {"time": 5}, (8, 5)),
        (["N", None], 8, {"x:1": 5}, (8, 5)),
        (["seq", "batch", 4], 8, {"seq": 6}, (6, 8, 4)),
        (["N", 3], 8, {"N": 2}, (2, 3)),
        ([4, 3], None, None, (4, 3)),
        ([4, 3], 4, None, (4, 3)),
        ([1, 3], 8, None, (8, 3)),
        ([], 8, None, ()),
    ],
)
def test_bind(shape, batch, shapes, expected):
    assert bind([info("x", shape)], batch, shapes).shapes == {"x": expected}


def test_fixed_batch_is_noted_only_when_it_changes():
    inputs = [info("a", [2, 3]), info("b", [2, 5])]
    assert bind(inputs, 8, None).old_batch == 2
    assert bind(inputs, 2, None).old_batch is None
    assert bind([info("a", [2, 3]), info("b", [4, 5])], 8, None).shapes["a"] == (2, 3)
    mixed = bind([info("a", ["N", 3]), info("b", [4, 5])], 8, None)
    assert mixed.shapes == {"a": (8, 3), "b": (4, 5)}
    assert mixed.old_batch is None


def test_unbound_dimensions_are_all_listed_with_the_way_to_give_them():
    inputs = [info("x", ["N", "time", None]), info("z", ["N", "width"])]
    with pytest.raises(ModelError, match="time, x:2, width") as e:
        bind(inputs, 8, None)
    assert 'shapes={"time": 16, "x:2": 16, "width": 16}' in str(e.value)


@pytest.mark.parametrize(
    ("shape", "batch", "shapes", "message"),
    [
        (["N", 3], 8, {"tiem": 4}, "tiem, which the model does not have.*: N"),
        (["N", "t"], 8, {"t": 0}, "positive"),
        (["N", "t"], 8, {"t": True}, "positive"),
        (["N", "t"], 8, {"t": 2.5}, "positive"),
        (["N", 3], 0, None, "positive"),
        (["N", BIG], 8, None, "too large"),
        (["N", 2**20, 2**20], 8, None, "too large"),
        (["N", 3], None, None, "N"),
    ],
)
def test_bad_requests(shape, batch, shapes, message):
    with pytest.raises(ModelError, match=message):
        bind([info("x", shape)], batch, shapes)


def test_input_without_rank():
    with pytest.raises(ModelError, match="not even a rank"):
        bind([helper.make_tensor_value_info("x", TensorProto.FLOAT, None)], 8, None)


RESHAPE = helper.make_node("Reshape", ["r", "s"], ["y"], name="reshape")
RELU = helper.make_node("Relu", ["x"], ["r"])


@pytest.mark.parametrize(
    ("old", "target", "expected"),
    [
        (1, [1, 12], (8, 12)),
        (1, [1, -1], (8, 12)),
        (1, [-1, 12], (8, 12)),
        (1, [0, -1], (8, 12)),
        (1, [1, 2, 6], (8, 2, 6)),
        (2, [2, -1], (8, 12)),
        (2, [2, 12], (8, 12)),
        (8, [8, 12], (8, 12)),
    ],
)
def test_reshape_with_the_old_batch_follows_the_new_one(build, agrees, old, target, expected):
    model = build(
        [RELU, RESHAPE], [("x", [old, 3, 4])], [("y", list("abc"[:len(target)]))],
        {"s": np.array(target, np.int64)},
    )
    imported = agrees(model, 8)
    assert imported.graph.outputs[0].type.shape == expected


def test_expand_with_the_old_batch_follows_the_new_one(build, agrees):
    expand = helper.make_node("Expand", ["r", "s"], ["y"])
    model = build(
        [RELU, expand], [("x", [2, 1, 4])], [("y", ["a", 3, 4])],
        {"s": np.array([2, 3, 4], np.int64)},
    )
    assert agrees(model, 8).graph.outputs[0].type.shape == (8, 3, 4)


def test_rows_folded_into_heads_follow_the_batch(build, agrees):
    back = helper.make_node("Reshape", ["h", "t"], ["y"])
    heads = helper.make_node("Reshape", ["r", "s"], ["h"])
    model = build(
        [RELU, heads, back], [("x", [2, 3, 4])], [("y", ["a", 12])],
        {"s": np.array([6, 4], np.int64), "t": np.array([2, -1], np.int64)},
    )
    assert agrees(model, 8).graph.outputs[0].type.shape == (8, 12)


def test_batch_baked_in_elsewhere_is_refused(build):
    concat = helper.make_node("Concat", ["r", "c"], ["y"], axis=1)
    extra = {"c": np.ones((1, 2), np.float32)}
    model = build([RELU, concat], [("x", [1, 3])], [("y", [1, 5])], extra)
    with pytest.raises(ModelError, match=r"fixed batch of 1 and cannot be changed to 8.*batch=1"):
        load_model(model, batch=8)
    assert load_model(model, batch=1).graph.outputs[0].type.shape == (1, 5)


def test_equal_rows_expanded_to_the_batch_follow_it(build, agrees):
    """An initial state: what TorchScript folds for a fixed batch, expanded by the input's shape."""
    def nodes(state):
        return build(
            [RELU, helper.make_node("Shape", ["r"], ["s"]),
             helper.make_node("Expand", ["h", "s"], ["e"]),
             helper.make_node("Add", ["r", "e"], ["y"])],
            [("x", [3, 4])], [("y", ["a", 4])], {"h": state})

    row = np.linspace(0, 1, 4, dtype=np.float32)
    assert agrees(nodes(np.tile(row, (3, 1))), 9).graph.outputs[0].type.shape == (9, 4)
    with pytest.raises(ModelError, match="fixed batch of 3"):
        load_model(nodes(np.arange(12, dtype=np.float32).reshape(3, 4)), batch=8)


def test_output_without_the_batch_is_refused(build):
    flat = helper.make_node("Reshape", ["r", "s"], ["y"])
    model = build([RELU, flat], [("x", [1, 3])], [("y", [3])], {"s": np.array([3], np.int64)})
    with pytest.raises(ModelError, match="fixed batch of 1"):
        load_model(model, batch=8)
