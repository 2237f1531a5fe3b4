"""From what the children measured to rows, and from rows to a table. No process is started here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import goals
from cases import PEERS, Side

# (task, workload, threads) -> side -> what each round measured, {} for one that failed
Results = Mapping[tuple[str, str, int], Mapping[str, Sequence[Mapping[str, float]]]]


@dataclass
class Row:
    """One workload on one side of edgeloop, beside the best peers. Missing numbers are NaN."""

    task: str
    name: str
    mode: str
    threads: int
    ms: float
    best_f32: str = ""
    best_f32_ms: float = math.nan
    best_any: str = ""
    best_any_ms: float = math.nan
    got: dict[str, float] = field(default_factory=dict)  # as goals.py names them
    note: str = ""

    @property
    def goals(self) -> dict[str, float]:
        return goals.wanted(self.task, self.name, self.mode, self.threads)

    @property
    def missed(self) -> dict[str, tuple[float, float]]:
        """What is asked of it and not reached: got and goal."""
        return {k: (self.got.get(k, math.nan), v) for k, v in self.goals.items()
                if not goals.met(k, self.got.get(k, math.nan), v)}


def grouped(doc: Mapping) -> dict:
    """The raw list by (task, workload, threads) and side, as Results."""
    out: dict = {}
    for r in doc["results"]:
        sides = out.setdefault((r["task"], r["name"], r["threads"]), {})
        sides.setdefault(r["side"], []).append(r)
    return out


def median(rounds: Sequence[Mapping[str, float]], key: str = "ms") -> float:
    found = [r[key] for r in rounds if key in r]
    return statistics.median(found) if found else math.nan


def ratio(a: Sequence[Mapping[str, float]], b: Sequence[Mapping[str, float]],
          key: str = "ms") -> float:
    """Median over the rounds of a / b within a round: neighbours slow both down."""
    found = [x[key] / y[key] for x, y in zip(a, b, strict=False) if key in x and key in y]
    return statistics.median(found) if found else math.nan


def differs(rounds: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]],
            precision: str) -> str:
    """Say which value of the first round is not the reference's, "" when they agree."""
    if not rounds or not reference:
        return "did not run"
    for key in ("value_1", "value_25"):
        if key in reference[0]:
            got, want = rounds[0].get(key, math.nan), reference[0][key]
            if not goals.agrees(precision, got, want):
                return f"{key} is {got:.6g}, {want:.6g} in the reference"
    return ""


def clock(threads: int, *, busy: bool) -> str:
    """Which time counts. ``busy``: others work on this machine too, so that for one thread the
    least processor time of a step says more than the wall clock; for several it says nothing."""
    return "min_cpu_ms" if busy and threads == 1 else "ms"


def rows(results: Results, peaks: Mapping[str, float], modes: Sequence[str], *,
         busy: bool = False) -> list[Row]:
    """One row for each workload, number of threads and mode, and for each forward pass."""
    out = []
    for (task, name, threads), sides in results.items():
        key = clock(threads, busy=busy)
        peers = [p for p in PEERS if p.task == task and p.name in sides]
        reference = _reference(peers, sides)
        good = [p for p in peers if not differs(sides[p.name], reference, p.precision)]
        for mode in modes:
            ours = [r for r in sides.get(f"edgeloop {mode}", ()) if "ms" in r]
            if f"edgeloop {mode}" not in sides:
                continue
            row = Row(task, name, mode, threads, median(ours, key))
            row.note = differs(ours, reference, mode) if reference else ""
            if not row.note:
                _compare(row, ours, good, sides, key)
                _limits(row, ours, results.get((task, name, 1), {}), peaks)
            out.append(row)
    return out


def _reference(peers: Sequence[Side], sides: Mapping[str, Sequence]) -> Sequence:
    """The first f32 peer that ran: PyTorch eager, where it did."""
    return next((sides[p.name] for p in peers
                 if p.precision == "f32" and any("ms" in r for r in sides[p.name])), ())


def _compare(row: Row, ours: Sequence, peers: Sequence[Side], sides: Mapping, key: str) -> None:
    for what, among in (("f32", [p for p in peers if p.precision == "f32"]), ("any", peers)):
        timed = [p.name for p in among if not math.isnan(median(sides[p.name], key))]
        if not timed:
            continue
        best = min(timed, key=lambda n: median(sides[n], key))
        setattr(row, f"best_{what}", best)
        setattr(row, f"best_{what}_ms", median(sides[best], key))
        row.got[f"vs_{what}"] = ratio(ours, sides[best], key)
    if any(p.name == "torch bf16" for p in peers):
        row.got["vs_bf16"] = ratio(ours, sides["torch bf16"], key)


def _limits(row: Row, ours: Sequence, alone: Mapping, peaks: Mapping[str, float]) -> None:
    flops = median(ours, "flops")
    row.got["efficiency"] = flops / row.ms / 1e6 / (row.threads * peaks[row.mode])
    if row.threads > 1 and (one := alone.get(f"edgeloop {row.mode}")):
        row.got["scaling"] = ratio(one, ours)


def table(found: Sequence[Row]) -> str:
    """Markdown: one line a row."""
    head = ("work", "mode", "threads", "ms", "best f32 peer", "ratio", "best peer", "ratio",
            "of the limit", "1 -> 2", "goals")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for r in found:
        cells = [r.name if r.task == "train" else f"{r.name} predict", r.mode, str(r.threads),
                 number(r.ms)]
        if r.note:
            cells += [r.note, *[""] * 6]
        else:
            cells += [f"{r.best_f32} {number(r.best_f32_ms)}", number(r.got.get("vs_f32")),
                      f"{r.best_any} {number(r.best_any_ms)}", number(r.got.get("vs_any")),
                      f"{r.got['efficiency']:.0%}", number(r.got.get("scaling")), judged(r)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def judged(row: Row) -> str:
    """Each goal of a row, met or missed and by how much."""
    said = []
    for what, goal in row.goals.items():
        sign = ">=" if what in goals.AT_LEAST else "<="
        got = row.got.get(what, math.nan)
        text = f"{what} {sign} {goal:.2f}"
        said.append(f"{text} met" if what not in row.missed else f"**{text}: {got:.2f}**")
    return ", ".join(said)


def peers_table(results: Results, *, busy: bool = False) -> str:
    """Markdown: the time of every side, so that nobody has to believe in "the best peer"."""
    names = list(dict.fromkeys(n for sides in results.values() for n in sides))
    head = [f"{name}{' predict' if task == 'predict' else ''} x{n}" for task, name, n in results]
    lines = [f"| ms | {' | '.join(head)} |", f"|{'---|' * (len(head) + 1)}"]
    for n in names:
        cells = [number(median(sides.get(n, ()), clock(threads, busy=busy)))
                 for (_, _, threads), sides in results.items()]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def number(x: float | None) -> str:
    """Three digits; nothing for what is missing."""
    if x is None or math.isnan(x):
        return ""
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"
