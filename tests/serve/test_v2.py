"""Requests and answers of the protocol: what fits, what does not, and that nothing else happens."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferInput, InferRequestedOutput, InferResult
from tritonclient.http._utils import _get_inference_request

from edgeloop.errors import InputError
from edgeloop.serve import v2

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def request(**changed):
    tensor = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": X.reshape(-1).tolist()}
    said = {"inputs": [tensor | changed.pop("tensor", {})]} | changed
    return json.dumps(said).encode()


def triton(array, datatype, *, binary=True, outputs=None, **more):
    """Body and header as Triton's own client makes them."""
    tensor = InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    options = {"request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False,
               "priority": 0, "timeout": None, "custom_parameters": None} | more
    body, size = _get_inference_request(inputs=[tensor], outputs=outputs, **options)
    body = body if isinstance(body, bytes) else body.encode()
    return body, None if size is None else str(size)


@pytest.mark.parametrize(("name", "binary"), [
    *((name, True) for name in v2._DTYPES),
    *((name, False) for name in v2._DTYPES if name != "FP16"),  # which the client sends as bytes
])
def test_what_tritons_client_sends_is_read(name, binary):
    dtype = v2._DTYPES[name]
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    asked = v2.read(*triton(array, name, binary=binary, request_id="7"))
    assert asked.id == "7"
    assert asked.inputs["x"].dtype == dtype
    np.testing.assert_array_equal(asked.inputs["x"], array)
    assert asked.binary  # what the client asks for where no output is named


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_reads_the_answer(binary):
    wanted = [InferRequestedOutput("y", binary_data=binary)]
    asked = v2.read(*triton(X, "FP32", outputs=wanted, request_id="a"))
    body, size = v2.answer(asked, "m", "3", {"y": 2 * X, "z": X})
    assert (size is None) is not binary
    result = InferResult.from_response_body(body, header_length=size)
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
    assert result.as_numpy("z") is None
    told = result.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("m", "3", "a")


def test_several_binary_tensors_stand_in_order():
    asked = v2.read(*triton(X, "FP32"))
    body, size = v2.answer(asked, "m", "0", {"y": X, "n": np.array([1, 2], np.int32)})
    result = InferResult.from_response_body(body, header_length=size)
    np.testing.assert_array_equal(result.as_numpy("y"), X)
    np.testing.assert_array_equal(result.as_numpy("n"), [1, 2])


def test_nested_rows_are_taken_too():
    asked = v2.read(request(tensor={"data": X.tolist()}), None)
    np.testing.assert_array_equal(asked.inputs["x"], X)
    assert not asked.binary
    assert asked.outputs is None


def b(**changed):
    """A binary request of four bytes, with one thing changed."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32",
              "parameters": {"binary_data_size": 4}} | changed
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(("body", "header", "says"), [
    (b"{", None, "not JSON"),
    (b"[" * 100000, None, "not JSON"),
    (b"[]", None, "must be a JSON object"),
    (b"{}", None, "inputs: must be a list"),
    (b'{"inputs": []}', None, "inputs: is empty"),
    (b'{"inputs": [3]}', None, r"inputs\[0\]: must be a JSON object"),
    (request(tensor={"name": 3}), None, r"inputs\[0\]\.name: must be text"),
    (request(tensor={"datatype": "BYTES"}), None, "datatype: must be one of BOOL"),
    (request(tensor={"datatype": ["FP32"]}), None, "datatype: must be one of"),
    (request(tensor={"shape": []}), None, "shape: must be a list of 1 to 16"),
    (request(tensor={"shape": [0, 3]}), None, "shape"),
    (request(tensor={"shape": [True, 3]}), None, "shape"),
    (request(tensor={"shape": [1 << 30] * 16}), None, "shape"),
    (request(tensor={"shape": [2, 4]}), None, r"has 6 numbers; shape \[2, 4\] takes 8"),
    (request(tensor={"data": [[1], [2, 3]]}), None, "rows differ in length"),
    (request(tensor={"data": ["a"] * 6}), None, "must be numbers"),
    (request(tensor={"data": None}), None, "data: must be a list"),
    (request(tensor={"datatype": "INT32", "data": [0.5] * 6}), None, "must be whole numbers"),
    (request(tensor={"datatype": "UINT8", "data": [256] * 6}), None, "beyond 0 to 255"),
    (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', None, "JSON"),
    (request(id=3), None, "id: must be text"),
    (request(outputs=3), None, "outputs: must be a list"),
    (request(outputs=[{"name": 1}]), None, r"outputs\[0\]\.name: must be text"),
    (request(outputs=[{"name": "y", "parameters": {"classification": 2}}]), None, "not offered"),
    (request(parameters=[1]), None, "parameters: must be a JSON object"),
    (request(parameters={"binary_data_output": 1}), None, "must be true or false"),
    (request(), "x", "must be a number of bytes"),
    (request(), "99999", "but the body has"),
    (request() + b"rest", str(len(request())), "4 bytes stand behind the last"),
    (b() + b"1234", str(len(b()) + 9), "but the body has"),
    (b() + b"12", str(len(b())), "ends 2 bytes too early"),
    (b(parameters={"binary_data_size": 5}) + b"12345",
     str(len(b(parameters={"binary_data_size": 5}))), "has 5 bytes of binary data"),
    (b(parameters={"binary_data_size": True}), str(len(b(parameters={"binary_data_size": True}))),
     "has True bytes"),
])
def test_what_does_not_fit_is_said(body, header, says):
    with pytest.raises(InputError, match=says):
        v2.read(body, header)


def test_an_input_given_twice_and_an_output_that_is_not_there():
    one = json.loads(request())["inputs"]
    with pytest.raises(InputError, match="'x' is given twice"):
        v2.read(json.dumps({"inputs": one * 2}).encode(), None)
    asked = v2.read(request(outputs=[{"name": "q"}]), None)
    with pytest.raises(InputError, match="there is no 'q'; the model has y"):
        v2.answer(asked, "m", "0", {"y": X})


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(-2, 320).map(str)))
def test_any_bytes_end_in_an_error_of_ours(body, header):
    with pytest.raises(InputError):
        v2.read(body, header)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_any_damage_ends_in_an_error_of_ours_or_a_request(at, bytes_):
    body, header = triton(X, "FP32")
    at %= len(body)
    damaged = body[:at] + bytes_ + body[at + len(bytes_):]
    try:
        asked = v2.read(damaged, header)
    except InputError:
        return
    assert all(isinstance(a, np.ndarray) for a in asked.inputs.values())
