"""What a budget buys: RAM of training plans, and what it costs in time. `make bench memory`, or

    python bench/memory.py [--no-times] [--soak] [ROW...]

Each row compiles a plan (rows for microcontrollers with target="mcu", batch 1 unless the row says
otherwise), and sessions of it take steps; a time is the median of ratios to the plan without a
budget, steps in turn. KiB and MiB are plan.ram_bytes: the base, mapped or in flash, is not in them.
``--soak``: 10,000 steps of a process of its own, whose anonymous memory has to stay at the plan.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers"), str(HERE.parent / "tests")]

import places  # noqa: E402
import pytest  # noqa: E402
from models.forced import in_strips, waiting  # noqa: E402
from models.saved import saved_share  # noqa: E402
from models.vit import cct, vit  # noqa: E402
from models.zoo import ZOO, mobilenet_v2  # noqa: E402

import edgeloop as el  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
POINTWISE = ("*.pw", "head")
# Sparse update: biases of five blocks, an eighth of the channels of three expansions, the head.
SPARSE = el.Sparse(
    {f"blocks.{i}.expand.weight": (0, 42) for i in (14, 15, 16)} | {"head": "all"}
    | {f"blocks.{i}.{k}_bn.bias": "all"
       for i in range(12, 17) for k in ("expand", "dw", "project")})
LAST_BLOCKS = tuple(f"blocks.{i}.*" for i in (14, 15, 16))
SGD = el.SGD(lr=0.01)


def zoo(name: str) -> Callable[[], Any]:
    return ZOO[name].build


def w5() -> Path:
    path = places.models() / "W5.onnx"
    if not path.exists():
        sys.exit(f"{path} is missing: python bench/peers/build.py --models W5")
    return path


@dataclass(frozen=True)
class Row:
    """A plan, its goal in bytes and the most its step may take, as a multiple of the free one.

    ``arena``: the goal is for the arena alone.
    """

    title: str
    model: Callable[[], Any]
    goal: int
    options: dict[str, Any]
    slower: float | None = None
    arena: bool = False
    peer: str = ""


MCU = {"target": "mcu", "batch": 1, "optimizer": SGD}
KWS = MCU | {"train": el.LoRA(4, targets=POINTWISE)}
MBV2 = MCU | {"train": el.LoRA(4, targets=LAST_BLOCKS)}
MINILM = {"train": [el.LoRA(8, targets=("*.q", "*.v")), el.LastLayers(1)], "batch": 8,
          "optimizer": SGD, "threads": 2}
ROWS = {
    "ti": Row("TI autoencoder, full, SGD", zoo("ti_ae"), int(14.5 * KIB),
              MCU | {"train": el.Full(), "loss": "mse"}, peer="27.2 KiB, TI's layout"),
    "ae-bias": Row("Deep-AE int8, bias, SGD", zoo("deep_ae"), 14 * KIB,
                   MCU | {"train": el.Bias(), "loss": el.loss.MSE(of_input=True),
                          "quantize": "int8"}),
    "ae-lora": Row("Deep-AE int8, LoRA 4, 8-bit Adam", zoo("deep_ae"), 108 * KIB,
                   MCU | {"train": el.LoRA(4), "loss": "mse", "quantize": "int8",
                          "optimizer": el.AdamW8bit()}),
    "kws": Row("DS-CNN-S, LoRA 4, exact", zoo("ds_cnn"), 190 * KIB,
               KWS | {"allow": (), "slowdown": 1.1}),
    "kws-again": Row("DS-CNN-S, LoRA 4, recomputed", zoo("ds_cnn"), 120 * KIB,
                     KWS | {"allow": (), "slowdown": 1.33}, 1.33),
    "kws-int8": Row("DS-CNN-S, LoRA 4, int8 forward", zoo("ds_cnn"), 72 * KIB,
                    KWS | {"quantize": "int8", "compute": "int8"}),
    "mbv2": Row("MobileNetV2-0.35, u8 128 x 128, LoRA 4 on 3 blocks",
                lambda: mobilenet_v2(128, 2, camera=True), 200 * KIB,
                MBV2 | {"quantize": "int8", "compute": "int8"}, peer="206 KiB, MIT on their board"),
    "mbv2-sparse": Row("the same, sparse update", lambda: mobilenet_v2(128, 2, camera=True),
                       200 * KIB, MBV2 | {"quantize": "int8", "compute": "int8",
                                          "train": SPARSE}),
    "minilm": Row("MiniLM-L6 shape, batch 8, exact", w5, 112 * MIB, MINILM, arena=True,
                  peer="RSS 500 MB ORT, 603 MB PyTorch"),
    "minilm-again": Row("MiniLM-L6 shape, recomputed", w5, 42 * MIB,
                        MINILM | {"slowdown": 1.33, "allow": ()}, 1.33, arena=True),
    "minilm-micro": Row("MiniLM-L6 shape, micro-batches, recomputed", w5, 8 * MIB,
                        MINILM | {"slowdown": 1.4, "allow": ()}, 1.4, arena=True),
}


def compiled(row: Row, budget: int | None, **more: Any) -> el.Program:
    options = {"entries": ("train",), "loss": "cross_entropy"} | row.options | more
    return el.compile(row.model(), budget=budget, **options)


def measured(row: Row) -> tuple[int, el.Program | None, str]:
    """Bytes of the plan with the goal as its budget, or of the best one that was found."""
    fixed = 0
    if row.arena:  # what a budget counts beside the arena
        plan = compiled(row, None).plan
        fixed = plan.ram_bytes - plan.arena_bytes
    try:
        program = compiled(row, row.goal + fixed)
    except el.BudgetError as e:
        return e.needed - fixed, None, str(e).splitlines()[0]
    plan = program.plan
    note = next((n for n in plan.notes if n.startswith("to fit")), "")
    return plan.arena_bytes if row.arena else plan.ram_bytes, program, note.partition(": ")[2]


def batch(program: el.Program) -> tuple[Any, Any]:
    """Random inputs and zero labels of a whole step."""
    rng = np.random.default_rng(0)
    n, inputs = program.batch, program.metadata["inputs"]
    x = {k: rng.standard_normal((n, *t["shape"][1:]), np.float32) if t["dtype"] == "f32"
         else np.zeros((n, *t["shape"][1:]), np.int32) for k, t in inputs.items()}
    if program.metadata["loss"] == "mse":
        return x, next(iter(x.values())) if program.metadata.get("targets") != [] else None
    return x, np.zeros(n, np.int32)


def ratio(program: el.Program, free: el.Program, seconds: float = 6.0) -> float:
    """Time of a step over that of the free plan's, steps in turn."""
    pair = [el.Session(p) for p in (program, free)]
    x, y = batch(free)
    for s in pair:
        s.lr = 0.0
        s.step(x, y)
    found, end = [], time.perf_counter() + seconds
    while len(found) < 5 or (time.perf_counter() < end and len(found) < 200):
        took = []
        for s in pair:
            begin = time.perf_counter()
            s.step(x, y)
            took.append(time.perf_counter() - begin)
        found.append(took[0] / took[1])
    return statistics.median(found)


def size(n: int) -> str:
    return f"{n / KIB:.1f} KiB" if n < 4 * MIB else f"{n / MIB:.1f} MiB"


def show(title: str, goal: str, got: str, met: bool, rest: str) -> bool:
    print(f"{title:<48} {goal:>12} {got:>12} {'met' if met else 'MISSED':<7} {rest}", flush=True)
    return met


def one(row: Row, *, times: bool) -> bool:
    nbytes, program, note = measured(row)
    met, slow = program is not None and nbytes <= row.goal, ""
    if program is not None and row.slower is not None:
        free = compiled(row, None, slowdown=2.0)
        slow = f"{program.plan.step_flops / free.plan.step_flops:.2f}x the operations"
        if times:
            took = ratio(program, free)
            met = met and took <= row.slower
            slow = f"{took:.2f}x the time (<= {row.slower}); {slow}"
    return show(row.title, f"<= {size(row.goal)}", size(nbytes), met, "; ".join(
        filter(None, (slow, note, row.peer))))


def overhead() -> bool:
    """LoRA beside training the same weights themselves, whose inputs backward needs as well.

    A budget of 1.05 times that arena has to be met at no more than 1.1 times the work.
    """
    met = True
    for name, model, loss in (("ViT, 4 blocks", vit(image=64, patch=8, blocks=4), "cross_entropy"),
                              ("Deep-AE", ZOO["deep_ae"].build(), "mse"),
                              ("ResNet-8", ZOO["resnet8"].build(), "cross_entropy")):
        options = {"loss": loss, "batch": 8, "optimizer": SGD, "entries": ("train",)}
        full, lora = (el.compile(model, train=t, **options).plan for t in (el.Full(), el.LoRA(8)))
        share, note = lora.arena_bytes / full.arena_bytes, "without a budget"
        if share > 1.05:
            try:
                plan = el.compile(
                    model, train=el.LoRA(8), slowdown=1.1, allow=(), **options, budget=int(
                        1.05 * full.arena_bytes) + lora.ram_bytes - lora.arena_bytes).plan
                note = f"{share:.2f}x without a budget; {plan.notes[-1].partition(': ')[2]}"
                share = plan.arena_bytes / full.arena_bytes
            except el.BudgetError as e:
                note = str(e).splitlines()[0]
        met &= show(f"LoRA 8 over all weights, arena: {name}", "<= 1.05x", f"{share:.2f}x",
                    share <= 1.05, f"{note}; 2x in PEFT")
    return met


def curves(epochs: int = 40) -> bool:
    """Loss curves with int8 rows beside f32 ones, by area; samples learnt by heart.

    Between operators in strips of one sample, and where values only wait for backward.
    """
    met = True
    nets = [(name, case.build(), case.loss, 1) for name, case in ZOO.items()
            if name in ("ds_cnn", "resnet8", "mobilenet_v1", "mobilenet_v2")]
    nets.append(("vit", vit(image=32, patch=8, blocks=4), "cross_entropy", 4))
    for name, model, loss, batch in nets:
        rng = np.random.default_rng(0)
        x, y = ZOO[name].data(model) if name in ZOO else (
            rng.standard_normal((8, 3, 32, 32), np.float32), np.arange(8) % 10)
        area = {}
        for how, change in (("f32", None), ("between operators", partial(in_strips, int8=True,
                            strip=4096)), ("waiting", partial(waiting, kind="i8"))):
            if name not in ZOO and how == "between operators":
                continue
            with pytest.MonkeyPatch.context() as patched:
                if change:
                    change(patched)
                program = el.compile(
                    model, loss=loss, train=el.LoRA(4), batch=batch,
                    optimizer=el.AdamW(lr=2e-3), entries=("train",))
            session = el.Session(program)
            area[how] = sum(session.step(x[i : i + batch], y[i : i + batch])
                            for _ in range(epochs) for i in range(0, len(x), batch))
            if how != "f32":
                share = area[how] / area["f32"]
                met &= show(f"int8 rows {how}, loss by area: {name}", "<= 1.04x", f"{share:.3f}x",
                            share <= 1.04, f"{len(x)} samples, {epochs} epochs")
    return met


def compact() -> bool:
    """CCT-2 at batch 1: everything that a step holds, LoRA beside full back-propagation.

    "Full" as frameworks do it: every gradient is there before the update (grad entry), and so are
    the weights that train.
    """
    options = {"batch": 1, "optimizer": SGD, "target": "mcu"}
    full = el.compile(cct(), train=el.Full(), entries=("grad",), **options).plan
    lora = el.compile(cct(), train=el.LoRA(4), entries=("train",), **options).plan
    tight = el.compile(cct(), train=el.LoRA(4), entries=("train",), slowdown=1.33, allow=(),
                       budget=int(0.4 * lora.ram_bytes), **options).plan
    share = lora.ram_bytes / full.ram_bytes
    return show("CCT-2 0.28 M, LoRA 4 over full, RAM", "<= 0.5x", f"{share:.2f}x", share <= 0.5,
                f"full {size(full.ram_bytes)} for {full.trainable_params:,} parameters, LoRA "
                f"{size(lora.ram_bytes)}, at 1.33x the work {size(tight.ram_bytes)}; "
                "TrainDeeploy -23 %")


def state() -> bool:
    model = w5()
    plans = [el.compile(model, train=el.LoRA(8, targets=("*.q", "*.v")), optimizer=kind(), batch=8,
                        entries=("train",)).plan for kind in (el.AdamW8bit, el.AdamW)]
    small, wide = (p.state_bytes / p.trainable_params for p in plans)
    return show("8-bit Adam, bytes of state a parameter", "<= 2.1", f"{small:.3f}", small <= 2.1,
                f"AdamW {wide:.3f}")


def sixty(*, times: bool = True) -> bool:
    """Every net of the zoo at 60 % of its arena, where a plan can do that."""
    met = True
    for name, case in ZOO.items():
        options = {"loss": case.loss, "train": el.LoRA(4), "batch": 4, "optimizer": SGD,
                   "entries": ("train",)}
        free = el.compile(case.build(), **options)
        share = saved_share(partial(el.compile, case.build(), **options))
        if share <= 0.6:
            print(f"60 % of the arena: {name}: saved activations are {share:.0%} of it, not asked")
            continue
        goal = int(0.6 * free.plan.arena_bytes)
        try:
            program = el.compile(case.build(), slowdown=1.33, allow=(), **options,
                                 budget=free.plan.ram_bytes - free.plan.arena_bytes + goal)
            nbytes, note = program.plan.arena_bytes, program.plan.notes[-1].partition(": ")[2]
            took = ratio(program, free) if times else 1.0
        except el.BudgetError as e:
            nbytes, note, took = e.needed, str(e).splitlines()[0][:80], 1.0
        met &= show(f"60 % of the arena: {name}", f"<= {size(goal)}", size(nbytes),
                    nbytes <= goal and took <= 1.33,
                    (f"{took:.2f}x the time (<= 1.33); " if times else "") + note)
    return met


def solver() -> bool:
    """Seconds until there is a plan, or none, for steps of about 500 operators."""
    met = True
    for name, model, rows in (("MobileNetV2", ZOO["mobilenet_v2"].build(), 1),
                              ("MobileNetV2", ZOO["mobilenet_v2"].build(), 8),
                              ("ViT, 6 blocks", vit(image=32, patch=8, blocks=6), 4)):
        options = {"train": el.LoRA(4), "batch": rows, "optimizer": el.AdamW(),
                   "entries": ("train",)}
        free, took = el.compile(model, **options), {}
        for share in (0.7, 0.5, 0.4, 0.32, 0.2):
            began = time.perf_counter()
            try:
                el.compile(model, budget=int(share * free.plan.ram_bytes), **options)
                end = ""
            except el.BudgetError:
                end = " refused"
            took[share] = time.perf_counter() - began, end
        most = max(s for s, _ in took.values())
        met &= show(f"a plan of {len(free.table.steps)} steps: {name}, batch {rows}", "<= 30 s",
                    f"{most:.1f} s", most <= 30, ", ".join(
                        f"{share:g}: {s:.1f}{end}" for share, (s, end) in took.items()))
    return met


SOAK = """
import json, sys
import numpy as np
import edgeloop as el
def rss():
    with open("/proc/self/status") as f:
        return {k: int(v.split()[0]) << 10 for k, v in (line.split(":") for line in f)
                if k in ("RssAnon", "RssFile", "VmHWM")}
program = el.load(sys.argv[1])
x, y = np.random.default_rng(0).standard_normal((8, 1, 49, 10), np.float32), np.zeros(8, np.int32)
session_class = el.Session  # imported: the interpreter's own
before = rss()
session = session_class(program)
most = 0
for i in range(int(sys.argv[2])):
    session.step(x, y)
    if i % 100 == 0:
        most = max(most, rss()["RssAnon"])
print(json.dumps({"anonymous": most - before["RssAnon"], "file": rss()["RssFile"]}))
"""


def soak(steps: int = 10_000) -> bool:
    """Anonymous memory beside the interpreter's, while a session takes ten thousand steps."""
    program = el.compile(ZOO["ds_cnn"].build(), train=el.LoRA(4), batch=8, entries=("train",),
                         optimizer=el.AdamW())
    path = HERE.parent / "build" / "bench" / "soak.elp"
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)
    done = subprocess.run([sys.executable, "-c", SOAK, str(path), str(steps)], check=True,
                          capture_output=True, text=True)
    got = json.loads(done.stdout)
    most = int(1.02 * program.plan.ram_bytes) + MIB
    return show(f"RSS over {steps} steps, anonymous", f"<= {size(most)}", size(got["anonymous"]),
                got["anonymous"] <= most, f"plan {size(program.plan.ram_bytes)}; file-backed "
                f"{size(got['file'])}")


EXTRA: dict[str, Callable[[], bool]] = {"zoo": sixty, "overhead": overhead, "state": state,
                                       "cct": compact, "curves": curves, "solver": solver}


def main() -> int:
    parser = argparse.ArgumentParser(description="Plans beside their goals.")
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS, *EXTRA, "soak"])
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--soak", action="store_true")
    args = parser.parse_args()
    names = args.rows or [*ROWS, *EXTRA, *(["soak"] if args.soak else [])]
    times = not args.no_times
    extra = EXTRA | {"zoo": partial(sixty, times=times), "soak": soak}
    met = [one(ROWS[n], times=times) if n in ROWS else extra[n]() for n in names]
    print(f"{sum(met)} of {len(met)} met")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
