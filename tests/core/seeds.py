"""Step tables for the core's tests: one for each sample of each operator with a kernel.

    python -m tests.core.seeds DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgeloop.ir import NUMPY_NAME, Type
from edgeloop.ops import OPS
from edgeloop.ops.kernels import dense_strides, isas, need
from edgeloop.program import EntrySpec, ProgramSpec, StepSpec, TensorSpec
from edgeloop.program.table import align_up, encode

_CODE = {numpy: ours for ours, numpy in NUMPY_NAME.items()} | {"float64": "f32"}
_LARGEST = 1 << 16  # bytes of one operand: larger samples add time, not cases


def seed_table(op, sample) -> bytes | None:
    """Return the table of one call of ``op``, None for a sample that is too large."""
    types = [None if a is None else Type(tuple(np.shape(a)), _CODE[np.asarray(a).dtype.name])
             for a in sample.inputs]
    outs = op.infer(*types, **sample.attrs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    every = [*types, *outs]
    if any(t is not None and t.nbytes > _LARGEST for t in every):
        return None
    updated = {len(types) + i: j for i, j in op.updates}
    tensors, operands, at = [], [], {"io": 0, "state": 0}
    for i, t in enumerate(every):
        if t is None:
            operands.append(None)
        elif i in updated:
            operands.append(operands[updated[i]])
        else:
            region = "state" if i in updated.values() else "io"
            operands.append(len(tensors))
            tensors.append(TensorSpec(f"t{i}", region, at[region], t.dtype, t.shape,
                                      dense_strides(t.shape)))
            at[region] += align_up(max(t.nbytes, 1))
    needs = [need(op, every, [None] * len(every), dict(sample.attrs), isa) for isa in isas()]
    scratch = align_up(max(n[1] for n in needs))
    step = StepSpec(op.kernel, tuple(operands), tuple(op.words(dict(sample.attrs))), needs[0][0],
                    0, scratch, op.name, 0)
    entry = EntrySpec("train", (step,), {}, {}, 2 * scratch, 0, 0)
    return encode(ProgramSpec(
        tensors=tuple(tensors), entries=(entry,), weights={}, params={}, states={}, initial={},
        scalars={}, param_bytes=0, state_bytes=at["state"], io_bytes=at["io"], threads=2,
        isa="auto",
    ))


def write_seeds(directory: Path) -> list[Path]:
    """Write one file for each sample and return their paths."""
    paths = []
    for op in OPS.values():
        for i, sample in enumerate(op.samples() if op.kernel else ()):
            table = seed_table(op, sample)
            if table is not None:
                paths.append(directory / f"{op.name}-{i}.table")
                paths[-1].write_bytes(table)
    return paths


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_seeds(target)
