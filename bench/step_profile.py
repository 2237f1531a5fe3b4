"""Time of each step of an entry: python bench/step_profile.py program.elp [entry] [--top 20].

CPU time of this thread, least of several runs, so that a busy machine disturbs little. Steps are
run one after another as in training; only the clock stands between them.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np

import edgeloop as el
from edgeloop import _core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("entry", nargs="?", default="train")
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    session = el.Session(el.load(args.program), threads=1)
    names = {code: name for code, name, _ in _core.kernels()}
    entry = next(e for e in session._entries if e.name == args.entry)
    table = session.program.table
    place = table.entries[entry.index]
    steps = table.steps[place.first : place.first + place.count]
    rng = np.random.default_rng(0)
    for array in entry.inputs.values():
        array[...] = rng.standard_normal(array.shape) if array.dtype.kind == "f" else 0
    for slot, name in session._slots:
        slot[0] = session._scalars[name]
    least = np.full(len(steps), np.inf)
    for _ in range(args.runs):
        for i in range(len(steps)):
            t = time.thread_time_ns()
            _core.run(session._runner, entry.index, i, i + 1)
            least[i] = min(least[i], time.thread_time_ns() - t)
    rows = sorted(range(len(steps)), key=lambda i: -least[i])
    kinds: dict[str, float] = defaultdict(float)
    for i in rows:
        kinds[names[steps[i].opcode]] += least[i] / 1e3
    print(f"{args.entry}: {least.sum() / 1e3:.0f} us in {len(steps)} steps, isa {session.isa}")
    for kind, us in sorted(kinds.items(), key=lambda k: -k[1])[: args.top]:
        print(f"  {us:9.1f} us  {kind}")
    for i in rows[: args.top]:
        shapes = " ".join(
            "-" if o is None else "x".join(map(str, table.tensors[o].shape))
            for o in steps[i].operands)
        print(f"  {least[i] / 1e3:9.1f} us  {names[steps[i].opcode]:18} {shapes}")


if __name__ == "__main__":
    main()
