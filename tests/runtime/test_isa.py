"""Rungs of instruction sets: which one a session takes, and which kernel runs on it."""

from __future__ import annotations

import pytest
from tests.runtime.test_session import tiny_spec

import edgeloop as el
from edgeloop import _core
from edgeloop.ops import OPS
from edgeloop.ops.kernels import BELOW, OPCODES, isas, variants
from edgeloop.passes.needs import allowed_isas
from edgeloop.runtime.isa import choose_isas

FULL = ("ref", "neon", "avx2", "avx512")


def test_ladders():
    assert allowed_isas("avx512bf16") == ("ref", "avx2", "avx512", "avx512vnni", "avx512bf16")
    assert allowed_isas("avxvnni") == ("ref", "avx2", "avxvnni")
    assert allowed_isas("neoni8mm") == ("ref", "neon", "neondot", "neoni8mm")
    assert allowed_isas("auto") == tuple(isas())
    with pytest.raises(el.CompileError, match="'sse9' is unknown"):
        allowed_isas("sse9")


def test_a_machine_with_a_rung_has_those_below():
    for isa in isas():
        assert set(allowed_isas(isa)) <= set(isas())


@pytest.mark.parametrize("isa", isas())
def test_rungs_without_a_variant_run_the_kernel_below(isa):
    for op in OPS.values():
        if op.kernel is None:
            continue
        code = OPCODES[op.kernel]
        if isa in variants(op):
            assert _core.variant(code, isa) == isa
        else:
            assert isa not in FULL
            assert _core.variant(code, isa) == _core.variant(code, BELOW[isa])
    dots = {"avxvnni", "avx512vnni", "neondot", "neoni8mm"}
    assert (isa in variants(OPS["qlinear_i8"])) == (isa in FULL or isa in dots)


def test_a_program_for_a_rung_above_runs_on_the_best_one_below(monkeypatch):
    monkeypatch.setattr("edgeloop._core.isas", lambda: ["ref", "avx2", "avx512"])
    assert choose_isas("avx512bf16") == ["avx512"]
    assert choose_isas("avxvnni") == ["avx2"]
    assert choose_isas("neondot") == ["ref"]
    assert choose_isas("of-the-future") == ["ref"]
    assert choose_isas("auto") == ["avx512", "avx2", "ref"]
    assert choose_isas("auto", "avx2") == ["avx2"]


def test_memory_planned_for_fewer_rungs_is_enough(monkeypatch):
    """As with a program that was compiled before this machine's best rung was known."""
    program = el.Program.from_spec(tiny_spec())
    best = isas()[-1]
    opened = []

    def refuse_best(table, isa, *rest):
        opened.append(isa)
        if isa == best:
            raise ValueError("scratch")
        return run(table, isa, *rest)

    run = _core.open
    monkeypatch.setattr("edgeloop._core.open", refuse_best)
    if best != "ref":  # there is a rung below it
        assert el.Session(program).isa == isas()[-2]
        assert opened == [best, isas()[-2]]
    with pytest.raises(el.ProgramError, match=f"cannot run here with isa={best}, threads=1"):
        el.Session(program, isa=best)
