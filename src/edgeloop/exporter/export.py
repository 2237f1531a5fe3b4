"""Write ONNX models with what was learned in them, and onnxruntime's adapter files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeloop.errors import AdapterError, ProgramError
from edgeloop.exporter.learned import Learned, learned
from edgeloop.exporter.surgery import Surgery
from edgeloop.importer import load_model
from edgeloop.importer.load import read_model
from edgeloop.importer.modules import Module
from edgeloop.importer.shapes import symbols
from edgeloop.ir import Array
from edgeloop.program import Program, files

Model = str | os.PathLike[str] | onnx.ModelProto
_TABLES = {"embedding", "linear"}  # [entries, width] and [out, in]
_MAX_PROTO = 2**31 - 1 - (1 << 20)


def export_onnx(
    model: Model, program: Program, adapter: Mapping[str, Any] | None,
    path: str | os.PathLike[str], mode: str = "merged",
) -> None:
    """Write the model that the program was compiled from, with what was learned.

    Parameters
    ----------
    model
        The ONNX model that was compiled.
    adapter
        From ``session.adapter()``; None is what the program starts with.
    path
        The ONNX file; it appears complete or not at all.
    mode
        "merged": learned weights take the place of the model's own; nothing else changes.
        "inputs": LoRA, IA3 and trained weights become inputs of the model with defaults that
        change nothing, for ``onnx_inputs`` or an ``.onnx_adapter``; ``adapter`` is not used. LoRA's
        rank is a free dimension, so that adapters of any rank fit.

    Raises
    ------
    AdapterError
        A layer cannot be written in this mode (named), the arrays do not fit or are not finite,
        or the model is another one.
    """
    if mode not in ("merged", "inputs"):
        raise AdapterError(f"mode '{mode}' is unknown; use 'merged' or 'inputs'")
    proto, modules = _read(model, program)
    found = learned(program, None if mode == "inputs" else adapter, modules)
    surgery = Surgery(proto)
    shared = _tie(surgery, found, modules, program.metadata.get("head_layer") or "")
    if shared and mode == "inputs":
        raise AdapterError(f"'{shared}' shares a weight that trains with another layer; two "
                           "layers cannot read one input: use mode='merged'")
    for x in found:
        if mode == "merged":
            _merge(surgery, x)
        else:
            _offer(surgery, x)
    if proto.ByteSize() > _MAX_PROTO:
        raise AdapterError(f"{path}: the model is larger than one protobuf file can be")
    onnx.checker.check_model(proto)
    _write(path, proto.SerializeToString(deterministic=True))


def onnx_inputs(
    model: Model, program: Program, adapter: Mapping[str, Any] | None = None
) -> dict[str, Array]:
    """Return the adapter as inputs of the model that ``export_onnx(mode="inputs")`` writes.

    Scales are multiplied into LoRA's B; every array is float32. Raises AdapterError as it does.
    """
    proto, modules = _read(model, program)
    surgery = Surgery(proto)
    feeds: dict[str, Array] = {}
    for x in learned(program, adapter, modules):
        feeds |= _offer(surgery, x)
    return feeds


def export_onnx_adapter(
    model: Model, program: Program, adapter: Mapping[str, Any] | None,
    path: str | os.PathLike[str],
) -> None:
    """Write an ``.onnx_adapter`` for the model that ``export_onnx(mode="inputs")`` writes.

    The file is put in place by a rename: onnxruntime maps it, so a session that holds the old one
    keeps it. Needs the package onnxruntime.

    Raises
    ------
    AdapterError
        As ``export_onnx``; or onnxruntime is missing.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as e:
        raise AdapterError(
            "writing .onnx_adapter needs onnxruntime: pip install 'edgeloop[export]'") from e
    feeds = onnx_inputs(model, program, adapter)
    form = ort.AdapterFormat()
    form.set_adapter_version(1)
    form.set_model_version(1)
    form.set_parameters({
        k: ort.OrtValue.ortvalue_from_numpy(feeds[k]) for k in sorted(feeds)
    })
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
    try:
        form.export_adapter(str(draft))
        _write(target, draft.read_bytes())
    except OSError as e:
        raise AdapterError(f"{path}: cannot write the adapter: {e.strerror}") from e
    finally:
        draft.unlink(missing_ok=True)


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    try:
        files.write(path, data)
    except ProgramError as e:
        raise AdapterError(str(e)) from e


def _read(model: Model, program: Program) -> tuple[onnx.ModelProto, dict[str, Module]]:
    """Return a copy of the model and what its layers are."""
    proto = read_model(model)
    sizes = {
        name: list(t["shape"]) for name, t in (program.metadata.get("inputs") or {}).items()
    }
    imported = load_model(proto, batch=program.batch, shapes=symbols(proto, sizes))
    return proto, imported.modules


def _tie(s: Surgery, found: list[Learned], modules: Mapping[str, Module], head: str) -> str:
    """Give a weight that trains to all layers that share it: it is one param under one name.

    An embedding and a dense layer may share one. Weights of equal elements are apart in the
    compiler too: exporters merge equal zeros; and a new ``head`` shares nothing. Returns a layer
    that got one, or ''.
    """
    got, known = "", {x.layer: x for x in found}
    for x in [x for x in found if "weight" in x.parts and x.module.kind != "norm"]:
        if x.layer == head:
            continue
        mine = _weight(s, s.node(x.module.node, x.layer), x)
        if bool((mine == mine.flat[0]).all()):
            continue
        for layer, m in modules.items():
            other = known.get(layer) or Learned(layer, m, 1.0, at_input=False)
            kinds = {m.kind, x.module.kind}
            alike = m.shape == x.module.shape and (len(kinds) == 1 or kinds == _TABLES)
            if not alike or layer == head or "weight" in other.parts:
                continue
            if np.array_equal(_weight(s, s.node(m.node, layer), other), mine):
                got, other.parts["weight"] = layer, x.parts["weight"]
                if layer not in known:
                    known[layer] = other
                    found.append(other)
    return got


def _merge(s: Surgery, x: Learned) -> None:
    """Write what a layer learned into its weight and bias."""
    m = x.module
    node = s.node(m.node, x.layer)
    if m.kind == "norm":
        for index, what in ((1, "weight"), (2, "bias")):
            if what in x.parts:
                s.put(node, index, x.parts[what], f"{x.layer}.{what}")
        return
    old = _weight(s, node, x)
    new = x.weight(old)
    if any(not p.startswith("bias") for p in x.parts):
        s.put(node, m.index, new.T if m.flipped else new, f"{x.layer}.weight")
    if x.changes_bias():
        _merge_bias(s, node, x, len(new))
    if len(new) != len(old):
        _widen(s, len(old), len(new))


def _merge_bias(s: Surgery, node: onnx.NodeProto, x: Learned, width: int) -> None:
    reader, index = _bias_place(s, node, width)
    base = None if reader is None else s.known(reader.input[index])
    flat = None if base is None else base.reshape(-1).astype(np.float64)
    if flat is not None and _beta(node) != 1.0 and reader is node:
        flat = flat * _beta(node)
    bias = x.bias(flat)
    if bias is None:
        return
    if reader is None and node.op_type == "MatMul":
        name = s.fresh(f"{x.layer}.bias")
        s.store(name, bias)
        out = s.rename_output(node, f"{x.layer}.product")
        _insert_as(s, node, "Add", [node.output[0], name], out)
        return
    if reader is None:
        reader, index = node, 2
    if reader is node and _beta(node) != 1.0:
        bias = bias / _beta(node)
    s.put(reader, index, bias, f"{x.layer}.bias")


def _insert_as(s: Surgery, after: onnx.NodeProto, op: str, inputs: list[str], out: str) -> None:
    """Add a node that makes the tensor ``out``, which another node made before."""
    made = s.insert(after, op, inputs, out)
    node = s.made.pop(made)
    node.output[0] = out
    s.made[out] = node


def _beta(node: onnx.NodeProto) -> float:
    if node.op_type != "Gemm":
        return 1.0
    return next((float(a.f) for a in node.attribute if a.name == "beta"), 1.0)


def _bias_place(
    s: Surgery, node: onnx.NodeProto, width: int
) -> tuple[onnx.NodeProto | None, int]:
    """Return where the layer's bias is read: by the node itself, or by the Add behind it.

    An Add counts under the same conditions as in the compiler (`attach_bias`).
    """
    if node.op_type in ("Gemm", "Conv") and len(node.input) > 2 and node.input[2]:
        return node, 2
    out = node.output[0]
    readers = s.readers(out)
    if len(readers) == 1 and readers[0][0].op_type == "Add" and not s.shared(out):
        add, mine = readers[0]
        other = s.known(add.input[1 - mine])
        if other is not None and other.size == width == (other.shape or (0,))[-1]:
            return add, 1 - mine
    return None, 0


def _weight(s: Surgery, node: onnx.NodeProto, x: Learned) -> Array:
    """Return the weight that the node reads, in PyTorch's layout."""
    array = s.known(node.input[x.module.index])
    if array is None:
        raise AdapterError(f"'{x.layer}': its weight is computed in the model; it cannot be merged")
    return array.T if x.module.flipped else array


def _widen(s: Surgery, old: int, new: int) -> None:
    """Another number of classes: outputs that had the old one in their last dim get the new."""
    del s.graph.value_info[:]
    for o in s.graph.output:
        dims = o.type.tensor_type.shape.dim
        if dims and dims[-1].dim_value == old:
            dims[-1].dim_value = new


# Adapters as inputs -------------------------------------------------------------------------------


def _offer(s: Surgery, x: Learned) -> dict[str, Array]:
    """Make what a layer learned inputs of the model; return what to feed for ``x``'s arrays."""
    feeds: dict[str, Array] = {}
    node = s.node(x.module.node, x.layer)
    cut = next((p for p in x.parts if "[" in p), None)
    if "lora_magnitude" in x.parts or cut or "lora_embedding_A" in x.parts:
        what = "DoRA" if "lora_magnitude" in x.parts else "a range" if cut else "an embedding"
        raise AdapterError(
            f"'{x.layer}': {what} cannot be an input of the model; use mode='merged'")
    if "weight" in x.parts:
        feeds |= _offer_weight(s, node, x)
    if "bias" in x.parts:
        feeds |= _offer_bias(s, node, x)
    if "ia3" in x.parts:
        feeds |= _offer_ia3(s, node, x)
    if "lora_A" in x.parts:
        feeds |= _offer_lora(s, node, x)
    return feeds


def _offer_weight(s: Surgery, node: onnx.NodeProto, x: Learned) -> dict[str, Array]:
    m, given = x.module, x.parts["weight"].astype(np.float64)
    if m.kind == "norm":
        old, new = s.known(node.input[1]), given
    else:
        old, new = _weight(s, node, x), x.torch_order(given)
        if m.flipped:
            old, new = old.T, new.T
    if old is None or old.shape != new.shape:
        raise AdapterError(f"'{x.layer}': a weight of another shape cannot be an input; use "
                           "mode='merged'")
    name = s.put(node, m.index, old, f"{x.layer}.weight")
    s.offer(name, old.shape)
    return {name: np.ascontiguousarray(new, np.float32)}


def _offer_bias(s: Surgery, node: onnx.NodeProto, x: Learned) -> dict[str, Array]:
    given = x.parts["bias"]
    reader, index = (node, 2) if x.module.kind == "norm" else _bias_place(s, node, len(given))
    old = None if reader is None else s.known(reader.input[index])
    if reader is None or old is None or old.size != given.size:
        raise AdapterError(f"'{x.layer}': the model has no such bias; use mode='merged'")
    name = s.put(reader, index, old, f"{x.layer}.bias")
    s.offer(name, old.shape)
    beta = _beta(node) if reader is node else 1.0
    return {name: np.ascontiguousarray(given.reshape(old.shape) / np.float32(beta), np.float32)}


def _offer_ia3(s: Surgery, node: onnx.NodeProto, x: Learned) -> dict[str, Array]:
    gate = x.parts["ia3"]
    window = len(x.module.shape) - 2 if x.module.kind.startswith("conv") else 0
    shape = (len(gate), *(1,) * window)
    name = s.fresh(f"{x.layer}.ia3")
    s.store(name, np.ones(shape, np.float32))
    s.offer(name, shape)
    if x.at_input:
        node.input[0] = s.before(node, "Mul", [node.input[0], name], f"{x.layer}.scaled")
    else:
        reader, _ = _bias_place(s, node, len(gate))
        last = node if reader is None else reader
        out = s.rename_output(last, f"{x.layer}.unscaled")
        _insert_as(s, last, "Mul", [last.output[0], name], out)
    return {name: np.ascontiguousarray(gate.reshape(shape), np.float32)}


def _offer_lora(s: Surgery, node: onnx.NodeProto, x: Learned) -> dict[str, Array]:
    """Y = W x + (x A) B for dense layers; elsewhere the weight becomes W + (A B)' first.

    A [inner, rank] and B [rank, out] with the scale in it; by default of rank 0.
    """
    factors = x.factors()
    assert factors is not None
    a, b = factors[0].T, x.scale * factors[1].T
    rank = s.fresh(f"{x.layer}.rank")
    names = []
    for what, empty in (("lora_A", (a.shape[0], 0)), ("lora_B", (0, b.shape[1]))):
        name = s.fresh(f"{x.layer}.{what}")
        s.store(name, np.zeros(empty, np.float32))
        s.offer(name, [n or rank for n in empty])
        names.append(name)
    if x.module.kind == "linear":
        source = node.input[0]
        if any(t.name == "transA" and t.i for t in node.attribute):
            source = s.before(node, "Transpose", [source], f"{x.layer}.turned", perm=[1, 0])
        out = s.rename_output(node, f"{x.layer}.base")
        up = s.insert(node, "MatMul", [source, names[0]], f"{x.layer}.down")
        up = s.insert(s.made[up], "MatMul", [up, names[1]], f"{x.layer}.up")
        _insert_as(s, s.made[up], "Add", [node.output[0], up], out)
    else:
        shape = s.fresh(f"{x.layer}.weight_shape")
        dims = onnx.numpy_helper.from_array(np.asarray(x.module.shape, np.int64), shape)
        s.graph.initializer.append(dims)
        change = s.before(node, "MatMul", names, f"{x.layer}.product")
        change = s.before(node, "Transpose", [change], f"{x.layer}.turned", perm=[1, 0])
        change = s.before(node, "Reshape", [change, shape], f"{x.layer}.change")
        index = x.module.index
        node.input[index] = s.before(
            node, "Add", [node.input[index], change], f"{x.layer}.adapted")
    return {names[0]: np.ascontiguousarray(a, np.float32),
            names[1]: np.ascontiguousarray(b, np.float32)}
