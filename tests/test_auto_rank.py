"""rank="auto": aligned to the vector unit, as large as the budget allows, and it says why."""

from __future__ import annotations

import pytest
from tests.test_methods import compiled

import edgeloop as el
from edgeloop.ops.kernels import BELOW
from edgeloop.target import Target, describe

EXACT = {"allow": (), "slowdown": 1.0}


def rank(program: el.Program) -> int:
    return program.params["up.lora_A"].shape[0]


def methods(rank) -> list:
    return [el.Bias("head"), el.LoRA(rank=rank, targets=("up", "down"))]


def auto(**options) -> el.Program:
    return compiled(train=methods("auto"), **options)


def needed(rank: int) -> int:
    """The smallest budget, in steps of 64 bytes, that a plan of this rank is found for."""
    budget = compiled(train=methods(rank), isa="ref").plan.ram_bytes
    while True:
        try:
            compiled(train=methods(rank), isa="ref", budget=budget - 64, **EXACT)
        except el.BudgetError:
            return budget
        budget -= 64


def test_targets():
    assert describe("host", "avx2") == Target("host", "avx2", 8)
    assert describe("host", "avx512").lanes == 16
    assert {describe("host", isa).isa for isa in BELOW} == set(BELOW)
    assert describe().isa in BELOW
    for bad in (("cortex-m9", "auto"), ("host", "sse9")):
        with pytest.raises(el.CompileError, match=r"cortex-m9|sse9"):
            describe(*bad)


@pytest.mark.parametrize(("isa", "lanes"), [("ref", 4), ("avx2", 8)])
def test_without_a_budget_it_is_one_vector(isa, lanes):
    program = auto(isa=isa)
    assert rank(program) == lanes
    note = f"rank {lanes}: aligned to {lanes} f32 lanes of {isa}; no budget was given"
    assert program.plan.notes == (note,)
    assert f"note     {note}" in str(program.plan)
    assert program.metadata["train"][1].startswith(f"LoRA(rank={lanes},")


def test_the_largest_aligned_rank_that_fits():
    sizes = {r: needed(r) for r in (4, 8)}
    assert rank(auto(isa="ref", **EXACT, budget=1 << 20)) == 12  # no larger rank is of use: 12 wide
    program = auto(isa="ref", **EXACT, budget=sizes[8])
    assert rank(program) == 8
    assert program.plan.ram_bytes <= sizes[8]
    assert program.plan.notes[0].startswith(
        "rank 8: aligned to 4 f32 lanes of ref; 12 would need ")
    assert rank(auto(isa="ref", **EXACT, budget=sizes[8] - 1)) == 4
    small = auto(isa="ref", **EXACT, budget=sizes[4] - 1)
    assert rank(small) == 2
    assert small.plan.notes[0].startswith("rank 2: below one vector of ref (4 f32 lanes); 4 would")
    with pytest.raises(el.BudgetError):
        auto(isa="ref", **EXACT, budget=1000)
