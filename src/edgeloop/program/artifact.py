"""The artifact file: a safetensors file that the stock package reads (docs/spec/artifact.md).

Tensors in file order: ``table`` (U8), the weights in execution order, the initial values of
params and states. Each starts at a multiple of 64 bytes of the file, gaps are ``pad.<n>`` tensors.
One metadata key, ``edgeloop``, holds sorted JSON, so that equal programs are equal bytes. The
header is written here because ``safetensors.serialize`` orders tensors by type and name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeloop.errors import ProgramError
from edgeloop.program import memory
from edgeloop.program.table import ALIGN, align_up, encode, layout_weights

if TYPE_CHECKING:
    from edgeloop.program.spec import ProgramSpec

VERSION = 1
KEY = "edgeloop"
_CODES = {
    "float32": "F32", "int32": "I32", "uint8": "U8", "int8": "I8", "float16": "F16",
    "uint16": "BF16",
}
_NUMPY = {"F32": "<f4", "I32": "<i4", "U8": "|u1", "I8": "|i1", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER = 64 << 20
_ZEROS = "0" * 64


class Stored(NamedTuple):
    """One tensor of the file; ``start`` is its first byte in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class Layout(NamedTuple):
    """What the header of an artifact says: the JSON document and where the tensors are."""

    document: dict[str, Any]
    tensors: Mapping[str, Stored]


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _document(spec: ProgramSpec) -> dict[str, Any]:
    entries = [
        {
            "name": e.name,
            "inputs": dict(e.inputs),
            "outputs": dict(e.outputs),
            "lower_bound_bytes": e.lower_bound_bytes,
            "any_order_bound_bytes": e.any_order_bound_bytes,
            "layers": [s.name for s in e.steps],
            "flops": [s.flops for s in e.steps],
        }
        for e in spec.entries
    ]
    return {
        "version": VERSION,
        "sha256": _ZEROS,
        "isa": spec.isa,
        "entries": entries,
        "params": dict(spec.params),
        "states": dict(spec.states),
        "scalars": {k: [i, float(v)] for k, (i, v) in spec.scalars.items()},
        "metadata": dict(spec.metadata),
    }


def _tensors(spec: ProgramSpec) -> Iterable[tuple[str, npt.NDArray[Any]]]:
    yield "table", np.frombuffer(encode(spec), np.uint8)
    for name in layout_weights(spec):
        yield f"weights.{name}", spec.weights[name]
    for name in (*spec.params, *spec.states):
        if name not in spec.initial:
            raise ProgramError(f"no initial value for '{name}'")
        yield f"initial.{name}", spec.initial[name]


def build(spec: ProgramSpec) -> bytes:
    """Return the artifact of a program; the same spec always gives the same bytes.

    Raises
    ------
    ProgramError
        The spec is inconsistent, or its metadata is not plain JSON.
    """
    header: dict[str, Any] = {}
    blobs: list[bytes] = []
    at = 0
    for name, array in _tensors(spec):
        if array.dtype.name not in _CODES:
            raise ProgramError(
                f"'{name}' has type {array.dtype}; f32, i32, u8, i8, f16 and bf16 can be stored"
            )
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _CODES[array.dtype.name], "shape": list(array.shape),
            "data_offsets": [at, at + len(data)],
        }
        blobs.append(data)
        at += len(data)
        gap = align_up(at) - at
        if gap:
            header[f"pad.{len(blobs)}"] = {
                "dtype": "U8", "shape": [gap], "data_offsets": [at, at + gap],
            }
            blobs.append(bytes(gap))
            at += gap
    try:
        document = dumps(_document(spec))
    except (TypeError, ValueError) as e:
        raise ProgramError(f"the metadata of a program must be plain JSON: {e}") from e
    text = json.dumps({"__metadata__": {KEY: document}, **header}, separators=(",", ":"))
    text += " " * (align_up(len(text) + 8) - 8 - len(text))
    head = len(text).to_bytes(8, "little") + text.encode("ascii")
    body = b"".join(blobs)
    seal = hashlib.sha256(head)
    seal.update(body)
    before, _, after = head.rpartition(_ZEROS.encode())
    return before + seal.hexdigest().encode() + after + body


def read(data: memoryview, where: str, *, sealed: bool = False) -> Layout:
    """Read the header of an artifact and verify its seal over every byte.

    Parameters
    ----------
    data
        The whole file.
    where
        Its name, for messages.
    sealed
        The seal of these bytes was verified before: read the header only.

    Raises
    ------
    ProgramError
        Truncated, damaged, of another version, or not an artifact at all.
    """
    def damaged(what: str) -> ProgramError:
        return ProgramError(f"{where}: {what}; install the program again")

    if len(data) < 8:
        raise damaged("not an edgeloop program (too short)")
    size = int.from_bytes(data[:8], "little")
    if size > min(_MAX_HEADER, len(data) - 8):
        raise damaged("truncated, or not an edgeloop program (header length)")
    head = bytes(data[: 8 + size])
    try:
        header = json.loads(head[8:])
        document = json.loads(header.pop("__metadata__")[KEY])
        version, seal = document["version"], document["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise damaged("not an edgeloop program (header)") from e
    if version != VERSION:
        raise ProgramError(
            f"{where}: artifact version {version}, this edgeloop reads {VERSION}; compile the "
            "model again or update edgeloop"
        )
    if not sealed:
        _verify_seal(head, data[8 + size :], seal, damaged)
    try:
        tensors = _parse_tensors(header, 8 + size, len(data))
    except (ValueError, KeyError, TypeError) as e:
        raise damaged(f"the list of tensors is damaged ({e})") from e
    return Layout(document, tensors)


def _verify_seal(head: bytes, body: memoryview, seal: Any, damaged: Any) -> None:
    if not isinstance(seal, str) or len(seal) != 64 or head.count(seal.encode()) != 1:
        raise damaged("its seal is damaged")
    digest = hashlib.sha256(head.replace(seal.encode(), _ZEROS.encode()))
    for block in memory.blocks(body):
        digest.update(block)
    if digest.hexdigest() != seal:
        raise damaged("truncated or damaged (SHA-256 does not match)")


def _parse_tensors(header: dict[str, Any], base: int, end: int) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    at = base
    for name, item in header.items():
        dtype, shape = _NUMPY[item["dtype"]], tuple(item["shape"])
        first, last = (base + i for i in item["data_offsets"])
        if not all(type(d) is int for d in (first, last, *shape)):
            raise ValueError(f"{name}: not whole numbers")
        count = 1
        for d in shape:
            if d < 0:
                raise ValueError(f"{name}: negative size")
            count *= d
        if first != at or last < first or last > end:
            raise ValueError(f"{name}: offsets")
        if count * np.dtype(dtype).itemsize != last - first:
            raise ValueError(f"{name}: shape and length disagree")
        if not name.startswith("pad.") and first % ALIGN:
            raise ValueError(f"{name}: not at a multiple of {ALIGN}")
        tensors[name] = Stored(name, dtype, shape, first, last - first)
        at = last
    if at != end:
        raise ValueError("bytes behind the last tensor")
    return tensors
