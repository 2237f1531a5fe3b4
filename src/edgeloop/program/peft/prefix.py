"""Plain prefixes as PEFT's prefix tuning holds them: one table for all attentions.

``prompt_embeddings`` [length, attentions * 2 * heads * d]: for each attention in order of execution
its keys, then its values (peft/peft_model.py, get_prompt).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeloop.errors import AdapterError

if TYPE_CHECKING:
    from edgeloop.program.program import Program

Array = npt.NDArray[Any]
KEY = "prompt_embeddings"


def is_prefix(program: Program) -> bool:
    """Tell whether the program trains plain prefixes and nothing else."""
    return all(n.endswith((".prefix_k", ".prefix_v")) for n in program.params)


def prefix_config(program: Program) -> dict[str, Any]:
    """Return PEFT's configuration.

    Raises
    ------
    AdapterError
        The attentions differ in shape, which PEFT's one table cannot hold.
    """
    found = _attentions(program)
    length, heads, d = _shape(program, found)
    outputs = next(e.outputs for e in program.entries.values() if e.outputs)
    ranks = {len(t.shape) for n, t in outputs.items() if n != "loss"}
    return {
        "peft_type": "PREFIX_TUNING", "num_virtual_tokens": length, "num_layers": len(found),
        "token_dim": heads * d, "num_attention_heads": heads, "num_transformer_submodules": 1,
        "prefix_projection": False, "inference_mode": True, "base_model_name_or_path": None,
        "task_type": "CAUSAL_LM" if ranks == {3} else "SEQ_CLS",
    }


def to_table(program: Program, arrays: Mapping[str, Array]) -> Array:
    """Return the table of an adapter."""
    found = _attentions(program)
    length, *_ = _shape(program, found)
    rows = [arrays[f"{n}.prefix_{x}"].reshape(length, -1) for n in found for x in "kv"]
    return np.ascontiguousarray(np.concatenate(rows, axis=1))


def from_table(program: Program, table: Array) -> dict[str, Array]:
    """Return the adapter of a table; AdapterError when its shape is another one."""
    found = _attentions(program)
    length, heads, d = _shape(program, found)
    wanted = (length, len(found) * 2 * heads * d)
    if table.shape != wanted:
        raise AdapterError(f"'{KEY}' is {list(table.shape)}, the program needs {list(wanted)}: "
                           f"{length} virtual tokens in {len(found)} attentions")
    apart = table.reshape(length, len(found), 2, heads, d)
    return {
        f"{n}.prefix_{x}": np.ascontiguousarray(apart[:, i, j])
        for i, n in enumerate(found) for j, x in enumerate("kv")
    }


def _attentions(program: Program) -> list[str]:
    """Names of the attentions, in order of execution."""
    names = {n.removesuffix(".prefix_k") for n in program.params if n.endswith(".prefix_k")}
    order = [x for e in program.entries.values() if e.outputs for x in e.layers]
    first = {x: i for i, x in reversed(list(enumerate(order)))}
    lost = sorted(names - set(first))
    if lost:
        raise AdapterError(f"attention '{lost[0]}' shares its name with another; PEFT's table "
                           "needs their order")
    return sorted(names, key=first.__getitem__)


def _shape(program: Program, found: Sequence[str]) -> tuple[int, int, int]:
    shapes = {program.params[f"{n}.prefix_{x}"].shape for n in found for x in "kv"}
    if len(shapes) != 1:
        raise AdapterError(f"attentions of different shapes, {sorted(shapes)}: PEFT's table holds "
                           "one shape; give el.Prefix targets of one")
    length, heads, d = shapes.pop()
    return length, heads, d
