"""solve: what costs the results nothing first, and no more of anything than the budget asks for.

The order of harm: order of nodes, places and in-place updates (always); 1-bit masks of activations
of which backward needs no more; computing values again; micro-batches whose gradients are
accumulated, images worked on in strips, gradients stored before an update (the order of sums
changes); then what changes results: activations that wait for backward in f16 or as int8 rows,
8-bit state of the optimizer, another optimizer where that is allowed by name, activations and
gradients that pass between operators as int8 rows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, verify
from edgeloop.ops import OPS
from edgeloop.options import Optimizer, lighter, narrowed
from edgeloop.passes.alive import alive_at_peak
from edgeloop.passes.attach_loss import NORM
from edgeloop.passes.bounds import node_bound
from edgeloop.passes.evict import work
from edgeloop.passes.fuse import part_sgd
from edgeloop.passes.in_place import in_place
from edgeloop.passes.keep_small import MASKED, Kind, keep_small, mask_of
from edgeloop.passes.lifetimes import live_bytes, memory, peak_bytes
from edgeloop.passes.recompute import recompute
from edgeloop.passes.schedule import schedule
from edgeloop.passes.strip_rules import runs_in_strips
from edgeloop.passes.strips import strips
from edgeloop.program import Program
from edgeloop.program.plan import Plan
from edgeloop.solver.answer import Best, refusal
from edgeloop.solver.frame import Change, Draft, Frame, step_work
from edgeloop.units import format_bytes

ALLOWED = ("saved", "state", "int8")
# Allowed only by name; `edgeloop.smaller_lora` looks for the methods.
OPTIMIZER, METHOD = NAMED = ("optimizer", "method")
TRAINS = ("train", "accumulate")
# Bytes of the arena over those of a strip, as they are tried.
STRIPS = (12, 24, 48)
# How activations wait in fewer bits, and what that does to results.
WAITING: dict[Kind, str] = {
    "f16": "activations wait in f16 (gradients rounded to 11 bits)",
    "i8": "activations wait in int8 (gradients noisier, not biased; loss curves within 1 %)",
}
# Entries that micro-batches cannot take the place of.
WHOLE = ("features", "train_from", "eval_from", "grad", "accumulate")


@dataclass(frozen=True, slots=True)
class Harm:
    """One rung of the ladder: how activations wait; the optimizer, if another one.

    ``int8``: images pass between operators as int8 rows.
    """

    saved: Kind | None = None
    int8: bool = False
    optimizer: Optimizer | None = None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python's collector from walking the graphs: no cycles, and a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@_uncollected()
def solve(
    draft_of: Callable[[Change], Draft], frame: Frame, optimizer: Optimizer, *, batch: int,
    limit: int, slowdown: float, allow: Sequence[str],
) -> Program:
    """Return the program of the least harmful plan with at most ``limit`` bytes of RAM.

    Parameters
    ----------
    draft_of
        Makes the graphs of a change.
    batch
        Rows of a training step.
    slowdown
        Most work of a step, as a multiple of the unconstrained one's.
    allow
        Of ALLOWED and NAMED: what may change results.

    Raises
    ------
    CompileError
        ``slowdown`` or ``allow`` make no sense.
    BudgetError
        No plan was found: with the proof that there is none, or the best one and its bound.
    """
    _check(slowdown, allow)
    plain = draft_of(Change())
    ordered = frame.ordered(plain.made)
    found = frame.program(plain, ordered)
    if found.plan.ram_bytes <= limit:
        return found
    search = _Search(
        draft_of, frame, limit, slowdown, step_work(ordered, 1), batch, optimizer)
    search.keep(found.plan, ordered, "")
    search.drafts[Change()] = plain
    trained = plain.made.get("train")
    whole = trained is None or any(name in plain.made for name in WHOLE) or all(
        v.name != NORM for v in trained.inputs)
    micros = [batch] if whole else _divisors(batch)
    for harm in _ladder(optimizer, allow):
        program = search.rung(harm, micros)
        if program is not None:
            return search.milder(harm, micros) or program
    search.least(micros)
    assert search.best is not None
    raise refusal(limit, search.best, search.bound, slowdown, search.suggestions(allow))


def _check(slowdown: float, allow: Sequence[str]) -> None:
    if isinstance(slowdown, bool) or not isinstance(slowdown, int | float) or not slowdown >= 1:
        raise CompileError(f"slowdown={slowdown!r}: it is a factor from 1 on, such as 1.33")
    known = (*ALLOWED, *NAMED)
    if isinstance(allow, str) or any(a not in known for a in allow):
        raise CompileError(f"allow={allow!r}: a list of {', '.join(known)}, or () for nothing")


def _ladder(optimizer: Optimizer, allow: Sequence[str]) -> Iterator[Harm]:
    """What may be done to results, the least harmful first.

    Where values that wait as int8 are too much, so are those in f16: `_Search.milder` tries these
    afterwards.
    """
    states: list[Optimizer | None] = [None]
    if "state" in allow and (small := narrowed(optimizer)) is not None:
        states.append(small)
    if OPTIMIZER in allow:
        states += lighter(optimizer)
    for state in states:
        yield Harm(optimizer=state)
        if "saved" in allow:
            yield Harm("i8", optimizer=state)
    if "int8" in allow:
        for state in states:
            yield Harm(int8=True, optimizer=state)


def _divisors(batch: int) -> list[int]:
    """Rows of a micro-batch, the largest first."""
    return [n for n in range(batch, 0, -1) if batch % n == 0]


@dataclass(frozen=True, slots=True)
class _Facts:
    """Arena bytes of a graph in its order, those that any order needs, and its work."""

    peak: int
    bound: int
    work: int


@dataclass(frozen=True, slots=True)
class _Near:
    """Graphs above the limit, and about how many bytes they need; to be placed if none are less."""

    nbytes: int
    draft: Draft
    graphs: dict[str, Graph]
    how: str


@dataclass(slots=True)
class _Search:
    """Attempts, and what is known after them."""

    draft_of: Callable[[Change], Draft]
    frame: Frame
    limit: int
    slowdown: float
    work: int
    batch: int
    optimizer: Optimizer
    best: Best | None = None
    near: _Near | None = None
    # The least bytes that any order of any attempt needs, recomputed or not.
    bound: int = 1 << 62
    drafts: dict[Change, Draft] = field(default_factory=dict)
    # What a rung made of a graph serves the later ones: by what was done and the graph itself.
    made: dict[tuple[object, int], tuple[Graph, Graph]] = field(default_factory=dict)
    known: dict[int, tuple[Graph, _Facts]] = field(default_factory=dict)

    def rung(self, harm: Harm, micros: Sequence[int]) -> Program | None:
        """Try the sizes of micro-batches, the largest first.

        Smaller ones do not always need less: the sums of gradients are memory too.
        """
        for micro in micros:
            for merge in (True, False):
                if merge or self._merges(harm, micro):
                    program = self._attempt(harm, micro, merge=merge)
                    if program is not None:
                        return program
        return None

    def milder(self, harm: Harm, micros: Sequence[int]) -> Program | None:
        """Try f16 where int8 did."""
        return None if harm.saved != "i8" else self.rung(replace(harm, saved="f16"), micros)

    def _merges(self, harm: Harm, rows: int) -> bool:
        """Tell whether a weight with LoRA in it is made in a step: memory for less work."""
        draft = self._draft(harm, rows, merge=True)
        return any(".merged" in n.output.name for g in draft.made.values() for n in g.nodes)

    def least(self, micros: Sequence[int]) -> None:
        """Look for the smallest plan that changes no result, for the refusal to name."""
        for rows in micros:
            self._attempt(Harm(), rows, merge=False, least=True)
        if self.near is not None:
            plan = self.frame.program(self.near.draft, self.near.graphs).plan
            self.keep(plan, self.near.graphs, self.near.how)

    def keep(self, plan: Plan, graphs: Mapping[str, Graph], how: str) -> None:
        """Remember a plan if it is the smallest so far."""
        if self.best is not None and self.best.plan.ram_bytes <= plan.ram_bytes:
            return
        scratch = self.frame.needs.scratch
        entry = max(graphs, key=lambda name: peak_bytes(graphs[name], scratch))
        self.best = Best(plan, entry, alive_at_peak(graphs[entry], scratch)[1], how)

    def suggestions(self, allow: Sequence[str]) -> list[str]:
        """What the caller could change, nearest first."""
        assert self.best is not None
        out = [f"budget={self.best.plan.ram_bytes}"]
        if missing := [a for a in ALLOWED if a not in allow]:
            out.append(f"allow={(*allow, *missing)}")
        smaller = "a smaller rank, or fewer or higher targets"
        return [*out, "a larger slowdown",
                smaller if METHOD in allow else f'{smaller} (allow "{METHOD}" looks for them)']

    def _draft(self, harm: Harm, rows: int, *, merge: bool) -> Draft:
        key = Change(None if rows == self.batch else rows, harm.optimizer, merge)
        if key not in self.drafts:
            self.drafts[key] = self.draft_of(key)
        return self.drafts[key]

    def _attempt(
        self, harm: Harm, rows: int, *, merge: bool, least: bool = False
    ) -> Program | None:
        """Return a program inside the limit, or None; ``least``: as small as it gets instead."""
        micro = None if rows == self.batch else rows
        parts = self.batch // rows
        draft = self._draft(harm, rows, merge=merge)
        scratch = self.frame.needs.scratch
        bound = max(_least(g, scratch) for g in draft.made.values())
        self.bound = min(self.bound, draft.fixed_bytes + bound)
        room = None if least else self.limit - draft.fixed_bytes
        if room is not None and bound > room:
            return None
        while True:  # a layout may need a little more than the bytes that are live
            graphs = {
                name: self._lowered(harm, name, g, room, parts) for name, g in draft.made.items()}
            slow = step_work(graphs, parts) / self.work
            peak = max(self._facts(g).peak for g in graphs.values())
            if slow > self.slowdown:
                return None
            how = _how(harm, micro, graphs, self.optimizer, merge=merge)
            if room is None or peak > room:
                near = _Near(draft.fixed_bytes + peak, draft, graphs, how)
                if self.near is None or near.nbytes < self.near.nbytes:
                    self.near = near
                return None
            note = (f"to fit {format_bytes(self.limit)}: {how}; {slow:.2f} times the work of a "
                    "step without the budget")
            program = self.frame.program(draft, graphs, (note,))
            used = program.plan.ram_bytes
            if used <= self.limit:
                return program
            self.keep(program.plan, graphs, how)
            room -= used - self.limit

    def _lowered(
        self, harm: Harm, name: str, graph: Graph, room: int | None, parts: int
    ) -> Graph:
        """Order an entry's nodes so that it fits, with as little harm as will do.

        ``room``: bytes of the arena; None: as few as can be found.
        """
        scratch = self.frame.needs.scratch
        g = self._scheduled(graph)
        own = self._facts(g)
        most = self.slowdown * (self.work / parts if name.startswith(TRAINS) else own.work)
        found, least = g, own.peak
        for ways in self._ways(harm, g, room):
            for way in ways:
                facts = self._facts(way.graph)
                if facts.peak < least and facts.work <= most:
                    found, least = way.graph, facts.peak
                if room is not None and least <= room:
                    return verify(found, f"{way.how} ({name})")
            way = ways[-1]
            facts = self._facts(way.graph)
            if facts.work > most or (room is not None and facts.bound > room):
                continue
            again = recompute(
                way.graph, scratch=scratch, limit=room, spend=most / facts.work - 1, frozen=True,
                reorder=way.reorder, ease=partial(self._eased, room) if way.reorder else None)
            peak = self._facts(again).peak
            if peak < least:
                found, least = again, peak
            if room is not None and peak <= room:
                break
        return verify(found, f"recompute ({name})")

    def _facts(self, g: Graph) -> _Facts:
        if id(g) not in self.known:
            m = memory(g, self.frame.needs.scratch)
            self.known[id(g)] = g, _Facts(
                max(live_bytes(m), default=0), node_bound(m), sum(work(n) for n in g.nodes))
        return self.known[id(g)][1]

    def _eased(self, room: int | None, g: Graph) -> Graph:
        """Do to a graph in which things are computed again what keeps every bit."""
        scratch = self.frame.needs.scratch
        small = keep_small(g, kind="mask", limit=room or 0, scratch=scratch)
        return in_place(small, scratch=scratch)

    def _once(self, what: object, g: Graph, make: Callable[[Graph], Graph]) -> Graph:
        key = what, id(g)
        if key not in self.made:
            self.made[key] = g, make(g)
        return self.made[key][1]

    def _scheduled(self, g: Graph) -> Graph:
        return self._once("schedule", g, lambda g: verify(
            schedule(g, scratch=self.frame.needs.scratch), "schedule"))

    def _ways(self, harm: Harm, g: Graph, room: int | None) -> Iterator[list[_Way]]:
        """What can be done to a scheduled graph, the least harmful first.

        Of a list the last, in which values wait in the fewest bits, may compute things again.
        """
        scratch, limit = self.frame.needs.scratch, room or 0
        apart = self._once("apart", g, part_sgd)
        apart = self._scheduled(apart) if apart is not g else g
        mask = partial(keep_small, kind="mask", limit=limit, scratch=scratch)
        if not harm.int8:
            for start in (g,) if apart is g else (g, apart):
                there = self._once("in place", start, partial(in_place, scratch=scratch))
                small = self._once(("mask", limit), there, mask)
                ways = [_Way(start, "schedule"), _Way(there, "in place"), _Way(small, "masks")]
                if harm.saved:  # the others failed already
                    small = keep_small(small, kind=harm.saved, limit=limit, scratch=scratch)
                    ways = [_Way(small, harm.saved)]
                yield ways
        if harm.saved:
            return
        base = apart if harm.int8 else self._once(("mask", limit), apart, mask)
        for share in STRIPS if harm.int8 else STRIPS[:1]:
            strip = (room or peak_bytes(g, scratch)) // share
            cut, units = strips(base, strip=strip, int8=harm.int8)
            if not any(n.op in ("put_rows", "pack_i8") for n in cut.nodes):
                return
            yield [_Way(schedule(cut, scratch=scratch, units=units), "strips", reorder=False)]


@dataclass(frozen=True, slots=True)
class _Way:
    """A graph, how it came about, and whether its nodes may change places."""

    graph: Graph
    how: str
    reorder: bool = True


def _least(graph: Graph, scratch: Callable[[Node], int]) -> int:
    """Return arena bytes that no plan of a graph does without.

    Gradients that a mask may serve are left out, for they need not see the whole activation; and
    what can run in strips.
    """
    graph = part_sgd(graph)
    apart = {k for k, n in enumerate(graph.nodes)
             if mask_of(n) is not None or runs_in_strips(n, int8=True)}
    return node_bound(memory(graph, scratch), apart)


def _how(
    harm: Harm, micro: int | None, graphs: Mapping[str, Graph], asked: Optimizer, *, merge: bool
) -> str:
    """Say what was done, for notes and refusals."""
    nodes = [n for g in graphs.values() for n in g.nodes if not OPS[n.op].view]
    masks = len({b.name.partition(".rows")[0] for n in nodes if n.op in MASKED
                 and (b := n.inputs[1]) is not None})
    again = sum(".again" in n.output.name for n in nodes)
    said = (
        f"{masks} activations kept as masks" if masks else "",
        "images in strips" if any(n.op == "take_rows" for n in nodes) else "",
        "activations and gradients between operators in int8 (loss curves within 4 %)"
        if harm.int8 else "",
        f"{again} operations computed again" if again else "",
        "" if merge else "LoRA beside its weights",
        f"micro-batches of {micro}" if micro else "",
        WAITING[harm.saved] if harm.saved else "",
        "" if harm.optimizer is None else
        "8-bit optimizer state (loss curves within 1 %)" if harm.optimizer == narrowed(asked) else
        f"{harm.optimizer} in the place of {type(asked).__name__} (another course of training)",
    )
    return ", ".join(filter(None, said)) or "another order"
