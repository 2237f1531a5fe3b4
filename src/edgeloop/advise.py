"""How far down to train: LoRA on the last layers of a model, with time and memory of each choice.

Backward goes as deep as the lowest adapter, and what lies below it can be computed once for each
sample. `edgeloop plan MODEL --advise` shows what that saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from edgeloop.compiler import compile as compile_program
from edgeloop.compiler import layer_names
from edgeloop.errors import CompileError, EdgeLoopError
from edgeloop.importer.load import read_model
from edgeloop.methods import LoRA
from edgeloop.passes.layers import blocks_of, depths
from edgeloop.program import Program
from edgeloop.runtime import Session

CUT: Final = ("features", "train_from", "eval_from")
# Steps are run while this process took less for all choices; then operations at their rate.
MEASURE_SECONDS: Final = 30.0
RUNS: Final = 3


def advise(
    model: Any, *, batch: int = 8, shapes: Mapping[str, int] | None = None, rank: int = 4,
    threads: int = 1, seconds: float = MEASURE_SECONDS,
) -> dict[str, Any]:
    """Compile and run LoRA on the last k blocks, for a handful of k.

    A block is the layers whose paths are the same up to the first number (``encoder.layer.3``);
    any other layer is one by itself.

    Parameters
    ----------
    batch, shapes, threads
        As for ``compile``, with SGD.
    rank
        Of every LoRA.
    seconds
        No further step but the first is run once this process took so long: estimates instead.

    Returns
    -------
    dict
        ``batch``, ``rate`` (operations a second, of the steps that ran), ``blocks`` (how many) and
        ``choices``, each with ``blocks``, ``lowest`` (layer), ``targets``, ``trainable``,
        ``step_flops``, ``ram_bytes`` (the exact plan, with the cut's entries where there is a cut),
        ``step_seconds``, ``timing`` ("measured": least of some steps on this host, or "estimated":
        operations at ``rate``), and ``cut``: None with ``no_cut`` (why), or ``sample_bytes``,
        ``features_seconds`` (of a batch, once) and ``step_seconds`` (of later epochs). A choice
        that does not compile has ``error``.

    Raises
    ------
    ModelError, UnsupportedError
        The file cannot be read, or holds what the compiler does not know.
    CompileError
        No layer of the model takes LoRA.
    """
    proto = read_model(model)
    blocks = blocks_of(layer_names(proto, batch, shapes))
    if not blocks:
        raise CompileError("the model has no dense, convolution or recurrent layer for LoRA")
    start, rate = time.process_time(), 0.0
    choices = []
    for k in depths(len(blocks)):
        targets = [name for block in blocks[-k:] for name in block]
        choice: dict[str, Any] = {"blocks": k, "lowest": targets[0], "targets": targets}
        try:
            program, reason = _compiled(
                proto, LoRA(rank=rank, targets=tuple(targets)), batch, shapes, threads)
        except EdgeLoopError as e:
            choices.append(choice | {"error": str(e)})
            continue
        measure = rate == 0 or time.process_time() - start < seconds
        choices.append(choice | _facts(program, reason, rate, measure=measure))
        if measure:
            rate = choices[-1]["step_flops"] / choices[-1]["step_seconds"]
    return {"batch": batch, "rank": rank, "blocks": len(blocks), "rate": rate, "choices": choices}


def _compiled(
    proto: Any, train: LoRA, batch: int, shapes: Mapping[str, int] | None, threads: int
) -> tuple[Program, str]:
    """Return the program, and why it has no cut where it has none."""
    reason = ""
    for entries in (("train", "eval", "predict", *CUT), ("train", "eval", "predict")):
        error: EdgeLoopError | None = None
        for loss in ("cross_entropy", "mse"):
            try:
                return compile_program(
                    proto, loss=loss, train=train, batch=batch, shapes=shapes, entries=entries,
                    threads=threads), reason
            except EdgeLoopError as e:
                error = error or e
                if str(e).startswith("no cut: "):
                    error, reason = e, str(e).removeprefix("no cut: ")
                    break
    assert error is not None
    raise error


def _facts(program: Program, reason: str, rate: float, *, measure: bool) -> dict[str, Any]:
    plan = program.plan
    flops = {e.name: e.flops for e in plan.entries}
    timed = _measured(program) if measure else {n: f / rate for n, f in flops.items()}
    cut = None if "features" not in flops else {
        "sample_bytes": program.metadata["cut"]["sample_bytes"],
        "step_flops": flops["train_from"], "features_seconds": timed["features"],
        "step_seconds": timed["train_from"],
    }
    return {
        "trainable": plan.trainable_params, "step_flops": plan.step_flops,
        "ram_bytes": plan.ram_bytes, "step_seconds": timed["train"],
        "timing": "measured" if measure else "estimated", "cut": cut,
        **({"no_cut": reason} if cut is None else {}),
    }


def _measured(program: Program) -> dict[str, float]:
    """Least time of some calls of each entry, over random inputs.

    On one thread it is the thread's own time, so that other work of the machine does not count.
    """
    session = Session(program)
    clock = time.thread_time if program.plan.threads == 1 else time.perf_counter
    rng = np.random.default_rng(0)

    def random(t: Any) -> Any:  # zero is a valid id and a valid class
        shape, dtype = tuple(t.shape), t.dtype
        return rng.standard_normal(shape, np.float32) if dtype == "f32" else np.zeros(shape, int)

    entry = program.entries["train"]
    x = {n: random(t) for n, t in entry.inputs.items() if n in program.metadata["inputs"]}
    y = {n: random(entry.inputs[n]) for n in ("labels", "targets") if n in entry.inputs}
    calls: dict[str, Callable[[], Any]] = {"train": lambda: session.step(x, y)}
    if "features" in program.entries:
        kept = session.features(x)
        calls |= {"features": lambda: session.features(x),
                  "train_from": lambda: session.step_from(kept, y)}
    best: dict[str, float] = {}
    session.lr = 0.0  # random targets would drive the weights anywhere
    for _ in range(RUNS):
        for name, call in calls.items():
            begin = clock()
            call()
            best[name] = min(best.get(name, np.inf), clock() - begin)
    return best
