"""What the state file writes: bytes of each kind of change, beside those that had to be kept.

`make bench wear`, or python bench/wear.py [--params N] [--updates N] [--steps N] [--every N]

Each row makes a change a hundred times in a file of its own, through the store as the loop uses it,
and reads how many bytes the process handed to the kernel (wchar of /proc/self/io): pages into the
log, pages out of it into the file, the copy. Amplification is that over the bytes of the change
itself. The last rows add up a day: updates of so many steps, a checkpoint after every so many.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "src")]

from edgeloop.beside import BACKUP  # noqa: E402
from edgeloop.store import CODECS, Job, Sample, Store, backup  # noqa: E402
from edgeloop.units import format_bytes  # noqa: E402

TIMES = 100


def written() -> int:
    """Bytes that this process has written so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def measure(change: Callable[[Store, int], int]) -> tuple[float, float]:
    """Return the bytes written and those kept by one change, opening and closing aside."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "device.db") as store:
        change(store, 0)
        begin, kept = written(), 0
        for i in range(1, TIMES + 1):
            kept += change(store, i)
        store.shrink_log()
        return (written() - begin) / TIMES, kept / TIMES


def main() -> int:
    parser = argparse.ArgumentParser(description="What the state file writes.")
    parser.add_argument("--params", type=int, default=2768, help="trainable (keyword demo: 2768)")
    parser.add_argument("--updates", type=int, default=24, help="a day")
    parser.add_argument("--steps", type=int, default=320, help="of an update")
    parser.add_argument("--every", type=int, default=64, help="steps between checkpoints")
    parser.add_argument("--samples", type=int, default=64, help="new ones in an update")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    first = rng.standard_normal(args.params).astype("f4") * np.float32(0.1)
    snapshot = rng.bytes(12 * args.params)  # parameters and Adam's two moments
    feature = rng.standard_normal((49, 10)).astype("f4")

    def checkpoint(store: Store, i: int) -> int:
        store.save_job(Job("p" * 64, None, snapshot, b"0:1", {"step": i}, [], "avx2"))
        return len(snapshot)

    def samples(store: Store, i: int) -> int:
        slots = [(16 * i + k) % 64 for k in range(16)]
        store.put_samples([Sample("train", feature, 1, f"{slot:06d}:{i}") for slot in slots])
        return 16 * feature.nbytes

    def version(codec: str) -> Callable[[Store, int], int]:
        def commit(store: Store, i: int) -> int:
            near = first * np.float32(1 + 1e-3 * i)
            parent = store.live()
            store.commit({"w": near}, program_hash="p" * 64, live=True, codec=codec, metrics={},
                         parent=None if parent is None else parent.id)
            store.gc(keep=50)
            return near.nbytes
        return commit

    def copy(store: Store, i: int) -> int:
        if i == 0:  # 64 samples, and a version
            for k in range(4):
                samples(store, k)
            version("f32")(store, 0)
        target = Path(f"{store.path}{BACKUP}")
        backup(store, target)
        return target.stat().st_size

    rows = {"checkpoint": checkpoint, "16 samples": samples,
            **{f"version, {codec}": version(codec) for codec in CODECS}, "copy of the file": copy}
    found = {}
    print(f"{'change':<20} {'keeps':>12} {'writes':>12}  amplification")
    for name, change in rows.items():
        wrote, kept = found[name] = measure(change)
        print(f"{name:<20} {format_bytes(int(kept)):>12} {format_bytes(int(wrote)):>12}"
              f"  {wrote / kept:.2f}x")
    update = (args.steps // args.every * found["checkpoint"][0] + found["version, f32"][0]
              + args.samples / 16 * found["16 samples"][0] + found["copy of the file"][0])
    print(f"a day of {args.updates} updates of {args.steps} steps, a checkpoint every "
          f"{args.every}: {format_bytes(int(args.updates * update))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
