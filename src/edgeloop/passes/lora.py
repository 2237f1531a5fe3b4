"""Insert LoRA: y = layer(x) + s * B(A(x)), Hu et al. 2021 (arXiv 2106.09685), and DoRA."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Array, Graph, Node, Type, Value
from edgeloop.methods import LoRA
from edgeloop.ops import Builder
from edgeloop.passes.count_step import step_value
from edgeloop.passes.layers import Layer, first_calls, layers, select

_TINY = 1e-30  # squared length of a row below which it counts as zero


def initial_a(shape: tuple[int, ...], name: str, seed: int) -> Array:
    """A ~ U(+-1/sqrt(fan in)), PEFT's default (Kaiming uniform with a = sqrt(5)).

    Each tensor draws from its own stream, so adding a layer does not change the others.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    bound = 1 / math.sqrt(max(1, math.prod(shape[1:])))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def new_param(g: Builder, name: str, array: Array) -> Value:
    """Add a trainable tensor."""
    v = g.value(name, Type(tuple(array.shape)))
    g.graph.params[v] = np.ascontiguousarray(array, np.float32)
    return v


def insert_lora(
    graph: Graph, *options: LoRA, seed: int = 0, skip: Iterable[str] = (), training: bool = False
) -> Graph:
    """Add A and B beside every targeted layer; of several options, the first that names it.

    A module that the model calls several times has one A and one B, at its every call.

    Dense: A [r, k], B [n, r]. Convolution: A [r, kh, kw, c] with the layer's stride and padding,
    B [o, r] pointwise. Embedding: lora_embedding_A [r, count], lora_embedding_B [width, r], A zero
    as in PEFT. Grouped, depthwise and transposed convolution and recurrent weights: the weight
    itself, seen as [o, inner], gets B [o, r] @ A [r, inner], which stays mergeable.

    Requires: constants folded. Ensures: B (of an embedding A) is zero and DoRA's lengths are the
    rows' own, so the graph computes what it did before; params are named ``<layer>.lora_A``,
    ``<layer>.lora_B`` and ``<layer>.lora_magnitude``. Only with ``training`` inputs are dropped.

    Raises
    ------
    CompileError
        ``targets`` or ``ranks`` match no layer; dropout or DoRA on a layer that cannot have it.
    """
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    skipped = set(skip)
    found = layers(graph)
    chosen: dict[int, tuple[Layer, LoRA]] = {}
    for option in options:
        for p in option.ranks:
            select(found, p, "LoRA ranks")  # a glob that matches nothing is an error
        for x in select(found, option.targets, "LoRA"):
            if x.name not in skipped:
                chosen.setdefault(id(x.node), (x, option))
    firsts = first_calls(found)
    by_first = {firsts[x.name].name: option for x, option in reversed(chosen.values())}
    made: dict[str, Value] = {}
    for x in found:
        if firsts[x.name].name in by_first:
            chosen[id(x.node)] = (x, by_first[firsts[x.name].name])
    for n in graph.nodes:
        if id(n) not in chosen:
            out.nodes.append(n)
            continue
        layer, option = chosen[id(n)]
        g.layer = n.name
        _Place(g, layer, option, seed, training, firsts[layer.name].name, made).adapt()
    return out


def lora_scales(graph: Graph) -> dict[str, float]:
    """Map each adapted layer to its scale: the factor of the product that reads B as its weight.

    Requires: a forward graph; a batch norm's scale may be multiplied into B.
    """
    users = graph.users()

    def found(b: Value) -> float | None:
        for n in users.get(b, []):
            if (n.op == "linear" and n.inputs[1] is b) or (n.op == "matmul" and n.inputs[0] is b):
                return float(n.attrs.get("alpha", 1.0))
            scaled = found(n.output) if n.op == "mul" and n.output.type == b.type else None
            if scaled is not None:
                return scaled
        return None

    scales = {}
    for v in graph.params:
        layer, _, what = v.name.rpartition(".")
        if what in ("lora_B", "lora_embedding_B") and (scale := found(v)) is not None:
            scales[layer] = scale
    return scales


class _Place:
    """One layer and its LoRA."""

    def __init__(
        self, g: Builder, layer: Layer, option: LoRA, seed: int, training: bool, name: str,
        made: dict[str, Value],
    ) -> None:
        self.g, self.layer, self.node, self.option = g, layer, layer.node, option
        self.seed, self.training = seed, training
        self.name, self.made = name, made  # of the module's first call; the params by name
        self.rank = option.rank_of(name)
        self.scale = option.scale_of(self.rank)

    def adapt(self) -> None:
        """Append the layer with its LoRA; it writes the node's own outputs."""
        if self.layer.embedding:
            self._embedding()
        elif self.layer.plain:
            self._output()
        else:
            self._weight()

    def _param(self, what: str, array: Array) -> Value:
        """Return the module's param; its first call makes it."""
        name = f"{self.name}.{what}"
        if name not in self.made:
            self.made[name] = new_param(self.g, name, array)
        return self.made[name]

    def _params(self, shape: tuple[int, ...]) -> tuple[Value, Value]:
        first = initial_a((self.rank, *shape[1:]), f"{self.name}.lora_A", self.seed)
        return (self._param("lora_A", first),
                self._param("lora_B", np.zeros((shape[0], self.rank))))

    def _refuse(self, what: str, why: str) -> None:
        raise CompileError(
            f"LoRA with {what} does not fit layer '{self.layer.name}': {why}; leave the layer out "
            "of targets, or give it a LoRA of its own without"
        )

    def _output(self) -> None:
        """Y = n(x) + s B A x; the sum takes over n's output value."""
        g, n, w = self.g, self.node, self.layer.weight
        x = n.inputs[0]
        assert x is not None
        a, b = self._params(w.type.shape)
        dropped = self._dropped(x)
        if not self.option.dora:
            base = self._apply(x, n.inputs[2:3], f"{n.output.name}.base")
            g.graph.nodes.append(Node("add", (base, self._low(dropped, a, b)), n.outputs, {},
                                      n.name))
            return
        ratio = self._ratio(w, a, b)
        bare = self._apply(dropped, (), f"{n.output.name}.base")
        y = g.op("mul", g.op("add", bare, self._low(dropped, a, b)), ratio)
        if dropped is not x:  # PEFT drops the input of the base product inside DoRA as well
            y = g.op("add", self._apply(x, (), f"{n.output.name}.whole"), g.op("sub", y, bare))
        bias = self.layer.bias
        if bias is not None:
            y = g.op("add", y, bias)
        g.graph.nodes[-1].outputs = n.outputs

    def _apply(self, x: Value, bias: tuple[Value | None, ...], name: str) -> Value:
        """Build the frozen layer on x."""
        n = self.node
        made = self.g.value(name, n.output.type)
        self.g.graph.nodes.append(
            Node(n.op, (x, n.inputs[1], *bias), (made,), dict(n.attrs), n.name))
        return made

    def _low(self, x: Value, a: Value, b: Value) -> Value:
        """Build s B A x."""
        g, n = self.g, self.node
        if n.op == "linear":
            down = g.op("linear", x, a, out=f"{self.layer.name}.down")
        else:
            geometry = {k: v for k, v in n.attrs.items() if k in ("strides", "pads", "dilations")}
            down = g.op("conv2d", x, a, out=f"{self.layer.name}.down", groups=1, **geometry)
        return g.op("linear", down, b, out=f"{self.layer.name}.up", alpha=self.scale)

    def _dropped(self, x: Value) -> Value:
        if not self.training or self.option.dropout == 0:
            return x
        seed = zlib.crc32(f"{self.seed}:{self.layer.name}".encode())
        return self.g.op("dropout", x, step_value(self.g), p=float(self.option.dropout),
                         seed=seed - (seed >> 31 << 32))

    def _ratio(self, w: Value, a: Value, b: Value) -> Value:
        """Build magnitude / |rows of W + s B A| [out]; the lengths get no gradient.

        |W + s B A|^2 = |W|^2 + 2 s (B, W A') + s^2 (B, B A A'), row by row: no matrix of W's size
        is made, and where B is zero the quotient is exactly 1.
        """
        g, name, s = self.g, self.layer.name, self.scale
        array = g.graph.constants.get(w)
        if array is None:
            self._refuse("dora", "its weight is computed or trained")
        assert array is not None
        flat = np.asarray(array.reshape(array.shape[0], -1), np.float64)
        squares = (flat * flat).sum(axis=1).astype(np.float32)
        m = self._param("lora_magnitude", np.sqrt(squares))
        a2 = self._flat(a)
        wa = g.op("transpose", g.op("linear", a2, self._flat(w)), perm=(1, 0))
        baa = g.op("linear", b, g.op("linear", a2, a2), alpha=s * s)
        inner = g.op("add", g.op("mul", wa, g.constant(2 * s)), baa)
        change = g.op("reduce_sum", g.op("mul", b, inner), axes=(1,), keepdims=0)
        total = g.op("add", change, g.constant(squares, f"{name}.squares"))
        length = g.op("sqrt", g.op("maximum", total, g.constant(_TINY)))
        return g.op("div", m, g.op("detach", length), out=f"{name}.ratio")

    def _flat(self, v: Value) -> Value:
        """See a tensor as [first dim, rest]."""
        if v.type.rank == 2:
            return v
        shape = (v.type.shape[0], math.prod(v.type.shape[1:]))
        array = self.g.graph.constants.get(v)
        if array is not None:
            flat = self.g.constant(array.reshape(shape), v.name)
            entry = self.g.graph.stored[v].reshaped(shape) if v in self.g.graph.stored else None
            if entry is not None:
                self.g.graph.stored[flat] = entry
            return flat
        return self.g.op("reshape", v, shape=shape)

    def _weight(self) -> None:
        """W' = W + s B A in the shape of W; the layer then reads W'."""
        g, w = self.g, self.layer.weight
        if self.option.dropout:
            self._refuse("dropout", "its weight is adapted, so that no input can be dropped")
        inner = math.prod(w.type.shape[1:])
        a, b = self._params((w.type.shape[0], inner))
        delta = g.op("matmul", b, a, alpha=self.scale, out=f"{self.layer.name}.delta")
        shaped = delta if delta.type == w.type else g.op("reshape", delta, shape=w.type.shape)
        total = g.op("add", w, shaped, out=f"{self.layer.name}.weight")
        if self.option.dora:
            column = (w.type.shape[0],) + (1,) * (w.type.rank - 1)
            total = g.op("mul", total, g.op("reshape", self._ratio(w, a, b), shape=column))
        self._read(total)

    def _read(self, weight: Value) -> None:
        n, at = self.node, self.layer.at
        ins = (*n.inputs[:at], weight, *n.inputs[at + 1 :])
        self.g.graph.nodes.append(Node(n.op, ins, n.outputs, dict(n.attrs), n.name))

    def _embedding(self) -> None:
        """Y = table[i] + s (A'[i]) B'."""
        g, n, name = self.g, self.node, self.layer.name
        if self.option.dora:
            self._refuse("dora", "embeddings have plain LoRA only")
        count, width = self.layer.weight.type.shape
        seed = zlib.crc32(f"{self.name}.lora_embedding_B".encode())
        rng = np.random.default_rng([self.seed, seed])
        a = self._param("lora_embedding_A", np.zeros((self.rank, count)))
        b = self._param("lora_embedding_B", rng.standard_normal((width, self.rank)))
        base = g.value(f"{n.output.name}.base", n.output.type)
        g.graph.nodes.append(Node(n.op, n.inputs, (base,), dict(n.attrs), n.name))
        picked = g.op("gather", a, n.inputs[1], axis=1, out=f"{name}.down")  # [r, ...]
        order = (*range(1, picked.type.rank), 0)
        down = g.op("transpose", picked, perm=order)
        up = g.op("linear", down, b, out=f"{name}.up", alpha=self.scale)
        g.graph.nodes.append(Node("add", (base, up), n.outputs, {}, n.name))
