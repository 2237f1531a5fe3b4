"""Read an ONNX model from a path or from memory, and refuse what is damaged or out of range."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError, Message

from edgeloop.errors import ModelError

OLDEST_OPSET: Final = 13
NEWEST_OPSET: Final = onnx.defs.onnx_opset_version()
# Bounds that no model for a device meets, and a hostile file would: protobuf's own limit, and
# dimensions and element counts that the core's 32-bit sizes can hold.
MAX_FILE_BYTES: Final = 2**31 - 1
# External data from which on onnx's checker, which takes 2 GiB at most, sees the graph alone.
CHECKED_BYTES = 2**30
MAX_DIM: Final = 2**31 - 1
MAX_ELEMENTS: Final = 2**31 - 1
# Bytes of an element, of the types whose elements are whole bytes.
_WIDTHS: Final[dict[int, int]] = {
    kind: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize
    for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16,
                 onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32,
                 onnx.TensorProto.INT64)
}
# Operators of ONNX Runtime's domain that its optimizer writes without naming the domain, and those
# that tf2onnx leaves as TensorFlow has them.
CONTRIB_DOMAIN: Final = "com.microsoft"
CONTRIBUTED: Final = frozenset({"Erfc", "SimplifiedLayerNormalization",
                                "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})


def read_model(source: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    """Return a checked copy of the model: opset in range, data inside, local functions inlined.

    Raises
    ------
    ModelError
        The file is missing, damaged or too large, its external data lies outside the model's
        directory, or its opset is not one of 13 to the newest that the onnx package knows.
    """
    model = onnx.ModelProto()
    if isinstance(source, onnx.ModelProto):
        where, base = "the given ModelProto", None
        model.CopyFrom(source)
    elif not isinstance(source, str | os.PathLike):
        raise ModelError(f"a model is a path or an onnx.ModelProto, not {type(source).__name__}")
    else:
        path = Path(source)
        where, base = str(path), path.parent
        model = _parse(path)
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError(f"{where}: holds no graph with outputs; export the model again")
    if not _is_text(model):
        raise ModelError(f"{where}: holds names that are not text; the file is damaged")
    _check_opset(model, where)
    hollow = _hollow(model)
    external = _resolve_external(model, base, where)
    _check_dims(model, where)
    _name_contributed(model)
    if external > CHECKED_BYTES:
        _name_contributed(hollow)
    else:
        hollow = model
    try:
        onnx.checker.check_model(hollow)
    except (onnx.checker.ValidationError, EncodeError, ValueError) as e:
        first = str(e).strip().splitlines()[0]
        raise ModelError(f"{where}: not a valid ONNX model: {first}; export it again") from e
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except (RuntimeError, ValueError) as e:
            raise ModelError(f"{where}: its local functions cannot be inlined: {e}") from e
    return model


def opset_of(model: onnx.ModelProto, domain: str = "") -> int:
    """Return the version of a domain's operator set that the model was written for; 0: none."""
    same = ("", "ai.onnx") if domain == "" else (domain,)
    return max((o.version for o in model.opset_import if o.domain in same), default=0)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the model: initializers and attributes, subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for f in model.functions:
        yield from _node_tensors(f.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for s in graph.sparse_initializer:
        yield from (s.values, s.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for n in nodes:
        for a in n.attribute:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors
            if a.HasField("g"):
                yield from _graph_tensors(a.g)
            for g in a.graphs:
                yield from _graph_tensors(g)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(
                f"{path}: {size} bytes, more than a protobuf file can hold; "
                "save the weights as external data"
            )
        data = path.read_bytes()
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); check the path") from e
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as e:
        raise ModelError(
            f"{path}: not an ONNX file, or damaged ({size} bytes); copy or export it again"
        ) from e
    return model


def _is_text(message: Message) -> bool:
    """Tell whether all strings are UTF-8; protobuf hands damaged ones out as bytes."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == field.TYPE_STRING and not all(isinstance(v, str) for v in parts):
            return False
        if field.type == field.TYPE_MESSAGE and not all(_is_text(v) for v in parts):
            return False
    return True


def _check_opset(model: onnx.ModelProto, where: str) -> None:
    version = opset_of(model)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise ModelError(
            f"{where}: opset {version}, but edgeloop reads opset {OLDEST_OPSET} to {NEWEST_OPSET}; "
            "export with another opset_version, or use onnx.version_converter"
        )


def _hollow(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose external tensors are empty: onnx's checker takes 2 GiB at most.

    Their bytes and shapes are compared when they are read.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for t in tensors(copy):
        if t.data_location == onnx.TensorProto.EXTERNAL:
            t.data_location = onnx.TensorProto.DEFAULT
            del t.external_data[:]
            t.dims[:] = [0]
    return copy


def _name_contributed(model: onnx.ModelProto) -> None:
    """Give operators that no valid ONNX operator set holds a domain of their own.

    ONNX Runtime's optimizer fuses layers into nodes such as SimplifiedLayerNormalization without a
    domain, tf2onnx leaves Erfc; GroupNormalization of opset 18 to 20 is deprecated, because it
    scales by group.
    """
    names = CONTRIBUTED | ({"GroupNormalization"} if opset_of(model) < 21 else set())
    found = [
        n for nodes in (model.graph.node, *(f.node for f in model.functions)) for n in nodes
        if n.op_type in names and n.domain in ("", "ai.onnx")
    ]
    for n in found:
        n.domain = CONTRIB_DOMAIN
    if found and not opset_of(model, CONTRIB_DOMAIN):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB_DOMAIN, 1))
        for f in model.functions:
            f.opset_import.append(onnx.helper.make_opsetid(CONTRIB_DOMAIN, 1))


def _check_dims(model: onnx.ModelProto, where: str) -> None:
    for t in tensors(model):
        count = 1
        for d in t.dims:
            count *= d
            if not 0 <= d <= MAX_DIM or count > MAX_ELEMENTS:
                raise ModelError(
                    f"{where}: tensor '{t.name}' has shape {list(t.dims)}, which is out of range; "
                    "the file is damaged, export it again"
                )


def _resolve_external(model: onnx.ModelProto, base: Path | None, where: str) -> int:
    """Copy external data into the model; only regular files inside its directory are read.

    Return the bytes that were read.
    """
    total = 0
    for t in tensors(model):
        if t.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if base is None:
            raise ModelError(
                f"{where}: tensor '{t.name}' lies in an external file; pass the model's path, "
                "or load it with onnx.load"
            )
        entries = {e.key: e.value for e in t.external_data}
        t.raw_data = data = _read_external(entries, t.name, base, where)
        t.data_location = onnx.TensorProto.DEFAULT
        del t.external_data[:]
        total += len(data)
        width = _WIDTHS.get(t.data_type)
        if width is not None and len(data) != math.prod(t.dims) * width:
            raise ModelError(
                f"{where}: not a valid ONNX model: tensor '{t.name}' of shape {list(t.dims)} has "
                f"{len(data)} bytes of external data; export it again"
            )
    return total


def _read_external(entries: dict[str, str], tensor: str, base: Path, where: str) -> bytes:
    location = entries.get("location", "")
    root = base.resolve()
    try:
        file = (root / location).resolve()
        inside = bool(location) and file.is_relative_to(root) and not Path(location).is_absolute()
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise ModelError(
            f"{where}: tensor '{tensor}' points to external data at {location!r}, outside the "
            "model's directory; such a path is refused, save the model again beside its data"
        )
    try:
        if not file.is_file():
            raise ModelError(
                f"{where}: external data {location!r} of tensor '{tensor}' is missing; "
                "copy it beside the model"
            )
        size = file.stat().st_size
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
        if offset < 0 or length < 0 or offset + length > size:
            raise ModelError(
                f"{where}: tensor '{tensor}' wants bytes {offset} to {offset + length} of "
                f"{location!r}, which has {size}; the data file is truncated, copy it again"
            )
        with file.open("rb") as f:
            f.seek(offset)
            return f.read(length)
    except ValueError as e:
        raise ModelError(
            f"{where}: tensor '{tensor}' has external offset or length that is no number"
        ) from e
    except OSError as e:
        raise ModelError(
            f"{where}: external data {location!r} cannot be read ({e.strerror})"
        ) from e
