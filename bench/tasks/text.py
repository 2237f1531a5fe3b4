"""Text classification: which subject a paragraph is about, from documentation to comments.

The text is in the source files of Python's standard library and NumPy, which are installed wherever
edgeloop is. The base learns five subjects from docstrings; the target has the same subjects in the
terse comments of the same packages.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import tokenize
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tasks.common import Split, Task, accuracy, pretrained
from tasks.net import TokenNet

TOKENS, WORDS, WIDTH, HEADS = 32, 2048, 32, 2
SUBJECTS = (
    "numpy.lib numpy.linalg numpy.ma numpy.fft",
    "email http urllib smtplib ftplib imaplib poplib ssl socketserver",
    "asyncio multiprocessing concurrent threading subprocess selectors",
    "unittest doctest pdb bdb cProfile traceback inspect",
    "xml html json csv configparser plistlib re",
)


def files(modules: str) -> list[Path]:
    """Source files of modules and packages, tests left out."""
    found: list[Path] = []
    for name in modules.split():
        origin = Path(str(importlib.util.find_spec(name).origin))
        whole = sorted(origin.parent.rglob("*.py")) if origin.stem == "__init__" else [origin]
        found += [f for f in whole if "test" not in str(f.relative_to(origin.parent))
                  or name == "unittest"]
    return found


def docstrings(source: str) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(n) or "" for n in ast.walk(ast.parse(source)) if isinstance(n, kinds)]


def comments(source: str) -> list[str]:
    """Comments, those on consecutive lines as one."""
    out, last = [""], -2
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        if t.type == tokenize.COMMENT:
            text = t.string.lstrip("#! ")
            out[-1:] = [f"{out[-1]} {text}"] if t.start[0] == last + 1 else [out[-1], text]
            last = t.start[0]
    return out


@cache
def paragraphs(modules: str, which: int) -> tuple[str, ...]:
    """Paragraphs of ten words and more (0: docstrings, 1: comments), ordered by their hash."""
    out = set()
    for file in files(modules):
        for text in (docstrings, comments)[which](file.read_text("utf-8")):
            for part in re.split(r"\n\s*\n", re.sub(r">>>.*", "", text)):
                words = re.findall(r"[a-z]+", part.lower())
                if len(words) >= 10:
                    out.add(" ".join(words))
    return tuple(sorted(out, key=lambda s: zlib.crc32(s.encode())))


def tokens(text: str) -> list[int]:
    """Ids of the first 32 words by hash into 2047; 0 fills up."""
    ids = [1 + zlib.crc32(w.encode()) % (WORDS - 1) for w in text.split()[:TOKENS]]
    return ids + [0] * (TOKENS - len(ids))


@cache
def rows(which: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [n, 32] and subjects, at most ``limit`` of each, shuffled once."""
    x, y = [], []
    for label, modules in enumerate(SUBJECTS):
        own = [tokens(s) for s in paragraphs(modules, which)[:limit]]
        x += own
        y += [label] * len(own)
    order = np.random.default_rng(9).permutation(len(x))
    return np.array(x, np.int64)[order], np.array(y)[order]


def untrained() -> onnx.ModelProto:
    n = TokenNet("text_encoder", (TOKENS,))
    n.input_type = TensorProto.INT64
    table = n.weight("embedding.weight", n.rng.standard_normal((WORDS, WIDTH)) * 0.5)
    x = n.node("Gather", [table, "x"], "embedding")
    place = n.weight("position", n.rng.standard_normal((TOKENS, WIDTH)) * 0.1)
    x = n.node("Add", [x, place], "placed")
    for i in range(2):
        x = n.block(x, f"blocks.{i}", TOKENS, WIDTH, HEADS)
    x = n.layer_norm(x, "norm", WIDTH)
    x = n.node("ReduceMean", [x], "pool", axes=[1], keepdims=0)
    return n.model(n.fc(x, "head", WIDTH, len(SUBJECTS)), (len(SUBJECTS),))


def base() -> onnx.ModelProto:
    return pretrained(untrained(), *rows(0, 1200), rounds=1, epochs=6, lr=2e-3)


def target(seed: int) -> Split:
    """1000 of the target's first half to learn from; 800 of the other half test."""
    x, y = rows(1, 600)
    half = len(x) // 2
    pick = np.random.default_rng([7, seed]).permutation(half)[:1000]
    return Split(x[pick], y[pick], x[half:half + 800], y[half:half + 800])


TASK = Task("text encoder", "accuracy", base, lambda: rows(0, 1200)[0], target, accuracy,
            targets=("*", "embedding"), rank=8, epochs=6, lr=2e-3)
