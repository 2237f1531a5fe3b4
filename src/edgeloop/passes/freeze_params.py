"""Make what was learned constant, for a program that only predicts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Array, Graph
from edgeloop.passes.fold_constants import fold_constants

# NumPy gives these the bits that every kernel gives them; sums and functions it does not.
SAME_BITS = frozenset({"add", "div", "mul", "reshape", "sub", "transpose"})


def freeze_params(graph: Graph, adapter: Mapping[str, Array] | None) -> Graph:
    """Replace each param by the adapter's array of its name; no adapter leaves all as they are.

    Requires: a forward graph. Ensures: no params are left; the bits are those that the params
    gave, so products of what was learned stay in the program.

    Raises
    ------
    CompileError
        The adapter lacks a param, has one too many, or of another shape, or one is not finite.
    """
    if adapter is None:
        return graph
    out = graph.copy()
    names = {v.name for v in out.params}
    wrong = sorted(names ^ set(adapter))
    if wrong:
        raise CompileError(
            f"adapter: {', '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} in the adapter or in "
            "the model, not in both; pass session.adapter() of a program with the same train="
        )
    for v in list(out.params):
        array = np.asarray(adapter[v.name], np.float32)
        if array.shape != v.type.shape or not np.isfinite(array).all():
            raise CompileError(f"adapter: {v.name} has shape {list(array.shape)} or is not finite; "
                               f"the model needs {v.type}")
        del out.params[v]
        out.constants[v] = array
    return fold_constants(out, SAME_BITS)
