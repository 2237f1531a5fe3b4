"""What lies where in the arena, and from which step to which: read back from the step table."""

from __future__ import annotations

from typing import NamedTuple

from edgeloop import _core
from edgeloop.errors import ConfigError
from edgeloop.program.program import Program
from edgeloop.program.table import DTYPES, ITEM_BYTES, TableStep, align_up

KERNELS = {code: name for code, name, _ in _core.kernels()}


class Life(NamedTuple):
    """A tensor (or scratch) in the arena: bytes from ``offset``, live from ``first`` to ``last``.

    ``kind``: "saved" (made before the loss, read after it), "forward", "backward", or "scratch".
    ``name``: layer and operator that made it.
    """

    name: str
    kind: str
    offset: int
    nbytes: int
    first: int
    last: int


def lifetimes(program: Program, entry: str) -> list[Life]:
    """Return what an entry holds in the arena, in order of its first step.

    Where an operator writes over its input, both are listed: one lies on the other.

    Raises
    ------
    ConfigError
        The program has no entry of that name.
    """
    if entry not in program.entries:
        raise ConfigError(
            f"the program has no entry '{entry}'; it has {', '.join(program.entries)}")
    known = program.entries[entry]
    place = program.table.entries[known.index]
    tensors = program.table.tensors
    steps = program.table.steps[place.first : place.first + place.count]
    loss = known.outputs.get("loss")
    turn = next(
        (k for k, s in enumerate(steps) if loss is not None and any(
            o is not None and tensors[o][:2] == loss[:2] for o in s.operands)), len(steps))

    def named(k: int) -> str:
        return f"{known.layers[k]} {KERNELS[steps[k].opcode]}".strip()

    # A read goes on with what was written last to the same bytes, in whatever shape it sees them.
    held: dict[tuple[int, int], list[int]] = {}
    made: list[tuple[int, int, list[int]]] = []
    for k, s in enumerate(steps):
        first = len(s.operands) - _outputs(program, s)
        for i, o in enumerate(s.operands):
            if o is None or tensors[o].region != "arena":
                continue
            t = tensors[o]
            place_ = t.offset, t.size * ITEM_BYTES[t.dtype]
            if i >= first or place_ not in held:
                held[place_] = [k, k]
                made.append((*place_, held[place_]))
            held[place_][1] = k
    out = [
        Life(named(a), "backward" if a > turn else "forward" if b <= turn else "saved", offset,
             align_up(nbytes), a, b)
        for offset, nbytes, (a, b) in made
    ]
    out += [
        Life(named(k), "scratch", s.scratch_offset, s.scratch_bytes * program.table.threads, k, k)
        for k, s in enumerate(steps) if s.scratch_bytes
    ]
    return sorted(out, key=lambda x: (x.first, x.offset))


def _outputs(program: Program, step: TableStep) -> int:
    """Return how many of a step's operands, the last ones, it writes."""
    tensors = [None if o is None else program.table.tensors[o] for o in step.operands]
    described = [
        None if t is None else (None, DTYPES.index(t.dtype), t.shape, t.strides) for t in tensors]
    return int(_core.call(step.opcode, "ref", described, list(step.words), False)[2])


def peak(lives: list[Life]) -> tuple[int, list[Life]]:
    """Return the step at which most distinct bytes are live, and what is, the largest first.

    A tensor that another one of the same step lies on is left out.
    """
    last = max((x.last for x in lives), default=-1)
    best, at, there = -1, 0, []
    for k in range(last + 1):
        here, covered, total = [], 0, 0
        for x in sorted((x for x in lives if x.first <= k <= x.last),
                        key=lambda x: (x.offset, -x.nbytes, -x.first)):
            if x.offset + x.nbytes > covered:
                here.append(x)
                total += x.offset + x.nbytes - max(covered, x.offset)
                covered = x.offset + x.nbytes
        if total > best:
            best, at, there = total, k, here
    return at, sorted(there, key=lambda x: (-x.nbytes, x.offset))
