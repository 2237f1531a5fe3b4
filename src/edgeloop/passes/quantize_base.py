"""Round frozen weights to codes: int8, int4, f16 or bf16."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from edgeloop.ir import Array, Graph, Node, Stored, Value
from edgeloop.ir.stored import CODES, groups_of, to_bf16
from edgeloop.quantize import Quantize

# Operators whose frozen input may be stored, and that input's place; `store_base` knows them too.
WEIGHT_INPUT = {"linear": 1, "linear_dx": 1, "conv2d": 1, "conv2d_dx": 1, "gather": 0}
# Those whose products have kernels in bfloat16.
DENSE = frozenset({"linear"})


def quantize_base(
    graph: Graph, option: Quantize, *, read_by: frozenset[str] = frozenset(WEIGHT_INPUT)
) -> Graph:
    """Give every frozen weight of a product, a convolution or an embedding codes.

    Symmetric codes use -127..127 (int8) or -7..7 (int4), scale = max|w| / 127 or / 7 of the group,
    rounded half to even. Biases, norms and what already has codes stay as they are, and so does a
    weight that an operator reads which needs f32 (``unstored`` says which and why).
    Only weights that an operator of ``read_by`` reads get codes.

    Requires: constants and batch norms folded. Ensures: the constants hold what the codes mean.
    """
    out = graph.copy()
    users = out.users()
    for v, array in list(out.constants.items()):
        readers = users.get(v, [])
        if v in out.stored or not _is_weight(v, users) or _kept(v, readers, option.skip):
            continue
        if not any(n.op in read_by for n in readers):
            continue
        entry = encode(array, option)
        if entry is not None and entry.nbytes < array.nbytes:
            out.stored[v] = entry
            out.constants[v] = entry.array()
    return out


def unstored(graph: Graph, option: Quantize) -> dict[str, str]:
    """Name every weight that stays f32, with the reason."""
    users = graph.users()
    reasons = {}
    for v in graph.constants:
        readers = users.get(v, [])
        if v not in graph.stored and _is_weight(v, users):
            reasons[v.name] = _kept(v, readers, option.skip) or "codes would not be smaller"
    return reasons


def _is_weight(v: Value, users: Mapping[Value, list[Node]]) -> bool:
    """Tell whether some operator reads it as its weight, or its sum with a LoRA."""
    if v.type.dtype != "f32" or v.type.rank < 2:
        return False
    return any(
        _reads(n, v) or _reads_f32(n, v) or (n.op == "add" and _adapts(n, users))
        for n in users.get(v, [])
    )


def _adapts(n: Node, users: Mapping[Value, list[Node]]) -> bool:
    """Tell whether a sum (or what scales it) is some operator's weight."""
    return any(
        _reads(m, n.output) or _reads_f32(m, n.output) or (m.op == "mul" and _adapts(m, users))
        for m in users.get(n.output, [])
    )


def _reads_f32(n: Node, v: Value) -> bool:
    """Tell whether ``n`` is a recurrence over ``v``, which its kernel reads in every time step."""
    return n.op in ("lstm", "gru") and n.inputs[1] is v


def _reads(n: Node, v: Value) -> bool:
    """Tell whether ``n`` reads ``v`` as its weight and nowhere else."""
    at = WEIGHT_INPUT.get(n.op)
    if at is None or n.inputs[at] is not v or sum(i is v for i in n.inputs) > 1:
        return False
    return n.op != "gather" or (v.type.rank == 2 and n.attrs.get("axis", 0) == 0)


def _kept(v: Value, readers: list[Node], skip: tuple[str, ...]) -> str:
    """Say why a weight stays f32, "" when it does not."""
    for n in readers:
        if any(fnmatchcase(n.name, p) for p in skip):
            return "named by skip"
        if not _reads(n, v):
            return f"{n.op} of layer '{n.name}' reads it as f32"
    return ""


def encode(array: Array, option: Quantize) -> Stored | None:
    """Return the codes of an array; None where it is not finite (or too large for f16 or bf16)."""
    if not np.all(np.isfinite(array)):
        return None
    if option.kind == "f16":
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        none = np.zeros(0, np.float32)
        return Stored(half, none, None, "f16") if np.all(np.isfinite(half)) else None
    if option.kind == "bf16":
        made = Stored(to_bf16(array), np.zeros(0, np.float32), None, "bf16")
        return made if np.all(np.isfinite(made.array())) else None
    rows = array.shape[0]
    flat = array.reshape(rows, -1).astype(np.float32)
    group = option.elements if option.elements < flat.shape[1] else 0
    size = group or flat.shape[1]
    count = groups_of(flat.shape[1], group)
    padded = np.zeros((rows, count * size), np.float32)
    padded[:, : flat.shape[1]] = flat
    parts = padded.reshape(rows, count, size)
    low, high = CODES[option.kind]
    if option.zero_point:
        least, most = np.minimum(parts.min(-1), 0), np.maximum(parts.max(-1), 0)
        scale = _positive((most - least) / np.float32(high - low))
        zero = np.clip(np.rint(-least / scale) + low, low, high).astype(np.int8)
    else:
        low, zero = -high, None
        scale = _positive(np.abs(parts).max(-1) / np.float32(high))
    level = np.rint(parts / scale[..., None])
    if zero is not None:
        level = level + zero[..., None]
    codes = np.clip(level, low, high).astype(np.int8)
    codes = codes.reshape(rows, -1)[:, : flat.shape[1]].reshape(array.shape)
    return Stored(np.ascontiguousarray(codes), scale, zero, option.kind, group)


def _positive(scale: Array) -> Array:
    """Return the scale as f32, 1 for a group of zeros."""
    out: Array = np.where(scale > 0, scale, 1).astype(np.float32)
    return out
