"""A training step on a Cortex-M4F (QEMU) with the bits of the host's portable variant."""

from __future__ import annotations

import numpy as np
import pytest
from tests.firmware.board import needs_qemu, train
from tests.program.tiny import ROWS, WIDTH, tiny_spec
from tests.runtime.mlp import BATCH, compiled, randomised, samples

import edgeloop as el
from edgeloop.program import Program
from edgeloop.runtime import Session

# Budgets of the LoRA example: code with read-only data but without table and weights; stack.
CODE_BYTES = 20_000
STACK_BYTES = 2_000


def batches(session: Session, rows: list[tuple[np.ndarray, np.ndarray]]):
    """Step the host session over ``rows``; return what it wrote to io, and its losses."""
    entry, feeds, losses = session._only("train"), [], []
    for x, y in rows:
        losses.append(session.step(x, y))
        feeds.append({n: a.copy() for n, a in entry.inputs.items()})
    return feeds, np.array(losses, np.float32)


@needs_qemu
def test_a_board_computes_the_bits_of_the_host(tmp_path):
    program = Program.from_spec(tiny_spec())
    host = Session(program, isa="ref")
    rng = np.random.default_rng(0)
    rows = [(rng.standard_normal((n, WIDTH)), rng.integers(0, WIDTH, n)) for n in (ROWS, 2)]
    feeds, losses = batches(host, rows)
    board = train(tmp_path, program, feeds)
    assert board.status == 0
    np.testing.assert_array_equal(board.losses, losses)
    assert board.params == bytes(host._regions[0])


@needs_qemu
def test_lora_training_on_a_board_has_the_bits_of_the_host(tmp_path):
    """Losses and weights of ten steps; code, read-only data and stack stay in their budgets."""
    program = compiled(optimizer=el.SGD(lr=0.1, momentum=0.9, weight_decay=0.01), isa="ref",
                       entries=("train",))
    host = randomised(Session(program, isa="ref"))
    start = host._regions[0].tobytes()
    rows = [samples(n, seed) for seed, n in enumerate((BATCH,) * 9 + (3,))]
    feeds, losses = batches(host, rows)
    assert losses[-2] < losses[0]
    board = train(tmp_path, program, feeds, params=start)
    assert board.status == 0
    np.testing.assert_array_equal(board.losses, losses)
    assert board.params == host._regions[0].tobytes()
    core = board.sizes["text"] - len(program.table_bytes) - program.plan.weight_bytes
    print(  # noqa: T201  what `make firmware` reports
        f"\ncode and other read-only data {core} B, table {len(program.table_bytes)} B, weights "
        f"{program.plan.weight_bytes} B, RAM {program.plan.ram_bytes} B, stack {board.stack} B"
    )
    assert core < CODE_BYTES
    assert board.stack < STACK_BYTES


@needs_qemu
@pytest.mark.parametrize(("quantize", "compute"), [
    ("int4", "exact"), ("f16", "exact"), ("int8", "int8"), ("bf16", "exact"), (None, "bf16"),
    ("int4", "bf16"),
])
def test_a_smaller_base_has_the_bits_of_the_host_too(tmp_path, quantize, compute):
    program = compiled(isa="ref", entries=("train",), quantize=quantize, compute=compute)
    host = randomised(Session(program, isa="ref"))
    start = host._regions[0].tobytes()
    feeds, losses = batches(host, [samples(BATCH, seed) for seed in range(3)])
    board = train(tmp_path, program, feeds, params=start)
    assert board.status == 0
    np.testing.assert_array_equal(board.losses, losses)
    assert board.params == host._regions[0].tobytes()
    assert board.stack < STACK_BYTES


@needs_qemu
@pytest.mark.parametrize("status", [2])
def test_a_board_refuses_a_damaged_table(tmp_path, status):
    program = Program.from_spec(tiny_spec())
    rows = [(np.ones((1, WIDTH)), np.zeros(1, int))]
    feeds, _ = batches(Session(program, isa="ref"), rows)
    table = bytearray(program.table_bytes)
    table[96 + 8] = 32  # offset of the first tensor: misaligned
    program.table_bytes = memoryview(bytes(table))
    assert train(tmp_path, program, feeds).status == status
