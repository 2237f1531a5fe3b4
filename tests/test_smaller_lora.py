"""allow="method": LoRA of a smaller rank, then on fewer of the last blocks."""

from __future__ import annotations

import pytest
from models.vit import vit
from tests.test_methods import compiled, residual

import edgeloop as el
from edgeloop.compiler import layer_names

OPTIONS = {"isa": "ref", "slowdown": 1.0, "entries": ("train",), "optimizer": el.SGD()}
METHOD = {"allow": ("method",)}


def ram(train, **options) -> int:
    """RAM of the smallest plan that changes nothing, as the solver found it."""
    try:
        return compiled(train=train, **OPTIONS, budget=64, allow=(), **options).plan.ram_bytes
    except el.BudgetError as e:
        return e.needed


def ranks(program: el.Program) -> dict[str, int]:
    return {name.rpartition(".")[0]: t.shape[0] for name, t in program.params.items()
            if name.endswith(".lora_A")}


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_rank_is_halved_until_it_fits(rank):
    train = [el.Bias("head"), el.LoRA(8, targets=("up", "down"))]
    asked = ram(train)
    limit = ram([train[0], el.LoRA(rank, targets=("up", "down"))])
    assert limit < asked
    program = compiled(train=train, **OPTIONS, budget=limit, **METHOD)
    assert program.plan.ram_bytes <= limit
    assert ranks(program) == {"up": rank, "down": rank}
    assert "head.bias" in program.params  # other methods stay
    note = program.plan.notes[0]
    assert note.startswith(f"LoRA of rank {rank}; the one that was asked for needs")


def test_what_fits_stays_as_it_was_asked_for():
    train = el.LoRA(8)
    program = compiled(train=train, **OPTIONS, budget=1 << 24, **METHOD)
    assert set(ranks(program).values()) == {8}
    assert program.plan.notes == ()


def test_without_the_allowance_nothing_smaller_is_tried():
    limit = ram(el.LoRA(1))
    with pytest.raises(el.BudgetError, match='allow "method" looks for them'):
        compiled(train=el.LoRA(8), **OPTIONS, budget=limit, allow=())


def transformer(train, **options) -> el.Program:
    return el.compile(vit(image=16, patch=8, blocks=3), train=train, batch=2,
                      **OPTIONS, **options)


def test_where_no_rank_fits_fewer_of_the_last_blocks_train():
    names = layer_names(vit(image=16, patch=8, blocks=3), 2, None)
    assert names[0] == "patches"
    assert names[-1] == "head"
    last = transformer(el.LoRA(4, targets="head"))
    program = transformer(el.LoRA(4), budget=last.plan.ram_bytes, **METHOD)
    assert program.plan.ram_bytes <= last.plan.ram_bytes
    assert ranks(program) == {"head": 4}
    assert program.plan.notes[0].startswith("LoRA of rank 4 on the last 1 of 5 blocks; the one")
    auto = transformer(el.LoRA("auto"), budget=last.plan.ram_bytes, **METHOD)
    assert list(ranks(auto)) == ["head"]
    assert "on the last 1 of 5 blocks" in auto.plan.notes[0]
    middle = transformer(el.LoRA(1, targets=names[-7:]))
    between = transformer(el.LoRA(4), budget=middle.plan.ram_bytes, **METHOD)
    assert set(ranks(program)) < set(ranks(between)) < set(names)


def test_targets_that_were_not_asked_for_never_train():
    last = transformer(el.LoRA(4, targets="blocks.2.down"))
    program = transformer(
        el.LoRA(4, targets=("*.q", "*.v", "*.down")), budget=last.plan.ram_bytes + 512, **METHOD)
    assert {name.rpartition(".")[2] for name in ranks(program)} <= {"q", "v", "down"}


def test_a_refusal_names_the_smallest_that_was_tried():
    with pytest.raises(el.BudgetError) as e:
        compiled(train=el.LoRA(8), **OPTIONS, budget=64, **METHOD)
    assert str(e.value).startswith("LoRA of rank 1 on the last 1 of 4 blocks: no plan")
    assert e.value.needed < ram(el.LoRA(1))
    assert "looks for them" not in str(e.value)


def test_methods_without_lora_are_refused_as_ever():
    with pytest.raises(el.BudgetError, match="no plan"):
        el.compile(residual(), train=el.Full(), **OPTIONS, budget=64, **METHOD)
