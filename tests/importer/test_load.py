import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeloop.errors import ModelError
from edgeloop.importer import load
from edgeloop.importer.load import NEWEST_OPSET, read_model

RELU = helper.make_node("Relu", ["x"], ["y"], name="act")


@pytest.fixture
def relu(build):
    return build([RELU], [("x", [2, 3])], [("y", [2, 3])])


def test_reads_a_path_and_a_proto_without_changing_it(relu, tmp_path):
    before = relu.SerializeToString()
    onnx.save(relu, tmp_path / "m.onnx")
    assert read_model(tmp_path / "m.onnx") == read_model(str(tmp_path / "m.onnx"))
    assert read_model(relu) is not relu
    assert relu.SerializeToString() == before


@pytest.mark.parametrize("opset", [12, NEWEST_OPSET + 1])
def test_opset_out_of_range_names_both(build, opset):
    model = build([RELU], [("x", [2])], [("y", [2])], opset=opset)
    with pytest.raises(ModelError, match=f"opset {opset}, but .* opset 13 to {NEWEST_OPSET}"):
        read_model(model)


@pytest.mark.parametrize("opset", range(13, NEWEST_OPSET + 1))
def test_every_opset_in_range_is_read(build, opset):
    read_model(build([RELU], [("x", [2])], [("y", [2])], opset=opset))


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08", b"\xff" * 100, bytes(1000)])
def test_garbage_is_one_clear_error(tmp_path, data):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        read_model(path)


def test_missing_file_and_directory(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            read_model(path)


def test_truncated_and_flipped_files_never_escape_the_error_tree(build, tmp_path):
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    model = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", ["N", 3])], [("y", ["N", 4])],
        {"w": w},
    )
    data = model.SerializeToString()
    path, rng, refused = tmp_path / "m.onnx", np.random.default_rng(0), 0
    damaged = [data[:n] for n in range(0, len(data), 3)]
    for _ in range(200):
        b = bytearray(data)
        b[rng.integers(len(b))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(b))
    for bad in damaged:
        path.write_bytes(bad)
        try:
            read_model(path)
        except ModelError:
            refused += 1
    assert refused > len(damaged) // 3


def test_undefined_input_is_refused(build):
    model = build([helper.make_node("Relu", ["ghost"], ["y"])], [("x", [2])], [("y", [2])])
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        read_model(model)


def test_names_that_are_not_text_are_refused(relu, tmp_path):
    data = relu.SerializeToString().replace(b"act", b"a\xfft")
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="not text"):
        read_model(tmp_path / "m.onnx")


def test_tensor_out_of_range_is_refused(build):
    model = build([RELU], [("x", [2])], [("y", [2])], {"w": np.zeros(2, np.float32)})
    model.graph.initializer[0].dims[:] = [2**40]
    with pytest.raises(ModelError, match="out of range"):
        read_model(model)


@pytest.fixture
def external(build, tmp_path):
    """A saved model whose weight lies in w.bin; returns a function that changes its entries."""
    w = np.arange(6, dtype=np.float32)
    model = build(
        [helper.make_node("Add", ["x", "w"], ["y"])], [("x", ["N", 6])], [("y", ["N", 6])],
        {"w": w},
    )
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"\0" * 8 + w.tobytes())

    def save(**entries):
        t = model.graph.initializer[0]
        t.ClearField("raw_data")
        t.data_location = TensorProto.EXTERNAL
        del t.external_data[:]
        for k, v in ({"location": "w.bin", "offset": 8, "length": 24} | entries).items():
            t.external_data.add(key=k, value=str(v))
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        return folder / "m.onnx"

    return save


def test_external_data_is_read(external):
    t = read_model(external()).graph.initializer[0]
    assert np.array_equal(onnx.numpy_helper.to_array(t), np.arange(6))


def test_external_data_of_a_proto_needs_its_path(external):
    model = onnx.load(external(), load_external_data=False)
    with pytest.raises(ModelError, match="pass the model's path"):
        read_model(model)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "", "a/../../secret", "link", "\0"]
)
def test_external_path_outside_the_directory_is_refused(external, location):
    path = external(location=location)
    (path.parent.parent / "secret").write_bytes(bytes(64))
    (path.parent / "link").symlink_to("../secret")
    with pytest.raises(ModelError, match="outside the model's directory"):
        read_model(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "none.bin"}, "is missing"),
        ({"length": 999}, "truncated"),
        ({"offset": -4}, "truncated"),
        ({"offset": "abc"}, "no number"),
        ({"length": 20}, "not a valid ONNX model"),
    ],
)
def test_external_data_that_does_not_fit_is_refused(external, entries, message):
    with pytest.raises(ModelError, match=message):
        read_model(external(**entries))


@pytest.mark.parametrize("large", [True, False])
def test_the_checker_sees_no_data_where_it_is_too_much(external, monkeypatch, large):
    """onnx's checker refuses more than 2 GiB; without the limit here (control) it sees the data."""
    seen = []
    monkeypatch.setattr(load, "CHECKED_BYTES", 23 if large else 24)
    monkeypatch.setattr(
        onnx.checker, "check_model", lambda m: seen.append(m.graph.initializer[0].raw_data))
    assert len(read_model(external()).graph.initializer[0].raw_data) == 24
    assert [len(data) for data in seen] == [0 if large else 24]


def test_local_functions_are_inlined(build):
    f = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    model = build(
        [helper.make_node("Twice", ["x"], ["y"], domain="local")], [("x", [2])], [("y", [2])],
        functions=[f],
    )
    inlined = read_model(model)
    assert [n.op_type for n in inlined.graph.node] == ["Add"]
    assert not inlined.functions
