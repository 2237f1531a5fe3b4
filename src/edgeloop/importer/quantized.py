"""Bring the forms in which quantizers write a model to one: QuantizeLinear and DequantizeLinear.

onnxruntime and optimum write integer operators (QLinearConv, QGemm, ...), dynamic ones
(DynamicQuantizeLinear with MatMulInteger or ConvInteger) and weights in blocks of few bits
(MatMulNBits, GatherBlockQuantized), and look embeddings up in their codes. Each becomes its float
operator between dequantized operands, so that the walk meets codes only between a quantizer and its
DequantizeLinear.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeloop.errors import ModelError
from edgeloop.importer.fold import attributes
from edgeloop.ir import Array, Graph, Stored

_MS: Final = "com.microsoft"
# Integer operator: (float operator, operands before the output's scale).
_UNARY: Final = {
    "QLinearSigmoid": "Sigmoid", "QLinearLeakyRelu": "LeakyRelu",
    "QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearAveragePool": "AveragePool",
    "QLinearSoftmax": "Softmax", "QLinearReduceMean": "ReduceMean",
}
_TWO: Final = {"QLinearAdd": "Add", "QLinearMul": "Mul", "QLinearMatMul": "MatMul",
               "QLinearConv": "Conv", "QGemm": "Gemm"}
_INTEGER: Final = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}
_FUSED: Final = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
_BLOCKS: Final = ("MatMulNBits", "GatherBlockQuantized")
REWRITTEN: Final = frozenset({
    *_UNARY, *_TWO, *_INTEGER, *_FUSED, *_BLOCKS, "QLinearConcat",
})
# Attributes that only the integer operators have.
_OWN: Final = frozenset({"channels_last", "opset", "auto_pad_default", "alpha"})


def rewrite_quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite integer operators, maybe in place; a model without them is returned as it is.

    Raises
    ------
    ModelError
        An operand that must be constant (scales, packed weights) is not, or has a wrong size.
    """
    rewriter = _Rewriter(model.graph)
    if not any(n.op_type in REWRITTEN or rewriter.reads_codes(n) for n in model.graph.node):
        return model
    nodes = [made for n in model.graph.node for made in rewriter.node(n)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def storage_notes(graph: Graph) -> list[str]:
    """Say in which codes the model keeps its weights, and where it rounds activations."""
    counts: dict[str, list[Stored]] = {}
    for s in graph.stored.values():
        where = "per channel" if not s.group else f"in groups of {s.group}"
        if not s.group and (s.scale == s.scale.reshape(-1)[:1]).all():
            where = "per tensor"
        zero = "" if s.zero is None else ", with zero points"
        counts.setdefault(f"{s.kind} {where}{zero}", []).append(s)
    notes = [
        f"{len(found)} weights are stored as {kind}: {sum(s.nbytes for s in found)} bytes"
        for kind, found in counts.items()
    ]
    rounded = [n for n in graph.nodes if n.op == "fake_quant"]
    dynamic = sum(n.inputs[1] not in graph.constants for n in rounded)
    for count, kind in ((len(rounded) - dynamic, "static"), (dynamic, "dynamic")):
        if count:
            notes.append(f"activations are rounded to {kind} grids at {count} places")
    return notes


class _Rewriter:
    """Knows the constants of a graph, who makes and who reads each name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._known = {t.name: t for t in graph.initializer}
        self._made: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for n in graph.node:
            self._made.update(dict.fromkeys(n.output, n))
            for i in n.input:
                self._readers.setdefault(i, []).append(n)
            if n.op_type == "Constant" and n.attribute and n.attribute[0].name == "value":
                self._known[n.output[0]] = n.attribute[0].t
        self._skipped: set[str] = set()

    def node(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield what replaces one node."""
        op = n.op_type
        if n.output and n.output[0] in self._skipped:
            return
        if op in _INTEGER:
            yield from self._integer(n)
        elif op in _TWO:
            yield from self._two(n)
        elif op in _UNARY:
            yield from self._operand(n, 0, 0)
            yield self._call(n, _UNARY[op], [f"{n.output[0]}.dq0"])
            yield from self._quantize(n, 3)
        elif op == "QLinearConcat":
            count = (len(n.input) - 2) // 3
            for k in range(count):
                yield from self._operand(n, k, 2 + 3 * k)
            yield self._call(n, "Concat", [f"{n.output[0]}.dq{k}" for k in range(count)])
            yield from self._quantize(n, 0)
        elif op == "MatMulNBits" and n.domain == _MS:
            yield from self._matmul_blocks(n)
        elif op == "GatherBlockQuantized" and n.domain == _MS:
            yield from self._gather_blocks(n)
        elif op in _FUSED and n.domain == _MS:
            yield from self._fused(n)
        elif self.reads_codes(n):
            yield from self._lookup(n)
        else:
            yield n

    def reads_codes(self, n: onnx.NodeProto) -> bool:
        """Tell whether a Gather picks from constant codes with one scale, which a reader names."""
        table = self._known.get(n.input[0]) if n.op_type == "Gather" and n.input else None
        if table is None or table.data_type not in (TensorProto.INT8, TensorProto.UINT8):
            return False
        scale = self._known.get(next(iter(self._grid_of(n.output[0])), ""))
        return scale is not None and math.prod(scale.dims) == 1

    def _grid_of(self, codes: str) -> list[str]:
        """Scale and zero point that a reader of codes gives for them, most often behind them."""
        for n in self._readers.get(codes, []):
            if n.op_type == "DequantizeLinear" or n.op_type in {*_UNARY, *_TWO, "QLinearConcat"}:
                at = list(n.input).index(codes)
                return [i for i in n.input[at + 1:at + 3] if i]
            if n.op_type in _INTEGER and n.input[0] == codes and len(n.input) > 2:
                return [f"{n.input[2].removesuffix('_zero_point')}_scale", n.input[2]]
        return []

    # Parts ---------------------------------------------------------------------------------

    def _array(self, n: onnx.NodeProto, name: str, what: str) -> Array:
        if name not in self._known:
            raise ModelError(f"{n.op_type} node '{n.name}': {what} must be constant; quantize the "
                             "model again with constant scales and weights")
        return numpy_helper.to_array(self._known[name])

    def _constant(self, array: Array, name: str) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self._graph.initializer.append(tensor)
        self._known[name] = tensor
        return name

    def _operand(
        self, n: onnx.NodeProto, k: int, at: int, *, axis: int = 1
    ) -> Iterator[onnx.NodeProto]:
        """Dequantize operand ``k``, whose codes, scale and zero are inputs from ``at`` on."""
        yield helper.make_node("DequantizeLinear", [i for i in n.input[at:at + 3] if i],
                               [f"{n.output[0]}.dq{k}"], f"{n.name}.dq{k}", axis=axis)

    def _quantize(self, n: onnx.NodeProto, at: int) -> Iterator[onnx.NodeProto]:
        """Quantize the float result with the scale and zero at inputs ``at`` and ``at + 1``."""
        yield helper.make_node(
            "QuantizeLinear", [f"{n.output[0]}.float", *(i for i in n.input[at:at + 2] if i)],
            [n.output[0]], f"{n.name}.q")

    def _call(self, n: onnx.NodeProto, op: str, inputs: list[str], out: str = "",
              **more: Any) -> onnx.NodeProto:
        kept = {k: v for k, v in attributes(n).items()
                if k not in _OWN or (k == "alpha" and op in ("Gemm", "LeakyRelu"))}
        if attributes(n).get("channels_last", 0):
            raise ModelError(f"{n.op_type} node '{n.name}' has its channels last; quantize the "
                             "model as it was exported, channels first")
        name = n.name.removesuffix("_quant")
        return helper.make_node(op, inputs, [out or f"{n.output[0]}.float"], name, **kept, **more)

    def _two(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Conv, MatMul, Gemm, Add, Mul: a, its scale and zero, b, its scale and zero, ..."""
        gemm = n.op_type == "QGemm"
        transposed = attributes(n).get("transB", 0) if gemm else n.op_type == "QLinearConv"
        yield from self._operand(n, 0, 0)
        yield from self._operand(n, 1, 3, axis=0 if transposed else -1)
        inputs = [f"{n.output[0]}.dq0", f"{n.output[0]}.dq1"]
        at = 7 if gemm else 6
        bias = n.input[6 if gemm else 8] if len(n.input) > (6 if gemm else 8) else ""
        if n.op_type in ("QLinearConv", "QGemm") and bias:
            scales = [self._array(n, n.input[i], "a scale").reshape(-1) for i in (1, 4)]
            alpha = np.float32(attributes(n).get("alpha", 1.0) if gemm else 1.0)
            scale = np.asarray(alpha * scales[0] * scales[1], np.float32)
            scale = scale.reshape(()) if scale.size == 1 else scale
            name = self._constant(scale, f"{n.output[0]}.bias_scale")
            yield helper.make_node("DequantizeLinear", [bias, name], [f"{n.output[0]}.dq2"],
                                   f"{n.name}.dq2", axis=0)
            inputs.append(f"{n.output[0]}.dq2")
        ends = len(n.input) <= at or not n.input[at]  # QGemm may keep its result in float
        yield self._call(n, _TWO[n.op_type], inputs, n.output[0] if ends else "")
        if not ends:
            yield from self._quantize(n, at)

    def _integer(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Take Cast(integer product) * (scale of a * scale of b) as one float product."""
        cast = self._only_reader(n.output[0], "Cast")
        mul = self._only_reader(cast.output[0], "Mul") if cast else None
        maker = self._made.get(n.input[0])
        scales = None
        if cast and mul:
            other = [i for i in mul.input if i != cast.output[0]]
            scales = self._made.get(other[0]) if len(other) == 1 else None
        scale = ""
        if maker is not None and maker.op_type == "DynamicQuantizeLinear":
            scale = maker.output[1]
        elif maker is not None and self.reads_codes(maker):
            scale = self._grid_of(n.input[0])[0]
        if (cast is None or mul is None or scales is None or scales.op_type != "Mul"
                or scale not in scales.input):
            raise ModelError(
                f"{n.op_type} node '{n.name}' does not stand between a DynamicQuantizeLinear and "
                "a Cast and Mul by both scales, as quantizers write it; quantize the model again")
        own = list(scales.input).index(scale)
        zeros = [*n.input[2:4], "", ""]
        self._skipped.update((cast.output[0], mul.output[0]))
        yield from self._product(n, _INTEGER[n.op_type], (scale, zeros[0]),
                                 (scales.input[1 - own], zeros[1]), mul.output[0])

    def _product(
        self, n: onnx.NodeProto, op: str, a: tuple[str, str], b: tuple[str, str], out: str
    ) -> Iterator[onnx.NodeProto]:
        for k, (scale, zero) in enumerate((a, b)):
            axis = 0 if op == "Conv" else -1
            array = self._known.get(scale)
            if array is not None and op == "Conv" and len(array.dims) > 1:
                scale = self._constant(numpy_helper.to_array(array).reshape(-1), f"{scale}.flat")  # noqa: PLW2901
            yield helper.make_node(
                "DequantizeLinear", [n.input[k], scale, *([zero] if zero else [])],
                [f"{out}.dq{k}"], f"{n.name}.dq{k}", axis=axis)
        yield self._call(n, op, [f"{out}.dq0", f"{out}.dq1"], out)

    def _fused(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Split DynamicQuantizeMatMul(a, b, sb, zb), MatMulIntegerToFloat(a, b, sa, sb, za, zb)."""
        given, out = [*n.input, *[""] * 7], n.output[0]
        if n.op_type == "DynamicQuantizeMatMul":
            names = [f"{out}.{k}" for k in ("codes", "scale", "zero")]
            yield helper.make_node("DynamicQuantizeLinear", [given[0]], names, f"{n.name}.q")
            call = helper.make_node("MatMulInteger", [names[0], given[1]], [out], n.name)
            grids, bias = ((names[1], names[2]), (given[2], given[3])), given[4]
        else:
            call = helper.make_node("MatMulInteger", [given[0], given[1]], [out], n.name)
            grids, bias = ((given[2], given[4]), (given[3], given[5])), given[6]
        yield from self._product(call, "MatMul", *grids, f"{out}.product" if bias else out)
        if bias:
            yield helper.make_node("Add", [f"{out}.product", bias], [out], n.name)

    def _lookup(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Dequantize the table rather than the rows picked from it: the same numbers."""
        out, grid = n.output[0], self._grid_of(n.output[0])
        reader = self._only_reader(out, "DequantizeLinear")
        rows = reader.output[0] if reader is not None else f"{out}.float"
        self._skipped.update([rows] if reader is not None else [])
        yield helper.make_node("DequantizeLinear", [n.input[0], *grid], [f"{out}.dq0"],
                               f"{n.name}.dq0")
        yield helper.make_node("Gather", [f"{out}.dq0", n.input[1]], [rows],
                               n.name.removesuffix("_quant"), **attributes(n))
        if reader is None:
            yield helper.make_node("QuantizeLinear", [rows, *grid], [out], f"{n.name}.q")

    def _only_reader(self, name: str, op: str) -> onnx.NodeProto | None:
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == op else None

    # Weights in blocks ------------------------------------------------------------------------

    def _matmul_blocks(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Y = a @ dequantized([n, k]).T; B is uint8 [n, blocks, bytes of a block]."""
        a = attributes(n)
        k, rows, bits, block = (int(a.get(i, d)) for i, d in (("K", 0), ("N", 0), ("bits", 4),
                                                               ("block_size", 32)))
        given, out = [*n.input, *[""] * 6], n.output[0]
        if given[4]:
            raise ModelError(f"MatMulNBits node '{n.name}' reorders its input (g_idx); quantize "
                             "the model without act_order")
        if block < 1 or bits not in (4, 8) or k < 1 or rows < 1:
            raise ModelError(f"MatMulNBits node '{n.name}': bits {bits}, block_size {block}; only "
                             "4 and 8 bits are supported")
        blocks = -(-k // block)
        codes = _unpack(self._array(n, given[1], "its weight"), bits, rows, blocks * block, n)
        scale = self._array(n, given[2], "its scale").astype(np.float32).reshape(-1)
        zero = np.full((rows, blocks), 2 ** (bits - 1), np.uint8)
        if given[3]:
            packed = self._array(n, given[3], "its zero point")
            if packed.dtype != np.uint8:
                raise ModelError(f"MatMulNBits node '{n.name}': zero points that are not integers "
                                 "are not supported; quantize again with integer zero points")
            zero = _unpack(packed, bits, rows, blocks, n)
        if scale.size != rows * blocks:
            raise ModelError(f"MatMulNBits node '{n.name}': {scale.size} scales for {rows} rows "
                             f"of {blocks} blocks; the model is damaged")
        base = given[1]
        kind = TensorProto.UINT4 if bits == 4 else TensorProto.UINT8
        names = [self._typed(codes[:, :k], f"{base}.codes", kind),
                 self._constant(scale.reshape(rows, blocks), f"{base}.scale"),
                 self._typed(zero, f"{base}.zero", kind)]
        yield helper.make_node("DequantizeLinear", names, [f"{out}.dq"], f"{n.name}.dq", axis=1,
                               block_size=block)
        yield helper.make_node("Transpose", [f"{out}.dq"], [f"{out}.w"], f"{n.name}.t",
                               perm=[1, 0])
        product = f"{out}.product" if given[5] else out
        name = n.name.removesuffix(f"_Q{bits}")
        yield helper.make_node("MatMul", [given[0], f"{out}.w"], [product], name)
        if given[5]:
            yield helper.make_node("Add", [product, given[5]], [out], name)

    def _gather_blocks(self, n: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        a, given, out = attributes(n), [*n.input, *[""] * 4], n.output[0]
        data = self._array(n, given[0], "its data")
        axis = int(a.get("quantize_axis", 1)) % data.ndim
        block, bits = int(a.get("block_size", 128)), int(a.get("bits", 4))
        names = [given[0], given[2], *([given[3]] if given[3] else [])]
        if data.dtype == np.uint8 and bits == 4:  # two codes in a byte along the last axis
            if axis != data.ndim - 1:
                raise ModelError(f"GatherBlockQuantized node '{n.name}': packed codes must be "
                                 "quantized along their last axis")
            rows = int(np.prod(data.shape[:-1]))
            shape = (*data.shape[:-1], data.shape[-1] * 2)
            codes = _unpack(data, 4, rows, shape[-1], n).reshape(shape)
            blocks = -(-shape[-1] // block)
            zero = np.full((*shape[:-1], blocks), 8, np.uint8)
            if given[3]:
                packed = self._array(n, given[3], "its zero point")
                zero = _unpack(packed, 4, rows, blocks, n).reshape(zero.shape)
            names = [self._typed(codes, f"{given[0]}.codes", TensorProto.UINT4), given[2],
                     self._typed(zero, f"{given[0]}.zero", TensorProto.UINT4)]
        yield helper.make_node("DequantizeLinear", names, [f"{out}.dq"], f"{n.name}.dq", axis=axis,
                               block_size=block)
        yield helper.make_node("Gather", [f"{out}.dq", given[1]], [out], n.name,
                               axis=int(a.get("gather_axis", 0)))

    def _typed(self, codes: Array, name: str, kind: int) -> str:
        tensor = helper.make_tensor(name, kind, codes.shape, codes.reshape(-1).tolist())
        self._graph.initializer.append(tensor)
        self._known[name] = tensor
        return name


def _unpack(packed: Array, bits: int, rows: int, width: int, n: onnx.NodeProto) -> Array:
    """Return codes uint8 [rows, width]; of 4 bits two are in a byte, the low half first."""
    flat = np.ascontiguousarray(packed).view(np.uint8).reshape(-1)
    row = width if bits == 8 else -(-width // 2)
    if flat.size != rows * row:
        raise ModelError(f"{n.op_type} node '{n.name}': {flat.size} bytes of codes for {rows} rows "
                         f"of {width}; the model is damaged")
    table = flat.reshape(rows, row)
    if bits == 8:
        return table
    return np.stack([table & 15, table >> 4], axis=-1).reshape(rows, -1)[:, :width]
