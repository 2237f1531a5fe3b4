"""What the solver is handed: the graphs of all entries, and how graphs become a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.ir import Graph, verify
from edgeloop.options import Optimizer
from edgeloop.passes.encode import encode
from edgeloop.passes.evict import work
from edgeloop.passes.join_head import join_head
from edgeloop.passes.lifetimes import STATE_ALIGN, aligned
from edgeloop.passes.needs import Needs
from edgeloop.passes.recompute import recompute
from edgeloop.passes.schedule import schedule
from edgeloop.passes.stream_weights import stream_weights
from edgeloop.program import Program


@dataclass(frozen=True, slots=True)
class Change:
    """What makes other graphs.

    ``micro``: rows of a micro-batch, None for none; ``optimizer`` in the place of the one asked
    for; ``merge``: whether LoRA may merge into its weight inside a step.
    """

    micro: int | None = None
    optimizer: Optimizer | None = None
    merge: bool = True


@dataclass(frozen=True, slots=True)
class Draft:
    """The graphs of all entries before they are ordered; the scalars and metadata with them."""

    made: dict[str, Graph]
    scalars: dict[str, float]
    metadata: dict[str, Any]

    @property
    def fixed_bytes(self) -> int:
        """RAM beside the arena: params, optimizer state, inputs and outputs."""
        params = {v: None for g in self.made.values() for v in g.params}
        states = {v: None for g in self.made.values() for v in g.states}
        kept = sum(aligned(v.type.nbytes) for v in params) + aligned(
            sum(aligned(v.type.nbytes, STATE_ALIGN) for v in states))
        io = max(
            sum(aligned(v.type.nbytes) for v in (*g.inputs, *g.outputs)
                if v.name not in self.scalars)
            for g in self.made.values()
        )
        return kept + io + aligned(4) * len(self.scalars)


@dataclass(slots=True)
class Frame:
    """Workers and instruction sets that a program is planned for.

    ``resident``: bytes of frozen weights that may be in memory at once; None: all are mapped.
    """

    threads: int
    isa: str
    resident: int | None = None
    needs: Needs = field(init=False)

    def __post_init__(self) -> None:
        self.needs = Needs(self.threads, self.isa)

    def plain(self, draft: Draft) -> Program:
        """Return the program that no budget asks anything of."""
        return self.program(draft, self.ordered(draft.made))

    def ordered(self, made: Mapping[str, Graph]) -> dict[str, Graph]:
        """Order the nodes of each entry with the scratch of their kernels in mind."""
        out = {}
        for name, graph in made.items():
            g = verify(join_head(graph), f"join_head ({name})")
            g = verify(schedule(g, scratch=self.needs.scratch), f"schedule ({name})")
            out[name] = verify(recompute(g, scratch=self.needs.scratch), f"recompute ({name})")
        return out

    def program(
        self, draft: Draft, ordered: Mapping[str, Graph], notes: tuple[str, ...] = ()
    ) -> Program:
        """Place every value and write the steps down."""
        metadata = draft.metadata
        if self.resident is not None:
            streamed = stream_weights(ordered, self.resident)
            ordered = {
                name: verify(g, f"stream_weights ({name})") for name, g in streamed.graphs.items()}
            if streamed.buffers:
                metadata = metadata | {"streams": streamed.described(self.resident)}
                notes = (*notes, streamed.note())
        if notes:
            metadata = metadata | {"notes": [*metadata["notes"], *notes]}
        return Program.from_spec(encode(
            ordered, threads=self.threads, isa=self.isa, scalars=draft.scalars,
            metadata=metadata))


def step_work(graphs: Mapping[str, Graph], parts: int) -> int:
    """Return the work of a training step: of ``train``, or of ``parts`` micro-batches.

    A program of several shapes is judged by its largest one, one without training by its entries.
    """
    per: dict[str, int] = {}
    for name, g in graphs.items():
        base = name.partition("@")[0]
        per[base] = max(per.get(base, 0), sum(work(n) for n in g.nodes))
    if "apply" in per and "train" not in per:
        return parts * per["accumulate"] + per["apply"]
    return per.get("train", max(per.values()))
