"""A program that reads weights from its file, as port_check takes it.

    python -m tests.core.streamed STEM
"""

from __future__ import annotations

import sys
from pathlib import Path

from models.zoo import ZOO

import edgeloop as el


def write_streamed(stem: Path) -> list[str]:
    """Write STEM.table, STEM.elp and STEM.start; return both files and where the weights begin."""
    program = el.compile(
        ZOO["deep_ae"].build(), loss="mse", train=el.LoRA(2), batch=8, threads=2,
        resident="700 KiB", entries=("train", "eval"))
    table, file, start = (stem.with_suffix(s) for s in (".table", ".elp", ".start"))
    program.save(file)
    table.write_bytes(bytes(program.table_bytes))
    start.write_text(str(program.weights_start()))
    return [str(table), str(file), start.read_text()]


if __name__ == "__main__":
    write_streamed(Path(sys.argv[1]))
