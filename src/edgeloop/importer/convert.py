"""Walk the ONNX nodes once: fold what is known, convert the rest, list what is unsupported.

A tensor is Known (an array at import), a Value (computed at run time), or Lost: it comes out of an
unsupported operator, and is carried on only so that one error can list every such operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
import onnx.shape_inference

from edgeloop.errors import EdgeLoopError, ModelError, Unsupported, UnsupportedError
from edgeloop.importer.composed import COMPOSED
from edgeloop.importer.fold import SAME_WEIGHT, attributes, can_fold, fold
from edgeloop.importer.grids import Grid, code_type, dequantize, levels, plain_name, quantize
from edgeloop.importer.load import MAX_ELEMENTS, opset_of
from edgeloop.importer.loops import body_of, stacked, unroll
from edgeloop.importer.ml import ML_CONVERTERS
from edgeloop.importer.modules import Module, module_of
from edgeloop.importer.names import Namer, from_weight, weight_name
from edgeloop.importer.shapes import Rebatch, is_float, is_integer, type_name
from edgeloop.importer.sharing import merged_weights
from edgeloop.ir import Array, Graph, Stored, Type, Value
from edgeloop.ops import OPS, Builder, OnnxNode

Converter = Callable[[Builder, OnnxNode], Any]


@dataclass(eq=False, slots=True)
class Known:
    """An array known at import, as ONNX has it, under the weight name it descends from.

    ``stored``: the codes that the model keeps it in.
    """

    array: Array
    name: str
    stored: Stored | None = None
    values: dict[str, Value] = field(default_factory=dict)


class Lost:
    """A tensor that no supported operator computes."""


LOST: Final = Lost()
QUANTIZERS: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
# Operators that move codes, or pick among them, without computing with them: input 0's grid stays.
MOVES_CODES: Final = frozenset({
    "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
})
# ONNX operators that are computed on integers and booleans at run time (i32) as well.
ON_INTEGERS: Final = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "Concat", "CumSum", "Div", "Equal", "Expand",
    "Flatten", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity",
    "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "Pad",
    "ReduceMax", "ReduceMin", "ReduceSum", "Reshape", "ScatterElements", "ScatterND", "Sign",
    "Slice", "Split", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
    "Xor",
})
Tensor = Known | Value | Lost


def converters() -> dict[tuple[str, str], Converter]:
    """Map (domain, ONNX operator) to its converter: the records', composed and ai.onnx.ml ones."""
    table: dict[tuple[str, str], Converter] = {}
    for found in (COMPOSED, *(op.onnx for op in OPS.values())):
        for name, convert in found.items():
            domain, _, op_type = name.rpartition(".")
            table[domain, op_type] = convert
    table.update({("ai.onnx.ml", name): convert for name, convert in ML_CONVERTERS.items()})
    return table


def domain_of(node: onnx.NodeProto) -> str:
    """Return the node's domain, '' for ONNX's own."""
    return "" if node.domain == "ai.onnx" else str(node.domain)


class Walk:
    """One conversion of a checked model with static input shapes into ``graph``."""

    def __init__(
        self,
        model: onnx.ModelProto,
        shapes: dict[str, tuple[int, ...]],
        outputs: Sequence[str],
        notes: list[str],
        rebatch: Rebatch | None = None,
        *,
        learning: bool = False,
    ) -> None:
        self.graph = Graph()
        self.g = Builder(self.graph)
        self.env: dict[str, Tensor] = {"": LOST}
        self.grids: dict[str, Grid] = {}  # codes: their tensor in env holds what they stand for
        self.learned: set[str] = set()
        self.computed: set[str] = set()  # constants that no stored floats went into, as masks
        self.unsupported: list[Unsupported] = []
        self.modules: dict[str, Module] = {}
        self._stored = {t.name: t for t in model.graph.initializer}
        self._model, self._shapes, self._notes = model, shapes, notes
        self._rebatch, self._learning = rebatch, learning
        self._opset = opset_of(model)
        self._table = converters()
        self._namer = Namer(model)
        self._inferred: dict[str, Type] | None = None
        needed = needed_nodes(model.graph.node, outputs)
        self._weighs_last = {
            n.input[1] for n in needed if n.op_type == "MatMul"
            or (n.op_type == "Gemm" and not attributes(n).get("transB", 0))
        }
        self._merged = merged_weights(model, needed)
        self._used = {i for n in needed for i in _reads(n)} | set(outputs)
        self._sources()
        for node in needed:
            self._node(node)
        if self.unsupported:
            raise UnsupportedError(_listing(self.unsupported), self.unsupported)

    # Sources -------------------------------------------------------------------------------

    def _sources(self) -> None:
        narrowed: dict[str, int] = {}
        for t in self._model.graph.initializer:
            if t.name in self._used:
                self.env[t.name] = self._known(t, narrowed)
        for s in self._model.graph.sparse_initializer:
            if s.values.name in self._used:
                raise ModelError(f"initializer '{s.values.name}' is sparse; export it dense")
        for kind, count in narrowed.items():
            self._notes.append(f"{count} {kind} initializers are computed as float32")
        for info in self._model.graph.input:
            if info.name in self._shapes and info.name in self._used:
                kind, whole = type_name(info), is_integer(info)
                if not whole and not is_float(info):
                    raise ModelError(
                        f"input '{info.name}' has element type {kind}, but only float, integer "
                        "and bool inputs are supported; compute that part outside and feed its "
                        "result"
                    )
                small = kind == "uint8" and self._only_cast(info.name)
                if kind not in ("float", "int64", "int32", "bool") and not small:
                    taken = "int32" if whole else "float32"
                    self._notes.append(f"input '{info.name}' ({kind}) is taken as {taken}")
                shape = self._shapes[info.name]
                self.env[info.name] = self.g.input(
                    info.name, Type(shape, "u8" if small else "i32" if whole else "f32")
                )
                self._record(info.name, shape)

    def _only_cast(self, name: str) -> bool:
        """Tell whether an input is made a float, and nothing else reads it: bytes stay bytes."""
        readers = [n for n in self._model.graph.node if name in n.input]
        return bool(readers) and name not in {o.name for o in self._model.graph.output} and all(
            n.op_type == "Cast" and any(
                a.name == "to" and a.i == onnx.TensorProto.FLOAT for a in n.attribute)
            for n in readers)

    def _known(self, t: onnx.TensorProto, narrowed: dict[str, int]) -> Known:
        try:
            array = onnx.numpy_helper.to_array(t)
        except (ValueError, TypeError, KeyError) as e:
            raise ModelError(
                f"initializer '{t.name}' cannot be read ({e}); the file is damaged, export it again"
            ) from e
        if array.size > 1 and _floating(array) and array.dtype != np.float32:
            narrowed[array.dtype.name] = narrowed.get(array.dtype.name, 0) + 1
        return Known(array, t.name)

    # Nodes ---------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto) -> None:
        tensors = [self.env.get(i) for i in node.input]
        if any(t is None for t in tensors):
            missing = next(i for i, t in zip(node.input, tensors, strict=True) if t is None)
            raise ModelError(
                f"{node.op_type} node '{node.name}' reads '{missing}', which nothing computes; "
                "the model is damaged, export it again"
            )
        present = [t for i, t in zip(node.input, tensors, strict=True) if i]
        if node.op_type == "If" and domain_of(node) == "" and isinstance(present[0], Known):
            self._branch(node, present[0])
            return
        if node.op_type == "Loop" and domain_of(node) == "" and LOST not in present:
            self._loop(node, tensors)
            return
        arrays = [t.array if isinstance(t, Known) else None for t in tensors]
        weights = tuple(
            t.name for t in present
            if isinstance(t, Known) and _floating(t.array) and t.array.size > 1
        )
        first = present[0] if present else None
        if node.op_type in QUANTIZERS and domain_of(node) == "" and self._grid(node, tensors):
            return
        if can_fold(node) and all(isinstance(t, Known) for t in present):
            name = first.name if isinstance(first, Known) and node.op_type in SAME_WEIGHT else ""
            results = self._fold(node, arrays)
            stored = _carried(node, first, results[0])
            if not any(_floating(t.array) and t.array.size > 1 and t.name not in self.computed
                       for t in present if isinstance(t, Known)) and node.op_type != "Constant":
                self.computed.update(name or o for o in node.output)
            for o, a in zip(node.output, results, strict=False):
                self.env[o] = Known(a, name or o, stored)
            return
        if node.op_type in ("Shape", "Size") and isinstance(first, Value):
            self.env[node.output[0]] = Known(_shape_of(node, first), node.output[0])
            return
        if node.op_type == "CastLike" and first is not None and first is not LOST:
            self.env[node.output[0]] = self._cast_like(first, present[-1] or LOST)
            return
        if weights or any(i in self.learned for i in node.input):
            self.learned.update(node.output)
        self.g.layer = self._namer.name(node, weights)
        if any(t is LOST for t in present):
            self._carry_on(node)
            return
        names = [t.name if isinstance(t, Known) else "" for t in tensors]
        module = module_of(node, self.g.layer, arrays, names, self._stored)
        if module is not None:
            before = self.modules.get(self.g.layer)
            self.modules[self.g.layer] = module if before is None else before.again()
        self._convert(node, [t for t in tensors if t is not None], arrays)

    def _fold(self, node: onnx.NodeProto, arrays: list[Array | None]) -> list[Array]:
        if self._rebatch is None or self._learning:
            return fold(node, arrays, self._opset)
        if node.op_type == "Expand":
            arrays = self._rebatch.one_row(arrays)
        try:
            return fold(node, arrays, self._opset)
        except ModelError as e:  # it worked with the old batch
            raise self._rebatch.error(str(e)) from e

    def _convert(
        self, node: onnx.NodeProto, tensors: list[Tensor], arrays: list[Array | None]
    ) -> None:
        converter = self._table.get((domain_of(node), node.op_type))
        if converter is None:
            self._give_up(node, "")
            return
        codes = [i for i in node.input if i in self.grids]
        if codes and (node.op_type not in MOVES_CODES or codes != [node.input[0]]):
            self._give_up(node, f"it computes with the codes '{codes[0]}'")
            return
        if codes:
            self.grids.update(dict.fromkeys(node.output, self.grids[codes[0]]))
        whole = any(isinstance(t, Value) and t.type.dtype == "i32" for t in tensors)
        if whole and domain_of(node) == "" and node.op_type not in ON_INTEGERS:
            self._give_up(node, "it is only supported on floats")
            return
        if node.op_type in ("Reshape", "Expand"):
            arrays = self._follow_batch(node, tensors, arrays)
        call = OnnxNode(
            op_type=node.op_type, name=node.name or node.output[0],
            inputs=tuple(self._value(t, node.op_type, i) for i, t in enumerate(tensors)),
            attrs=attributes(node),
            opset=self._opset, outputs=self._count(node), consts=tuple(arrays),
        )
        try:
            result = converter(self.g, call)
        except UnsupportedError as e:
            self._give_up(node, str(e))
            return
        except EdgeLoopError as e:
            where = "" if call.name in str(e) else f"{call.op_type} '{call.name}': "
            error = ModelError(f"{where}{e}")
            baked = self._rebatch is not None and not self._learning
            raise (self._rebatch.error(str(error)) if self._rebatch and baked else error) from e
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
                ValueError) as e:
            raise ModelError(
                f"{call.op_type} node '{call.name}' cannot be converted: its inputs or attributes "
                f"do not fit the operator ({type(e).__name__}: {e}); export the model again"
            ) from e
        values = result if isinstance(result, tuple) else (result,)
        for o, v in zip(node.output, values, strict=False):
            if v is not None:
                self.env[o] = v
                self._record(o, v.type.shape)
                if v.type.size > MAX_ELEMENTS or 0 in v.type.shape:
                    raise ModelError(f"{call.op_type} node '{call.name}' would compute {v.type}")
        for o in node.output:
            if o and o not in self.env and o in self._used:
                self._give_up(node, f"its output '{o}' is not supported", only=o)

    # Quantization -----------------------------------------------------------------------------

    def _grid(self, node: onnx.NodeProto, tensors: Sequence[Tensor | None]) -> bool:
        """Convert a quantizer or DequantizeLinear; False where an operand is lost.

        Codes that are computed are carried as the values that they stand for, with their grid.
        """
        x, where = tensors[0], f"{node.op_type} node '{node.name}'"
        if any(t is LOST for i, t in zip(node.input, tensors, strict=True) if i):
            return False
        attrs = attributes(node)
        if node.op_type == "DynamicQuantizeLinear":
            if not isinstance(x, Value):
                return False
            self.g.layer = self._namer.name(node, ())
            scale, zero = self.g.ops("quant_range", x, lo=0, hi=255, out=f"{node.output[0]}.range")
            self._round(node, x, scale, zero, Grid(node.output[1], node.output[2], 0, 255))
            self.env.update(zip(node.output[1:], (scale, zero), strict=False))
            return True
        scales, zeros = tensors[1], tensors[2] if len(tensors) > 2 else LOST
        names = (node.input[1], node.input[2] if len(node.input) > 2 else "")
        zero_array = zeros.array if isinstance(zeros, Known) else None
        if node.op_type == "DequantizeLinear" and isinstance(x, Value):
            grid = self.grids.get(node.input[0])
            if grid is None or not self._same(names, (grid.scale, grid.zero)):
                raise ModelError(f"{where}: reads codes that no quantizer with the same scale and "
                                 "zero point made; quantize the model again")
            self.env[node.output[0]] = x
            return True
        if not isinstance(scales, Known):
            raise ModelError(f"{where}: its scale must be constant")
        if isinstance(x, Known):
            if node.op_type == "QuantizeLinear":
                self.env[node.output[0]] = Known(
                    quantize(x.array, scales.array, zero_array, attrs, where), x.name)
            else:
                rows = x.array.ndim - 1 if node.output[0] in self._weighs_last else 0
                array, stored = dequantize(x.array, scales.array, zero_array, attrs, where,
                                           rows=max(rows, 0))
                self.env[node.output[0]] = Known(array, plain_name(x.name), stored)
            return True
        assert isinstance(x, Value)
        lo, hi = levels(code_type(attrs, zero_array), where)
        if attrs.get("block_size", 0) or not (scales.array > 0).all():
            raise ModelError(f"{where}: a scale of activations is not positive, or in blocks")
        self.g.layer = self._namer.name(node, ())
        scale = self.g.constant(scales.array.astype(np.float32).reshape(-1), f"{node.name}.scale")
        flat = np.zeros(scale.type.shape) if zero_array is None else zero_array.reshape(-1)
        zero = self.g.constant(flat.astype(np.float32), f"{node.name}.zero")
        axis = int(attrs.get("axis", 1)) % max(x.type.rank, 1)
        self._round(node, x, scale, zero, Grid(*names, lo, hi), axis=axis)
        return True

    def _round(self, node: onnx.NodeProto, x: Value, scale: Value, zero: Value, grid: Grid,
               *, axis: int = 0) -> None:
        axis = 0 if scale.type.size == 1 else axis
        self.env[node.output[0]] = self.g.op("fake_quant", x, scale, zero, lo=grid.lo, hi=grid.hi,
                                             axis=axis, out=f"{node.output[0]}.value")
        self.grids[node.output[0]] = grid
        self._record(node.output[0], x.type.shape)
        if node.input[0] in self.learned:
            self.learned.add(node.output[0])

    def _same(self, ours: Sequence[str], theirs: Sequence[str]) -> bool:
        """Tell whether two pairs of names are the same tensors, or equal constants."""
        for a, b in zip(ours, theirs, strict=True):
            x, y = (self.env.get(i) if i else Known(np.zeros(1), "") for i in (a, b))
            known = isinstance(x, Known) and isinstance(y, Known)
            if a != b and not (known and np.array_equal(x.array.ravel(), y.array.ravel())):  # type: ignore[union-attr]
                return False
        return True

    def _count(self, node: onnx.NodeProto) -> int:
        """Return how many outputs are asked for; a Split's parts count even where unused."""
        if node.op_type == "Split":
            return len(node.output)
        return max((i + 1 for i, o in enumerate(node.output) if o in self._used), default=1)

    def _follow_batch(
        self, node: onnx.NodeProto, tensors: list[Tensor], arrays: list[Array | None]
    ) -> list[Array | None]:
        x, target = tensors[0], arrays[1] if len(arrays) > 1 else None
        if self._rebatch is None or target is None or not isinstance(x, Value):
            return arrays
        if self._learning:
            self._rebatch.targets[node.output[0]] = target
            return arrays
        return [arrays[0], self._rebatch.target(node, target, x.type.shape)]

    def _value(self, t: Tensor, op: str, index: int) -> Value | None:
        """Return the run-time value of a tensor; None for absent and for integer constants.

        A constant keeps one value for all its readers (tied weights stay tied), except where all
        its elements are equal or several modules read it (`sharing`): exporters merge equal
        initializers, and what belongs to two layers must not learn as one. Then each layer gets
        its own, named after the layer.
        """
        if not isinstance(t, Known):
            return t if isinstance(t, Value) else None
        if not _floating(t.array):
            return None
        uniform = t.array.ndim > 0 and bool((t.array == t.array.reshape(-1)[:1]).all())
        merged = t.name in self._merged
        key = self.g.layer if uniform or merged else ""
        if key not in t.values:
            name = weight_name(t.name, self.g.layer, op, index)
            if (t.values or merged) and name == t.name and key != from_weight(name):
                name = f"{key}.{t.name.rpartition('.')[2]}"
            with np.errstate(over="ignore"):
                t.values[key] = self.g.constant(np.asarray(t.array, np.float32), name)
            if t.stored is not None:
                self.graph.stored[t.values[key]] = t.stored
        return t.values[key]

    def _cast_like(self, x: Tensor, like: Tensor) -> Tensor:
        """Return a run-time value in another one's element type; what is known stays."""
        if not isinstance(x, Value):
            return x
        if isinstance(like, Known):
            dtype = "f32" if _floating(like.array) else "i32"
        else:
            dtype = like.type.dtype if isinstance(like, Value) else x.type.dtype
        return x if x.type.dtype == dtype else self.g.op("cast", x, dtype=dtype)

    def _branch(self, node: onnx.NodeProto, condition: Known) -> None:
        """Convert the branch that a constant condition picks, in place of the If."""
        chosen = "then_branch" if bool(condition.array.reshape(-1)[:1].all()) else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == chosen)
        for t in branch.initializer:
            self.env[t.name] = self._known(t, {})
        for inner in branch.node:
            self._node(inner)
        for outer, inner in zip(node.output, branch.output, strict=True):
            found = self.env.get(inner.name)
            if found is None:
                raise ModelError(f"If node '{node.name}': nothing computes '{inner.name}'")
            self.env[outer] = found
            if inner.name in self.learned:
                self.learned.add(outer)

    def _loop(self, node: onnx.NodeProto, tensors: Sequence[Tensor | None]) -> None:
        """Convert the body once for each step."""
        body, (trips, condition, *carried) = body_of(node), tensors
        if not (isinstance(trips, Known) or not node.input[0]) or isinstance(condition, Value):
            self._give_up(node, "its number of steps is computed at run time")
            return
        for t in body.initializer:
            self.env[t.name] = self._known(t, {})
        names = [i.name for i in body.input]
        learned = [i in self.learned for i in node.input[2:]]

        def step(count: int, values: Sequence[Tensor | None]) -> list[Tensor | None]:
            start = (Known(np.asarray(count), names[0]), Known(np.asarray(True), names[1]))
            for name, value in zip(names, (*start, *values), strict=True):
                self.env[name] = value or LOST
            self.learned.update(n for n, was in zip(names[2:], learned, strict=True) if was)
            for inner in body.node:
                self._node(inner)
            return [self.env.get(o.name) for o in body.output]

        def goes_on(value: Tensor | None) -> bool | None:
            return bool(value.array.all()) if isinstance(value, Known) else None

        count = int(trips.array.reshape(-1)[0]) if isinstance(trips, Known) else None
        if isinstance(condition, Known) and not condition.array.all():
            count = 0
        found = unroll(count, carried, step, goes_on)
        if isinstance(found, str):
            self._give_up(node, found)
            return
        last, scans = found
        for o, value in zip(node.output, last, strict=False):
            self.env[o] = value or LOST
        for k, o in enumerate(node.output[len(last):]):
            rows = [p.array if isinstance(p, Known) else p for p in (row[k] for row in scans)]
            parts = [p for p in rows if p is not None and not isinstance(p, Lost)]
            if not parts or len(parts) != len(rows):
                self.env[o] = LOST
                continue
            self.g.layer = node.name or o
            joined = stacked(self.g, o, parts)
            self.env[o] = joined if isinstance(joined, Value) else Known(joined, o)
        if any(o.name in self.learned for o in body.output):
            self.learned.update(node.output)

    def _record(self, name: str, shape: tuple[int, ...]) -> None:
        if self._rebatch is not None and self._learning:
            self._rebatch.shapes[name] = shape

    # Unsupported operators -------------------------------------------------------------------

    def _carry_on(self, node: onnx.NodeProto) -> None:
        """After a lost tensor: list the node if it is unsupported too, and pass on the loss."""
        supported = (domain_of(node), node.op_type) in self._table
        floats = any(o in self._types() for o in node.output)
        if supported or (can_fold(node) and not floats):
            self._stand_in(node.output)
        else:
            self._give_up(node, "")

    def _give_up(self, node: onnx.NodeProto, detail: str, only: str = "") -> None:
        prefix = f"{domain_of(node)}." if domain_of(node) else ""
        on_path = any(i in self.learned for i in node.input if i)
        self.unsupported.append(
            Unsupported(prefix + node.op_type, node.name or node.output[0], on_path, detail)
        )
        self._stand_in([only] if only else node.output)

    def _stand_in(self, outputs: Sequence[str]) -> None:
        """Go on with a placeholder where shape inference knows the type, else with LOST."""
        for o in outputs:
            known = self._types().get(o)
            self.env[o] = LOST if known is None else self.g.value(o, known)

    def _types(self) -> dict[str, Type]:
        """Return static float types by ONNX's shape inference, run only for error lists."""
        if self._inferred is None:
            self._inferred = infer_types(self._model, self._shapes)
        return self._inferred


def infer_types(
    model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Type]:
    """Return the types of float tensors whose shape ONNX's own inference finds static."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for info in copy.graph.input:
        if info.name in shapes:
            dims = info.type.tensor_type.shape.dim
            for d, size in zip(dims, shapes[info.name], strict=True):
                d.dim_value = size
    del copy.graph.value_info[:]
    for info in copy.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        copy = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    found: dict[str, Type] = {}
    for info in (*copy.graph.value_info, *copy.graph.output):
        tensor = info.type.tensor_type
        dims = tuple(d.dim_value for d in tensor.shape.dim)
        if tensor.elem_type == onnx.TensorProto.FLOAT and tensor.HasField("shape") and all(dims):
            found[info.name] = Type(dims)
    return found


def needed_nodes(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """Return the nodes that the outputs depend on, in order."""
    wanted, kept = set(outputs), []
    for n in reversed(nodes):
        if any(o in wanted for o in n.output if o):
            kept.append(n)
            wanted.update(_reads(n))
    return kept[::-1]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those read inside its subgraphs included."""
    names = {i for i in node.input if i}
    for a in node.attribute:
        for graph in (*([a.g] if a.HasField("g") else []), *a.graphs):
            for n in graph.node:
                names |= _reads(n)
            names |= {o.name for o in graph.output}
    return names


def _shape_of(node: onnx.NodeProto, value: Value) -> Array:
    if node.op_type == "Size":
        return np.asarray(value.type.size, np.int64)
    attrs = attributes(node)
    dims = value.type.shape[attrs.get("start", 0):attrs.get("end")]
    return np.asarray(dims, np.int64)


def _carried(node: onnx.NodeProto, x: Tensor | None, result: Array) -> Stored | None:
    """Return how a constant is stored after a node that only moves its elements."""
    if not isinstance(x, Known) or x.stored is None:
        return None
    if node.op_type == "Transpose":
        rank = x.array.ndim
        return x.stored.transposed(tuple(attributes(node).get("perm", range(rank)[::-1])))
    if node.op_type in ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
        return x.stored.reshaped(result.shape)
    return None


def _floating(array: Array) -> bool:
    """Tell whether an array is of floats; bfloat16 and its like have NumPy kind 'V'."""
    return bool(array.dtype.kind in "fV")


def _listing(found: Sequence[Unsupported]) -> str:
    """Return one line per operator: what, where, on the gradient's path or not, what to do."""
    lines = [f"the model has operators that are not supported ({len(found)}):"]
    for u in found:
        where = "on the gradient's path" if u.on_gradient_path else "off the gradient's path"
        lines.append(f"  {u.op} at node '{u.node}' ({where}){': ' if u.detail else ''}{u.detail}")
    lines.append(
        "Replace them in the model and export it again; those off the gradient's path lie before "
        "every layer with weights, and can also be cut off and computed as features."
    )
    return "\n".join(lines)
