"""Models larger than their RAM: what training them takes, in processes of their own.

    python bench/resident.py [--folder DIR] [--steps 3] [--no-peers] [ROW..]

1.1b: a Llama of TinyLlama's shape as int4, LoRA r8 on q and v, weights read from the file.
135m: one of SmolLM-135M's shape as int4, LoRA r8 on all projections. w7, tiny: for a quick look.
Models (bench/llama.py) and programs are made once in the folder. Each program is loaded and
trained in a fresh process that imports no compiler, with a cache of its own: VmHWM is the most
that ever was in memory, the interpreter and file pages included. Then again under a memory cgroup
of as much as the goal allows, where one can be made; a process that takes more is the control and
has to be killed. `in memory` runs the same program over weights held in memory: the losses must be
the same. PyTorch + PEFT (resident_torch.py) trains the same shape beside it, its base in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
QV = ("*.q", "*.v")
ALL = (*QV, "*.k", "*.o", "*.gate", "*.up", "*.down")
MB, MIB = 1e6, 1 << 20
FOLDER = Path.home() / ".cache/edgeloop-peers/resident"
CGROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Row:
    """What is compiled, and its goals: bytes of the process's peak, of ``ram_bytes``."""

    targets: tuple[str, ...]
    resident: str | None = None
    budget: str | None = None
    optimizer: str = "AdamW8bit"
    rss: int | None = None
    ram: int | None = None
    group: int = 64


ROWS = {
    "tiny": Row(QV, "250 KiB", group=32),
    "w7": Row(QV, "24 MiB", "96 MiB"),
    "1.1b": Row(QV, "24 MiB", "100 MiB", rss=192_000_000),
    "135m": Row(ALL, None, "40 MiB", ram=40 * MIB),
}


def make(name: str, folder: Path) -> dict[str, object]:
    """Write the model and compile it, unless that was done; return the facts that were noted."""
    import llama

    import edgeloop as el

    row, shape = ROWS[name], llama.SHAPES[name]
    facts = folder / f"{name}.json"
    asked = repr((row, shape, el.__version__))
    if facts.exists() and (known := json.loads(facts.read_text()))["asked"] == asked:
        return dict(known)
    path = folder / name / "model.onnx"
    if not path.exists():
        llama.write(folder / name, shape)
    began = time.perf_counter()
    program = el.compile(
        str(path), train=el.LoRA(rank=8, targets=row.targets), batch=1, entries=("train",),
        optimizer=getattr(el, row.optimizer)(lr=1e-3), resident=row.resident, budget=row.budget,
        threads=2, quantize=el.Quantize("int4", group=row.group))
    program.save(folder / f"{name}.elp")
    made = {
        "asked": asked, "params": shape.params, "plan": str(program.plan),
        "compile_s": time.perf_counter() - began, "ram_bytes": program.plan.ram_bytes,
        "compile_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "file_bytes": program.nbytes,
    }
    facts.write_text(json.dumps(made))
    return made


TRAIN = """
import json, sys, time
import numpy as np
import edgeloop as el

file, mode, steps, time_, vocab = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
if mode == "hold":  # the control of a cgroup: more than it allows
    held = bytearray(steps)
    held[::4096] = b"x" * len(held[::4096])
    sys.exit(0)
if mode == "memory":
    with open(file, "rb") as f:
        program = el.Program.from_bytes(f.read())
else:
    program = el.load(file)
session = el.Session(program)
assert "onnx" not in sys.modules and "edgeloop.ir" not in sys.modules
ids = np.random.default_rng(5).integers(0, vocab, (1, time_ + 1), np.int32)
losses, began = [], time.perf_counter()
for _ in range(steps):
    losses.append(session.step(ids[:, :-1], ids[:, 1:]))
seconds = (time.perf_counter() - began) / steps
with open("/proc/self/status") as f:
    status = dict(line.split(":") for line in f if line.startswith("Vm") or line.startswith("Rss"))
kib = {k: int(v.split()[0]) for k, v in status.items()}
print(json.dumps({"losses": losses, "seconds": seconds, "peak": kib["VmHWM"] * 1024,
                  "anonymous": kib["RssAnon"] * 1024, "file": kib["RssFile"] * 1024}))
"""


def run(file: Path, mode: str, *numbers: int, group: Path | None = None) -> dict[str, object] | int:
    """Run a process; return what it measured, or the number it ended with."""
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        def enter() -> None:
            if group is not None:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(file), mode, *map(str, numbers)], check=False,
            capture_output=True, text=True, preexec_fn=enter,
            env={**os.environ, "EDGELOOP_CACHE": cache})
    return measured(done)


def measured(done: subprocess.CompletedProcess[str]) -> dict[str, object] | int:
    """What a process printed, or the number it ended with."""
    if done.returncode:
        print(done.stderr.strip()[-300:], file=sys.stderr)
        return done.returncode
    return dict(json.loads(done.stdout))


def peer(name: str, steps: int, dtype: str) -> dict[str, object] | int:
    """Run PyTorch + PEFT in a process; what it measured, or the number it ended with."""
    return measured(subprocess.run(
        [sys.executable, str(HERE / "resident_torch.py"), name, str(steps), dtype], check=False,
        capture_output=True, text=True))


def cgroup(limit: int) -> Path | None:
    """Make a memory cgroup, of the first or the second version; None where that cannot be."""
    for root, names in zip(
        CGROUPS, (("memory.limit_in_bytes",), ("memory.max", "memory.swap.max")), strict=True
    ):
        group = root / f"edgeloop-{os.getpid()}"
        try:
            group.mkdir()
            (group / names[0]).write_text(str(limit))
            if len(names) > 1:
                (group / names[1]).write_text("0")
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        return group
    return None


def show(what: str, got: dict[str, object] | int, tokens: int) -> None:
    """Print what a run with so many tokens a step measured."""
    if isinstance(got, int):
        print(f"  {what:<12} ended with {got}")
        return
    rest = f"then {got['anonymous'] / MB:.1f} anonymous, {got['file'] / MB:.1f} of files"
    print(f"  {what:<12} peak {got['peak'] / MB:6.1f} MB ({rest}), {got['seconds']:.2f} s a step, "
          f"{tokens / got['seconds']:.1f} tokens/s, loss {got['losses'][-1]:.6f}")


def measure(name: str, folder: Path, steps: int, *, peers: bool) -> bool:
    """Print a row; tell whether it meets its goals."""
    import llama

    row, shape, file = ROWS[name], llama.SHAPES[name], folder / f"{name}.elp"
    facts = json.loads(subprocess.run(
        [sys.executable, __file__, "--folder", str(folder), "--make", name], check=True,
        stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    print(f"{name}: {facts['params'] / MB:,.1f} M parameters, file {facts['file_bytes'] / MB:,.1f} "
          f"MB; compiled in {facts['compile_s']:.0f} s within "
          f"{facts['compile_peak_bytes'] / 1e9:.1f} GB")
    print("  " + facts["plan"].replace("\n", "\n  "))
    numbers = steps, shape.time, shape.vocab
    good = True

    def ran(what: str, mode: str, group: Path | None = None) -> dict[str, object] | int:
        got = run(file, mode, *numbers, group=group)
        show(what, got, shape.time)
        return got

    first, held = ran("streamed" if row.resident else "mapped", "file"), ran("in memory", "memory")
    goals = [("same losses", not isinstance(first, int) and not isinstance(held, int)
              and first["losses"] == held["losses"])]
    if row.rss is not None:
        goals.append((f"peak <= {row.rss / MB:.0f} MB",
                      not isinstance(first, int) and first["peak"] <= row.rss))
        group = cgroup(row.rss)
        if group is None:
            print("  no memory cgroup can be made here")
        else:
            inside = ran("in a cgroup", "file", group)
            control = run(file, "hold", 2 * row.rss, 1, 1, group=group)
            group.rmdir()
            goals += [("trains in a cgroup of as much", not isinstance(inside, int)),
                      ("twice as much is killed there", control == -signal.SIGKILL)]
    fast = "avx512_bf16" in Path("/proc/cpuinfo").read_text()  # elsewhere it takes minutes
    for dtype in ("f32", *(["bf16"] if fast else [])) if peers else ():
        show(f"PEFT {dtype}", peer(name, steps, dtype), shape.time)
    if row.ram is not None:
        goals.append((f"ram_bytes <= {row.ram / MIB:.0f} MiB", facts["ram_bytes"] <= row.ram))
    for what, met in goals:
        print(f"  {'met ' if met else 'MISS'}  {what}")
        good = good and met
    return good


def main() -> int:
    """Measure the rows that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", default=["135m", "1.1b"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--make", choices=ROWS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.make:
        print(json.dumps(make(args.make, args.folder)))
        return 0
    met = [measure(name, args.folder, args.steps, peers=not args.no_peers) for name in args.rows]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
