"""A program of one's own that answers with whatever the device has learnt so far.

    python examples/serving/plain.py machine.elp device.db < rows.csv

Each line of standard input is a row of numbers; each line of output a class and the version that
says so. `edgeloop run loop.toml` may learn meanwhile, in a process of its own: what goes live there
answers here a second later.
"""

from __future__ import annotations

import sys

import numpy as np

import edgeloop as el


def main(program: str, state: str) -> None:
    """Answer line by line."""
    predictor = el.Predictor(program, state)
    names = predictor.program.metadata["classes"]
    for line in sys.stdin:
        row = np.array([line.split(",")], np.float32)
        answer = predictor.predict(row)
        (scores,) = answer.outputs.values()
        print(names[scores[0].argmax()], answer.version, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
