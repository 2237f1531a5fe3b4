"""Training steps beside every peer on the same work. `make bench speed`, after `make bench-peers`.

    python bench/speed.py [--threads 1,2] [--rounds 3] [--seconds 2] [--modes f32,int8]
        [--peers torch,JAX] [--tasks train,predict,start,cycle,kernels] [--busy] [--again]
        [W1 ... W7]

Every case is a process of its own, pinned; the sides take turns, round by round, and medians are
compared. A time counts only when the losses agree (goals.py says how closely). The table, the plot
and the raw numbers go to build/bench.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
import compiled  # noqa: E402
import cycle  # noqa: E402
import goals  # noqa: E402
import kernels  # noqa: E402
import places  # noqa: E402
import report  # noqa: E402
from peaks import peaks  # noqa: E402

OUT = HERE.parent / "build" / "bench"
PLOT = "import sys; sys.path.insert(0, sys.argv[1]); import plot; plot.speed(sys.argv[2])"


def main() -> int:
    args = arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    raw = OUT / "speed.json"
    if not args.again:
        missing = [n for n in args.names if not (places.models() / f"{n}.weights.npz").exists()]
        if missing:
            sys.exit(f"no models of {', '.join(missing)} in {places.models()}: make bench-peers")
        keep(raw, measure(args))
    doc = json.loads(raw.read_text())
    text, missed = said(doc, busy=args.busy)
    (OUT / "speed.md").write_text(text)
    print(text)
    if plotted() != 0:
        print("no plot: matplotlib is not installed (pip install -e .[bench])")
    print(f"table, plot and numbers: {OUT}")
    return int(missed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [p.name for p in cases.PEERS]
    parser.add_argument("names", nargs="*", default=[n for n in compiled.JOBS if n != "W5s"])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--modes", default=",".join(compiled.modes()))
    parser.add_argument("--peers", default=",".join(known))
    parser.add_argument("--tasks", default="train,predict,start,cycle,kernels")
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--busy", action="store_true",
                        help="processor time of one thread: others work on this machine")
    parser.add_argument("--again", action="store_true", help="print the last run's table")
    args = parser.parse_args()
    for key in ("modes", "peers", "tasks"):
        setattr(args, key, getattr(args, key).split(","))
    args.threads = [int(n) for n in args.threads.split(",")]
    if unknown := set(args.peers) - set(known):
        sys.exit(f"unknown peers {sorted(unknown)}; there are {', '.join(known)}")
    return args


def modes_of(name: str, task: str, asked: list[str]) -> list[str]:
    """The small nets have goals in f32 alone; int4 is for the model that needs it."""
    if name in ("W1", "W2", "W3"):
        fit = ("f32", "int8") if task == "predict" else ("f32",)
    else:
        fit = ("f32", "int8") if task == "predict" else (
            ("f32", "int8", "bf16", "int4") if name == "W7" else ("f32", "int8", "bf16"))
    return [m for m in asked if m in fit]


def measure(args: argparse.Namespace) -> dict:
    """Run everything; returns what speed.json keeps."""
    doc = {"peaks": peaks(), "modes": args.modes, "results": [], "cycle": {}, "kernels": [],
           "load": os.getloadavg()[0], "began": time.strftime("%Y-%m-%d %H:%M")}
    programs = OUT / "programs"
    for name in args.names:
        for task in ("train", "predict"):
            if task not in args.tasks and not (task == "train" and "start" in args.tasks):
                continue
            modes = compile_all(name, task, args, programs)
            sides = [cases.edgeloop(m, task) for m in modes] + [
                p for p in cases.PEERS
                if p.task == task and p.name in args.peers and name not in p.without]
            doc["results"] += rounds(name, task, sides, args, programs)
            again = peaks()
            doc["peaks"] = {k: max(v, again[k]) for k, v in doc["peaks"].items()}
            keep(OUT / "speed.json", doc)
        for old in programs.glob(f"{name}.*"):
            old.unlink()
    if "kernels" in args.tasks:
        doc["kernels"] = kernels.shares(doc["peaks"])
        keep(OUT / "speed.json", doc)
    if "cycle" in args.tasks:
        doc["cycle"] = cycle.measured(
            places.models(), args.cycles, 1 if args.busy else max(args.threads), busy=args.busy)
    return doc


def compile_all(name: str, task: str, args: argparse.Namespace, programs: Path) -> list[str]:
    """Compile each mode in a process of its own; returns those that worked."""
    worked = []
    for mode in modes_of(name, task, args.modes):
        done = subprocess.run(
            [sys.executable, HERE / "compiled.py", places.models(), programs,
             str(max(args.threads)), f"{name}.{mode}.{task}"],
            capture_output=True, text=True, check=False)
        print(done.stdout.strip() or f"{name} {mode} {task}: {done.stderr[-600:]}", flush=True)
        worked += [mode] if done.returncode == 0 else []
    return worked


def rounds(name: str, task: str, sides: list[cases.Side], args: argparse.Namespace,
           programs: Path) -> list[dict]:
    """Measure every side once a round, beginning with another one each time."""
    out, failed = [], set()
    for turn in range(args.rounds):
        for threads in args.threads:
            for side in sides[turn % len(sides):] + sides[:turn % len(sides)]:
                if (side.name, threads) in failed:
                    continue
                kind = task
                if task == "train" and (turn, threads) != (0, max(args.threads)):
                    kind = "again"  # the loss of step 25 is the same for any threads
                got = cases.run(side, name, threads, args.seconds, kind, programs)
                if "error" in got:
                    failed.add((side.name, threads))
                out.append({"task": task, "name": name, "threads": threads, "side": side.name,
                            "round": turn, **got})
                what = got.get("error") or f"{got['ms']:.3f} ms"
                print(f"{name} {task} x{threads} round {turn + 1} {side.name}: {what}", flush=True)
    return out


def keep(path: Path, doc: dict) -> None:
    path.write_text(json.dumps(doc, indent=1))


def said(doc: dict, *, busy: bool = False) -> tuple[str, bool]:
    """The report in Markdown, and whether a goal is missed."""
    results = report.grouped(doc)
    found = report.rows(results, doc["peaks"], doc["modes"], busy=busy)
    tops = ", ".join(f"{k} {v:.0f}" for k, v in doc["peaks"].items())
    text = [f"Run of {doc['began']}, load average {doc['load']:.1f} at the start. "
            f"Peaks of one core, 1e9 operations a second: {tops}."
            + " One thread: least processor time." * busy,
            report.table(found), report.peers_table(results, busy=busy),
            *start_lines(results, busy=busy)]
    if doc["kernels"]:
        text.append(kernels.table(doc["kernels"]))
    missed = any(r.missed or r.note for r in found)
    missed |= any(k["share"] < k["goal"] for k in doc["kernels"])
    for kind, c in doc["cycle"].items():
        goal = goals.CYCLE_MS[kind]
        missed |= c["p99_ms"] > goal
        text.append(f"Update cycle, {kind}: median {c['median_ms']:.0f} ms, p99 "
                    f"{c['p99_ms']:.0f} ms over {c['cycles']} cycles (goal {goal:.0f}: "
                    f"{'met' if c['p99_ms'] <= goal else 'missed'}).")
    return "\n\n".join(text) + "\n", missed


def start_lines(results: dict, *, busy: bool = False) -> list[str]:
    """Start-up of the small nets, and how long the large program takes to load."""
    lines = []
    for name in ("W1", "W2", "W3"):
        if ours := results.get(("train", name, 1), {}).get("edgeloop f32"):
            first = report.median(ours, "first_cpu_s" if busy else "first_step_s")
            rss = report.median(ours, "rss_first_mb")
            goal = goals.START
            ok = first <= goal["first_step_s"] and rss <= goal["peak_rss_mb"]
            lines.append(f"Start-up, {name}: first step after {first:.3f} s (goal "
                         f"{goal['first_step_s']}), peak {rss:.1f} MB (goal "
                         f"{goal['peak_rss_mb']:.0f}): {'met' if ok else 'missed'}.")
    for side, ours in results.get(("train", "W7", 1), {}).items():
        if side.startswith("edgeloop"):
            load = report.median(ours, "load_s")
            lines.append(f"Loading W7, {side}: {load:.3f} s (goal {goals.LOAD_S}): "
                         f"{'met' if load <= goals.LOAD_S else 'missed'}.")
    return lines


def plotted() -> int:
    return subprocess.run([sys.executable, "-c", PLOT, HERE, OUT], capture_output=True,
                          check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
