"""Plan functions refuse calls that a kernel could not run: random damage to every sample.

What is accepted is run on buffers of exactly the described size (a build with EL_SANITIZE shows
any access beside them).
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop import _core
from edgeloop.ir import NUMPY_NAME, Type
from edgeloop.ops import OPS
from edgeloop.ops.kernels import DTYPE_CODE, OPCODES, dense_strides

CODE = {NUMPY_NAME[name]: code for name, code in DTYPE_CODE.items()}
NUMPY = {code: name for name, code in CODE.items()}
DTYPE_NAME = {numpy: ours for ours, numpy in NUMPY_NAME.items()}
KERNELS = sorted(op.name for op in OPS.values() if op.kernel)
DIMS = (0, -1, 1, 2, 3, 7, 100, 2**31 - 1, -(2**31))
WORDS = (0, -1, 1, 2, 5, 6, 7, 64, 2**31 - 1, -(2**31), 0x7FC00000)


def described(op, sample):
    """[(dtype, dims)] of a sample's operands, None where absent, and its words."""
    types = [
        None if a is None else Type(tuple(np.shape(a)), DTYPE_NAME[a.dtype.name])
        for a in sample.inputs
    ]
    result = op.infer(*types, **sample.attrs)
    outs = result if isinstance(result, tuple) else (result,)
    operands = [
        None if a is None else [CODE[np.asarray(a).dtype.name], list(np.shape(a))]
        for a in sample.inputs
    ]
    operands += [[DTYPE_CODE[t.dtype], list(t.shape)] for t in outs]
    return operands, op.words(sample.attrs)


def damage(rng, operands, words):
    """Change one thing, or two."""
    operands = [None if o is None else [o[0], list(o[1])] for o in operands]
    words = list(words)
    for _ in range(int(rng.integers(1, 3))):
        k = int(rng.integers(len(operands)))
        kind = int(rng.integers(6))
        if kind == 0 and words:
            words[int(rng.integers(len(words)))] = int(rng.choice(WORDS))
        elif operands[k] is None:
            operands[k] = [0, [1]]
        elif kind == 1 and operands[k][1]:
            operands[k][1][int(rng.integers(len(operands[k][1])))] = int(rng.choice(DIMS))
        elif kind == 2:
            operands[k][1] = [int(d) for d in rng.choice(DIMS, int(rng.integers(0, 7)))]
        elif kind == 3:
            operands[k][0] = int(rng.choice([0, 1, 2, 3, 4, 5, -7]))
        elif kind == 4:
            operands[k] = None
        else:
            del operands[k]
            return operands, words
    return operands, words


def attempt(name, operands, words, isa="ref"):
    """Run a call if it is accepted; True if it was."""
    rows, sizes = [], []
    for o in operands:
        if o is None:
            rows.append(None)
            continue
        dims = tuple(o[1])
        strides = tuple(max(-(2**31), min(s, 2**31 - 1)) for s in dense_strides(dims))
        sizes.append(int(np.prod([float(abs(d)) for d in dims])))
        rows.append((None, o[0], dims, strides))
    try:
        _core.call(OPCODES[name], isa, rows, words, False)
    except ValueError:
        return False
    if max(sizes, default=0) > 10**6:
        return True
    filled = [
        None if r is None else
        (np.zeros(max(int(np.prod(r[2])), 1), NUMPY[r[1]]).data.cast("B"), *r[1:]) for r in rows
    ]
    _core.call(OPCODES[name], isa, filled, words, True)
    return True


@pytest.mark.parametrize("name", KERNELS)
def test_damaged_calls_are_refused_or_run_inside_their_buffers(name):
    op = OPS[name]
    rng = np.random.default_rng(list(name.encode()))
    refused = 0
    for sample in op.samples():
        operands, words = described(op, sample)
        assert attempt(op.kernel, operands, words)
        for _ in range(25):
            refused += not attempt(op.kernel, *damage(rng, operands, words))
    assert refused > 10
