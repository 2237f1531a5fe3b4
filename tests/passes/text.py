"""Graphs from their text form, so that a test shows before and after."""

from __future__ import annotations

import re
import zlib

import numpy as np

from edgeloop.ir import Graph, Type, Value, to_text, verify
from edgeloop.ops import Builder, evaluate

_SOURCE = re.compile(r"(input|const|param|state)\s+(\S+)\s*:\s*(\w+)\[([\d,]*)\]")
_NODE = re.compile(r"([\w., ]+?) = (\w+)\(([\w., ]*)\)(?: \{(.*?)\})?(?: : .*?)?(?:\s*# (\S+))?$")


def _attr(text: str):
    if text.startswith("["):
        return tuple(_attr(t) for t in text[1:-1].split(",") if t)
    if text.isidentifier() and text not in ("inf", "nan"):
        return text
    return float(text) if re.search(r"[.e]", text) else int(text)


def array(name: str, t: Type) -> np.ndarray:
    """Random, between 0.5 and 1.5 (a variance must not be negative), the same for each name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.uniform(0.5, 1.5, t.shape).astype(np.float32)


def graph(text: str) -> Graph:
    """Read the text form; types of nodes' outputs may be left out, arrays are random."""
    g = Graph()
    b = Builder(g)
    values: dict[str, Value] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if m := _SOURCE.match(line):
            kind, name, dtype, dims = m.groups()
            v = values[name] = Value(name, Type(tuple(map(int, filter(None, dims.split(",")))),
                                                dtype))
            if kind == "input":
                g.inputs.append(v)
            else:
                {"const": g.constants, "param": g.params, "state": g.states}[kind][v] = array(
                    name, v.type)
        elif line.startswith("output "):
            g.outputs.append(values[line.split()[1]])
        else:
            m = _NODE.match(line)
            assert m, line
            outs, op, ins, attrs, layer = m.groups()
            b.layer = layer or ""
            given = {k: _attr(v) for k, v in (a.split("=") for a in (attrs or "").split())}
            args = [None if i == "_" else values[i] for i in re.findall(r"[\w.]+", ins)]
            made = b.ops(op, *args, **given)
            for name, v in zip(outs.split(", "), made, strict=True):
                v.name = name
                values[name] = v
    return verify(g)


def text(g: Graph) -> str:
    """The text form of a verified graph, without the padding of the kinds."""
    return "\n".join(re.sub(r"\s+", " ", line) for line in to_text(verify(g)).splitlines())


def shown(expected: str) -> str:
    """An expected text without its indentation and padding."""
    lines = filter(None, map(str.strip, expected.splitlines()))
    return "\n".join(re.sub(r"\s+", " ", line) for line in lines)


def results(g: Graph, dtype=np.float64, **given: np.ndarray) -> list[np.ndarray]:
    """The outputs over random inputs, centred so that both sides of every kink are met."""
    feeds = {v.name: array(v.name, v.type) - np.float32(1) for v in g.inputs} | given
    env = evaluate(g, feeds, dtype=dtype)
    return [env[v] for v in g.outputs]


def assert_same(a: Graph, b: Graph, **given: np.ndarray) -> None:
    """Both graphs compute the same (folded constants are rounded to float32)."""
    for x, y in zip(results(a, **given), results(b, **given), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def randomise(g: Graph, ending: str, seed: int = 0) -> Graph:
    """Give the params of that ending random values: LoRA's B starts at zero."""
    rng = np.random.default_rng(seed)
    for v in g.params:
        if v.name.endswith(ending):
            g.params[v] = rng.standard_normal(v.type.shape).astype(np.float32)
    return g
