"""Ten epochs over kept features beside ten over samples. `make bench cut`, or

    python bench/cut.py [--epochs 10] [--samples 32] [--blocks 4] [--layers q,v]

ViT-Tiny (224 x 224, patches of 16), LoRA on the named layers of its last blocks, AdamW, batch 8,
one thread. The variants take turns epoch by epoch; time is that of the thread. Features are
computed once, and that time counts. Losses must be those of the steps over samples: equal bits
with f32, within a bound with f16 and int8.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent / "tests")]

from models.vit import vit  # noqa: E402

import edgeloop as el  # noqa: E402

BLOCKS, BATCH = 12, 8
ENTRIES = ("train", "eval", "features", "train_from", "eval_from")
# Largest relative difference of a step's loss.
BOUNDS = {"f32": 0.0, "f16": 1e-3, "int8": 1e-2}
# Share of the gain that the operations allow, at least; and the gain that is aimed at.
REACHED, GOAL = 0.9, 2.5


class Variant:
    """One session that learns, the time it took, and its losses."""

    def __init__(self, program: el.Program, keep: str | None, x: np.ndarray, y: np.ndarray) -> None:
        self.session, self.keep, self.x, self.y = el.Session(program), keep, x, y
        self.first, self.epochs, self.losses = 0.0, [], []
        if keep is not None:
            begin = time.thread_time()
            self.cache = el.FeatureCache(program, len(x), keep=keep)
            self.cache.fill(self.session, x, range(len(x)))
            self.first = time.thread_time() - begin

    def epoch(self, order: np.ndarray) -> None:
        begin = time.thread_time()
        for rows in order.reshape(-1, BATCH):
            if self.keep is None:
                loss = self.session.step(self.x[rows], self.y[rows])
            else:
                loss = self.session.step_from(self.cache.rows(rows), self.y[rows])
            self.losses.append(loss)
        self.epochs.append(time.thread_time() - begin)

    @property
    def seconds(self) -> float:
        return self.first + sum(self.epochs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--layers", default="q,v")
    args = parser.parse_args()
    targets = [f"blocks.{i}.{name}" for i in range(BLOCKS - args.blocks, BLOCKS)
               for name in args.layers.split(",")]
    program = el.compile(vit(), train=el.LoRA(rank=4, targets=targets), batch=BATCH,
                         optimizer=el.AdamW(lr=1e-3), entries=ENTRIES)
    flops = {e.name: e.flops for e in program.plan.entries}
    rng = np.random.default_rng(0)
    count = args.samples // BATCH * BATCH
    x = rng.standard_normal((count, 3, 224, 224)).astype(np.float32)
    y = rng.integers(0, 10, count)
    whole = Variant(program, None, x, y)
    every = [whole, *(Variant(program, keep, x, y) for keep in BOUNDS)]
    for epoch in range(args.epochs):
        order = np.random.default_rng(epoch).permutation(count)
        for v in every:
            v.epoch(order)
    allowed = args.epochs * flops["train"] / (
        args.epochs * flops["train_from"] + flops["features"])
    print(f"{len(targets)} layers of {args.blocks} blocks; {count} samples, {args.epochs} epochs; "
          f"step {flops['train'] / 1e9:.1f} GFLOP, from the cut {flops['train_from'] / 1e9:.1f}")
    print(f"{'features':10}{'bytes':>10}{'once s':>9}{'epoch s':>9}{'all s':>9}{'faster':>8}"
          f"{'later':>8}{'loss differs':>14}")
    missed = []
    for v in every:
        apart = max(abs(a - b) / abs(b) for a, b in zip(v.losses, whole.losses, strict=True))
        gain = whole.seconds / v.seconds
        size = "-" if v.keep is None else f"{v.cache.nbytes // count:,}"
        print(f"{v.keep or 'none':10}{size:>10}{v.first:9.2f}{min(v.epochs):9.2f}{v.seconds:9.2f}"
              f"{gain:8.2f}{min(whole.epochs) / min(v.epochs):8.2f}{apart:14.2g}")
        if v.keep is None:
            continue
        if apart > BOUNDS[v.keep]:
            missed.append(f"{v.keep}: losses differ by {apart:.2g}, the bound is {BOUNDS[v.keep]}")
        if gain < REACHED * allowed:
            missed.append(f"{v.keep}: {gain:.2f} times as fast; operations allow {allowed:.2f}")
    print(f"operations allow {allowed:.2f} for all epochs together, "
          f"{flops['train'] / flops['train_from']:.2f} for a later one; aimed at {GOAL}")
    print("\n".join(missed) if missed else "losses within their bounds, gains as operations allow")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
