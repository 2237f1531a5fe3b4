"""Open Inference Protocol v2 over REST, with Triton's binary tensor extension: bytes to tensors.

Sources: kserve/open-inference-protocol, specification/protocol/inference_rest.md; Triton Inference
Server, protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

HEADER = "inference-header-content-length"  # bytes of JSON in front of the binary tensors
BINARY = "application/octet-stream"
_DTYPES = {
    "BOOL": np.dtype("?"), "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"), "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}
NAMES = {dtype.newbyteorder("="): name for name, dtype in _DTYPES.items()}
_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """One inference request.

    Attributes
    ----------
    id
        What the client calls it; None: nothing.
    inputs
        Arrays by name.
    outputs
        Names of the outputs that are wanted, each with whether it is to be binary; None: all.
    binary
        Whether outputs that are not named are to be binary.
    parameters
        Of the request.
    """

    id: str | None
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, bool] | None
    binary: bool
    parameters: dict[str, Any] = field(default_factory=dict)


def read(body: bytes, header: str | None) -> Asked:
    """Read a request.

    Parameters
    ----------
    body
        Its body: JSON, and binary tensors behind it.
    header
        Its ``Inference-Header-Content-Length``; None: all of it is JSON.

    Raises
    ------
    InputError
        It is not what the protocol says; the message tells where.
    """
    size = len(body)
    if header is not None:
        if not (header.isascii() and header.isdecimal() and len(header) < 16):
            raise InputError(f"{HEADER}: is {header[:40]!r}; it must be a number of bytes")
        size = int(header)
        if size > len(body):
            raise InputError(f"{HEADER}: is {size}, but the body has {len(body)} bytes")
    try:
        said = json.loads(body[:size], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON ({error})") from error
    table(said, "the request")
    rest = memoryview(body)[size:]
    inputs: dict[str, NDArray[Any]] = {}
    for i, tensor in enumerate(_list(said.get("inputs"), "inputs")):
        name, array, rest = _input(tensor, rest, f"inputs[{i}]")
        if name in inputs:
            raise InputError(f"inputs[{i}]: {name!r} is given twice")
        inputs[name] = array
    if not inputs:
        raise InputError("inputs: is empty; give at least one")
    if len(rest):
        raise InputError(f"{len(rest)} bytes stand behind the last binary tensor")
    parameters = table(said.get("parameters", {}), "parameters")
    binary = _flag(parameters.get("binary_data_output", False), "parameters.binary_data_output")
    id_ = said.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise InputError("id: must be text")
    outputs = said.get("outputs")
    return Asked(
        id_, inputs, None if outputs is None else dict(_outputs(outputs, binary=binary)), binary,
        parameters)


def answer(
    asked: Asked, model: str, version: str, outputs: Mapping[str, NDArray[Any]],
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, int | None]:
    """Return the body of the response, and how many bytes of it are JSON (None: all).

    Raises
    ------
    InputError
        An output is asked for that the model does not have.
    """
    wanted = asked.outputs or dict.fromkeys(outputs, asked.binary)
    told: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, binary in wanted.items():
        if name not in outputs:
            raise InputError(f"outputs: there is no {name!r}; the model has {', '.join(outputs)}")
        array = np.asarray(outputs[name])
        entry: dict[str, Any] = {
            "name": name, "datatype": NAMES[array.dtype], "shape": list(array.shape)}
        if binary:
            raw.append(array.astype(_DTYPES[NAMES[array.dtype]], copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = array.reshape(-1).tolist()
        told.append(entry)
    said: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": told}
    if asked.id is not None:
        said["id"] = asked.id
    if parameters:
        said["parameters"] = dict(parameters)
    head = json.dumps(said).encode()
    return b"".join((head, *raw)), len(head) if raw else None


def table(value: Any, where: str) -> dict[str, Any]:
    """Return a JSON object; InputError when it is none."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: must be a JSON object")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: must be a list")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where}: must be true or false")
    return value


def _outputs(value: Any, *, binary: bool) -> Iterator[tuple[str, bool]]:
    for i, output in enumerate(_list(value, "outputs")):
        where = f"outputs[{i}]"
        name = table(output, where).get("name")
        if not isinstance(name, str):
            raise InputError(f"{where}.name: must be text")
        asked = table(output.get("parameters", {}), f"{where}.parameters")
        if "classification" in asked:
            raise InputError(f"{where}.parameters.classification: is not offered; ask for scores")
        yield name, _flag(asked.get("binary_data", binary), f"{where}.parameters.binary_data")


def _input(
    tensor: Any, rest: memoryview, where: str
) -> tuple[str, NDArray[Any], memoryview]:
    """Read one input; what stands behind its bytes is left for the next."""
    name = table(tensor, where).get("name")
    if not isinstance(name, str):
        raise InputError(f"{where}.name: must be text")
    where = f"{where} ({name[:40]!r})"
    kind = tensor.get("datatype")
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise InputError(f"{where}.datatype: must be one of {', '.join(_DTYPES)}")
    shape = _shape(tensor.get("shape"), f"{where}.shape")
    count = math.prod(shape)
    size = table(tensor.get("parameters", {}), f"{where}.parameters").get("binary_data_size")
    if size is None:
        return name, _from_json(tensor.get("data"), dtype, shape, f"{where}.data"), rest
    if size is True or size is False or not isinstance(size, int) or size != count * dtype.itemsize:
        raise InputError(f"{where}: has {size} bytes of binary data; {list(shape)} of "
                         f"{kind} takes {count * dtype.itemsize}")
    if size > len(rest):
        raise InputError(f"{where}: the body ends {size - len(rest)} bytes too early")
    return name, np.frombuffer(rest[:size], dtype).reshape(shape), rest[size:]


def _shape(value: Any, where: str) -> tuple[int, ...]:
    good = isinstance(value, list) and 1 <= len(value) <= _DIMENSIONS and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 < n < 1 << 31 for n in value)
    if not good or math.prod(value) >= 1 << 40:
        raise InputError(f"{where}: must be a list of 1 to {_DIMENSIONS} numbers above 0")
    return tuple(value)


def _from_json(
    data: Any, dtype: np.dtype[Any], shape: Sequence[int], where: str
) -> NDArray[Any]:
    """Numbers in row-major order, flat or nested."""
    try:
        array = np.asarray(_list(data, where))
    except ValueError as error:
        raise InputError(f"{where}: rows differ in length") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where}: must be numbers")
    if array.size != math.prod(shape):
        raise InputError(f"{where}: has {array.size} numbers; shape {list(shape)} takes "
                         f"{math.prod(shape)}")
    if dtype.kind in "iu" and array.dtype.kind == "f":
        raise InputError(f"{where}: must be whole numbers")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"{where}: a number is beyond {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):
        return array.astype(dtype).reshape(shape)
