"""Needs: what each node's kernel asks for, over every instruction set that may run it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeloop.errors import CompileError
from edgeloop.ir import Node, node_text
from edgeloop.ops import OPS
from edgeloop.ops.kernels import BELOW, isas, need
from edgeloop.passes.lifetimes import aligned


def allowed_isas(isa: str) -> tuple[str, ...]:
    """Return the instruction sets that a program compiled for ``isa`` may run on.

    "auto" means all of this machine's; a name means it and those below it, here or elsewhere.
    """
    if isa == "auto":
        return tuple(isas())
    if isa not in BELOW:
        raise CompileError(f"isa='{isa}' is unknown; use 'auto' or one of {', '.join(BELOW)}")
    ladder = [isa]
    while ladder[0] != BELOW[ladder[0]]:
        ladder.insert(0, BELOW[ladder[0]])
    return tuple(ladder)


@dataclass(slots=True)
class Needs:
    """Chunks and scratch of nodes, for ``threads`` workers and the instruction sets of ``isa``."""

    threads: int = 1
    isa: str = "auto"
    _known: dict[object, tuple[int, int]] = field(default_factory=dict)

    def step(self, node: Node) -> tuple[int, int]:
        """Return (chunks, scratch bytes of one worker, aligned).

        Raises
        ------
        CompileError
            The operator has no kernel, or its kernel refuses these types.
        """
        op = OPS[node.op]
        if op.kernel is None:
            raise CompileError(
                f"internal error: `{node_text(node)}` has no kernel and no pass removed it; "
                "please report this model"
            )
        types = [None if v is None else v.type for v in (*node.inputs, *node.outputs)]
        key = (node.op, tuple(types), tuple(op.words(node.attrs)))
        if key in self._known:
            return self._known[key]
        try:
            found = [
                need(op, types, [None] * len(types), node.attrs, isa)
                for isa in allowed_isas(self.isa)
            ]
        except ValueError as e:
            shapes = ", ".join("-" if t is None else str(t) for t in types)
            raise CompileError(
                f"layer '{node.name}': kernel {op.kernel} refuses `{node_text(node)}` "
                f"with operands ({shapes}): {e}"
            ) from e
        chunks = {c for c, _ in found}
        if len(chunks) != 1:
            raise CompileError(
                f"internal error: kernel {op.kernel} cuts `{node_text(node)}` into {chunks} chunks "
                "on different instruction sets, so that results would differ; please report this"
            )
        self._known[key] = chunks.pop(), aligned(max(scratch for _, scratch in found))
        return self._known[key]

    def scratch(self, node: Node) -> int:
        """Return the bytes of all workers together; 0 for a view."""
        return 0 if OPS[node.op].view else self.step(node)[1] * self.threads
