"""The pipeline: an ONNX model in, a program out. It reads like a table of contents.

The module is not called `compile`, because importing a submodule of that name would replace the
function `edgeloop.compile`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from edgeloop.auto_rank import choosing_rank
from edgeloop.errors import CompileError, EdgeLoopError
from edgeloop.importer import Imported, load_model
from edgeloop.ir import Array, Graph, Type, Value, verify
from edgeloop.loss import MSE, Loss, Onnx, resolve
from edgeloop.methods import Head, LoRA, Method, Train, flatten
from edgeloop.options import SGD, Optimizer
from edgeloop.passes.attach_loss import attach_loss, target_names
from edgeloop.passes.attach_methods import attach_methods, facts
from edgeloop.passes.attach_optimizer import attach_optimizer
from edgeloop.passes.autodiff import add_gradients
from edgeloop.passes.count_step import count_step
from edgeloop.passes.cut_entries import cut_entries, note
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.describe_loss import describe_loss
from edgeloop.passes.fold_batchnorm import fold_batchnorm
from edgeloop.passes.fold_constants import fold_constants
from edgeloop.passes.freeze_params import freeze_params
from edgeloop.passes.fuse import fuse_activations, fuse_sgd, fuse_sums
from edgeloop.passes.fuse_head import fuse_head
from edgeloop.passes.gradient_entries import accumulate_entry, apply_entry, grad_entry
from edgeloop.passes.layers import layers, shared_params
from edgeloop.passes.layout import attach_bias, pointwise_to_linear, sink_transposes
from edgeloop.passes.lora import lora_scales
from edgeloop.passes.measure_rows import measure_rows
from edgeloop.passes.merge_lora import merge_lora
from edgeloop.passes.merge_views import merge_views
from edgeloop.passes.name_outputs import name_outputs
from edgeloop.passes.quantize_base import DENSE, quantize_base, unstored
from edgeloop.passes.read_rows import read_rows
from edgeloop.passes.recognise_activations import recognise_activations
from edgeloop.passes.recognise_attention import recognise_attention
from edgeloop.passes.recognise_norms import recognise_norms
from edgeloop.passes.recognise_rotary import recognise_rotary
from edgeloop.passes.recognise_where import recognise_where
from edgeloop.passes.reserve_names import reserve_names
from edgeloop.passes.share import share
from edgeloop.passes.store_base import doubled, store_base
from edgeloop.program import Program
from edgeloop.quantize import Compute, Quantize, check_compute
from edgeloop.quantize import resolve as resolve_quantize
from edgeloop.smaller_lora import choosing_size
from edgeloop.solver import ALLOWED, Change, Draft, Frame, solve
from edgeloop.target import describe
from edgeloop.units import parse_bytes

MAX_THREADS = 64  # as the core has it
# Params that methods add; the others are tensors of the model, or of a new head.
ADDED = re.compile(r"\.(lora_\w+|ia3|adapter_(down|up)\.(weight|bias)|prefix_(k|v|gate))(\.\d+)?$")
ENTRIES = ("train", "eval", "predict", "grad", "accumulate", "apply", "features", "train_from",
           "eval_from")
Pass = Callable[[Graph], Graph]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of `compile` after they were checked."""

    loss: Loss
    train: tuple[Method, ...]
    optimizer: Optimizer
    entries: tuple[str, ...]
    seed: int
    head: Head | None = None
    quantize: Quantize | None = None
    compute: Compute = "exact"
    merge: bool = True  # LoRA into its weight, inside a step, where that is less work


def layer_names(
    model: Any, batch: int, shapes: Mapping[str, int] | Sequence[Mapping[str, int]] | None,
) -> list[str]:
    """Name the layers that LoRA takes by itself, first to last; see ``compile`` for arguments."""
    dims = shapes if isinstance(shapes, Mapping) else next(iter(shapes or ()), None)
    imported = load_model(model, batch=batch, shapes=dims)
    graph = normal_form(imported, Options(MSE(), (), SGD(), ("predict",), 0))
    return [x.name for x in layers(graph) if not (x.grouped or x.embedding)]


@choosing_size(layer_names)
@choosing_rank
def compile(  # noqa: A001  the public name is el.compile
    model: Any,
    *,
    loss: str | Loss = "cross_entropy",
    train: Train | Sequence[Train] | None = None,
    optimizer: Optimizer | None = None,
    batch: int = 8,
    predict_batch: int = 1,
    shapes: Mapping[str, int] | Sequence[Mapping[str, int]] | None = None,
    entries: Sequence[str] = ("train", "eval", "predict"),
    threads: int = 1,
    isa: str = "auto",
    budget: str | int | None = None,
    slowdown: float = 2.0,
    allow: Sequence[str] = ALLOWED,
    resident: str | int | None = None,
    target: str = "host",
    seed: int = 0,
    quantize: str | Quantize | None = None,
    compute: str = "exact",
    adapter: Mapping[str, Array] | None = None,
    features: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    head: Head | None = None,
) -> Program:
    """Compile the whole training step of an ONNX model.

    Parameters
    ----------
    model
        Path of an ONNX file (external data too) or an ``onnx.ModelProto``.
    loss
        "cross_entropy", "mse", "bce", ... or an ``el.loss`` record; over the model's first output
        unless it names others.
    train
        What learns: ``el.LoRA`` (default, rank 4 on every layer), ``el.IA3``, ``el.Adapter``,
        ``el.Prefix``, ``el.Sparse``, ``el.LastLayers``, ``el.Bias``, ``el.Full``, or several of
        them (a list or ``el.Compose``, which says how they combine).
    optimizer
        ``el.SGD`` (default), ``el.AdamW``, ``el.AdamW8bit``, ``el.Lion`` or ``el.Adafactor``.
    batch, predict_batch
        Rows of a training step and of one predict call.
    shapes
        Sizes of the model's other dynamic dimensions by name; a list makes one variant of every
        entry for each element.
    entries
        Any of train, eval, predict, grad, accumulate, apply; and features with train_from (and
        eval_from), which part the step where everything below is the same for a sample in every
        epoch.
    threads
        Threads that a session will use; results do not depend on it.
    isa
        "auto" (every instruction set of this host), "ref" or another that the guide lists.
    budget
        Largest ``plan.ram_bytes``, such as "256 KiB". Where the plan exceeds it, the memory solver
        looks for one that does not, what changes no result first (docs/guide/memory.md).
    slowdown
        How much more work a step may become for the budget's sake, as a factor from 1 on.
    allow
        What the solver may do to results: "saved" (activations wait for backward in f16, then as
        int8 rows), "state" (``el.AdamW`` and ``el.Lion`` keep moments in 8 bits), "int8" (images
        and their gradients pass between operators as int8 rows); () for nothing but the order of
        sums. Only where named: "optimizer" (Lion with 8-bit state, then Adafactor, in Adam's
        place), "method" (LoRA of a smaller rank, then on fewer of the last blocks).
    resident
        Bytes of frozen weights that may be in memory at once, such as "64 MiB"; what is more is
        read from the program's file while it computes (docs/guide/streaming.md). None: all of
        them are mapped.
    target
        "host", or "mcu": one thread, portable kernels and no more scratch than they need.
    seed
        Of LoRA's random matrices.
    quantize
        How the frozen base is stored: None (f32, or as the model has it), "int8", "int4", "f16",
        "bf16" or ``el.Quantize(kind, group, zero_point, skip)``. What trains stays f32.
    compute
        "exact": f32 arithmetic on what the codes mean. "int8": dense products and convolutions
        over int8 codes run on integers, with activations and gradients rounded row by row. "bf16":
        dense products with frozen weights round their operands to bfloat16 and sum in f32; these
        weights are stored as bf16 unless ``quantize`` says otherwise.
    adapter
        What a session learned (``session.adapter()``), to become constant: a program that only
        predicts (entries=("predict",)). With ``el.Quantize(merged=True)`` it holds the int8 codes
        of the merged weights, and its forward has the bits that training saw.
    features, classes
        Recorded in the program: the feature pipeline's specification and the class names, so
        that training and serving cannot disagree.
    head
        ``el.Head``: a new classification layer in place of the model's, trained beside ``train``.

    Raises
    ------
    ModelError, UnsupportedError, ShapeError
        The model cannot be read, or holds what the compiler does not know.
    CompileError
        The options do not fit the model.
    BudgetError
        The plan does not fit ``budget``.
    """
    options = replace(
        _options(loss, train, optimizer, entries, seed, head), quantize=resolve_quantize(quantize)
    )
    options = replace(options, compute=check_compute(compute, options.quantize))
    if adapter is not None and options.entries != ("predict",):
        raise CompileError("adapter= makes what was learned constant: such a program only "
                           'predicts; pass entries=("predict",)')
    if target != "host":
        isa = describe(target, isa).isa
        _check_whole("threads", threads, 1, 1)
    describe(target)
    _check_whole("batch", batch, 1)
    _check_whole("predict_batch", predict_batch, 1)
    _check_whole("threads", threads, 1, MAX_THREADS)
    _check_whole("seed", seed, 0)
    limit = None if budget is None else _limit("budget", budget)
    variants = [dict(shapes)] if isinstance(shapes, Mapping) else [dict(s) for s in shapes or [{}]]
    asked = _Asked(model, options, batch, predict_batch, variants, adapter, features, classes)
    frame = Frame(threads, isa, None if resident is None else _limit("resident", resident))
    if limit is None:
        return frame.plain(_draft(asked, Change()))
    return solve(
        partial(_draft, asked), frame, options.optimizer, batch=batch, limit=limit,
        slowdown=slowdown, allow=allow)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The arguments of `compile` that graphs are made from."""

    model: Any
    options: Options
    batch: int
    predict_batch: int
    variants: list[dict[str, int]]
    adapter: Mapping[str, Array] | None
    features: Mapping[str, Any] | None
    classes: Sequence[str] | None


def _draft(asked: _Asked, change: Change) -> Draft:
    """The graphs of all entries, with what the memory solver changed, before they are ordered."""
    options, rows = asked.options, change.micro or asked.batch
    if change.micro:
        whole = {"train": ("accumulate", "apply")}
        entries = [e for name in options.entries for e in whole.get(name, (name,))]
        options = replace(options, entries=tuple(entries))
    options = replace(
        options, optimizer=change.optimizer or options.optimizer, merge=change.merge)
    made: dict[str, Graph] = {}
    first: Imported | None = None
    known: dict[str, Any] = {}
    scales: dict[str, float] = {}
    for i, dims in enumerate(asked.variants):
        tail = f"@{i}" if i else ""
        trained = load_model(asked.model, batch=rows, shapes=dims)
        adapted = adapt(trained, options)
        if first is None:
            first = trained
            known = facts(normal_form(trained, options), options.train, options.head)
            scales = lora_scales(adapted)
            known["tied"] = shared_params(adapted)
        training = adapt(trained, options, training=True) if _drops(options) else adapted
        own = _own_loss(options.loss, rows, dims)
        if i == 0:
            outputs = [v.name for v in adapted.outputs]
            known["targets"] = [v.name for v in own.inputs if v.name not in outputs] if own else (
                list(target_names(options.loss)))
        entries_ = training_entries(adapted, training, options, own)
        made |= {name + tail: e for name, e in entries_.items()}
        if "predict" in options.entries:
            served = load_model(asked.model, batch=asked.predict_batch, shapes=dims)
            constant = freeze_params(adapt(served, options), asked.adapter)
            made["predict" + tail] = predict_entry(constant, options)
    assert first is not None
    made, storage = _stored(made, options)
    made, cut = cut_entries(made, options.entries, list(first.inputs), rows)
    made = _shared(made)
    metadata = _metadata(
        first, known, made, options, asked.batch, asked.predict_batch, asked.features,
        asked.classes)
    metadata |= {
        "modules": {k: m.described() for k, m in first.modules.items()}, "scales": scales,
        "rslora": bool(scales) and all(m.rslora for m in options.train if isinstance(m, LoRA)),
    }
    metadata |= {"quantize": storage, "cut": cut}
    if change.micro:
        metadata["micro_batch"] = change.micro
    if cut is not None:
        metadata["notes"] = [*metadata["notes"], note(cut)]
    scalars = options.optimizer.scalars() | (
        {"accumulate_scale": 1.0} if "accumulate" in options.entries else {})
    return Draft(made, scalars, metadata)


def adapt(imported: Imported, options: Options, *, training: bool = False) -> Graph:
    """Forward graph as the importer gave it -> normal form with what trains in place.

    ``training`` adds what only training does (dropout).
    """
    graph = normal_form(imported, options)
    graph = attach_methods(
        graph, options.train, head=options.head, seed=options.seed, training=training)
    graph = _run(
        graph, [fold_batchnorm, sink_transposes, fold_constants, read_rows, fold_constants])
    if options.quantize is not None:
        rounded = quantize_base(graph, options.quantize)
    elif options.compute == "bf16":  # what is rounded in every product may as well be stored so
        rounded = quantize_base(graph, Quantize("bf16"), read_by=DENSE)
    else:
        rounded = graph
    if rounded is not graph:
        graph = verify(measure_rows(verify(rounded, "quantize_base")), "measure_rows")
    return name_outputs(graph, dict(zip(imported.outputs, graph.outputs, strict=True)))


def normal_form(imported: Imported, options: Options) -> Graph:
    """Forward graph as the importer gave it -> channels last, biases in place, names free."""
    steps: list[Pass] = [fold_constants, merge_views, recognise_where, recognise_activations,
                         recognise_rotary, recognise_attention, sink_transposes, fold_constants,
                         recognise_norms, attach_bias, pointwise_to_linear]
    graph = reserve_names(imported.graph, imported.outputs, _reserved(options))
    return _run(graph, steps)


def _own_loss(loss: Loss, batch: int, dims: Mapping[str, int]) -> Graph | None:
    """The user's own loss in normal form, its inputs under their ONNX names."""
    if not isinstance(loss, Onnx):
        return None
    found = load_model(loss.model, batch=batch, shapes=dims)
    return _run(found.graph, [fold_constants, sink_transposes, fold_constants])


def _drops(options: Options) -> bool:
    return any(isinstance(m, LoRA) and m.dropout > 0 for m in options.train)


def _reserved(options: Options) -> set[str]:
    """Names of the inputs and outputs that the entries add to the model's own."""
    scalars = {*options.optimizer.scalars(), "accumulate_scale"}
    return {*target_names(options.loss), "sample_weight", "norm", "loss", "grad_norm"} | scalars


def training_entries(
    graph: Graph, training: Graph, options: Options, own: Graph | None = None
) -> dict[str, Graph]:
    """The entries over the training batch: train, eval, grad, accumulate, apply.

    ``training`` is the graph whose gradient is taken: ``graph``, or that with dropout. ``own``
    is the user's own loss.
    """
    out: dict[str, Graph] = {}
    if {"eval", "eval_from"} & set(options.entries):
        made = attach_loss(graph, options.loss, own)
        outputs = {"loss": made.loss, **{v.name: v for v in graph.outputs}}
        out["eval"] = forward(name_outputs(made.graph, outputs), options)
    if {"train", "grad", "accumulate", "features"} & set(options.entries):
        made = attach_loss(training, options.loss, own)
        made.graph.outputs = [made.loss]
        lean = _run(made.graph, [drop_dead, _fusing(options)])
        backward, grads = add_gradients(lean, lean.outputs[0], list(training.params))
        backward = name_outputs(
            backward, {"loss": lean.outputs[0], **{f"grad:{p.name}": d for p, d in grads.items()}}
        )
        backward = _run(backward, [fold_constants, fuse_sums, _merging(options)])
        grads = dict(zip(grads, backward.outputs[1:], strict=True))
        loss = backward.outputs[0]
        if {"train", "features"} & set(options.entries):
            out["train"] = train_entry(backward, loss, grads, options)
        if "grad" in options.entries:
            out["grad"] = grad_entry(backward, loss, grads)
        if "accumulate" in options.entries:
            out["accumulate"] = count_step(accumulate_entry(backward, loss, grads), loss)
        if "apply" in options.entries:
            out["apply"] = apply_entry(grads, training, options.optimizer)
    return {name: _run(g, [fuse_activations]) for name, g in out.items()}


def train_entry(
    backward: Graph, loss: Value, grads: Mapping[Value, Value], options: Options
) -> Graph:
    """Forward, backward and every update as soon as its gradient is complete."""
    graph = backward.copy()
    graph.outputs = [loss]
    graph = count_step(attach_optimizer(graph, grads, options.optimizer, loss), loss)
    return _run(graph, [fuse_sgd])


def predict_entry(graph: Graph, options: Options) -> Graph:
    """Forward alone."""
    return _run(forward(graph, options), [fuse_activations])


def forward(graph: Graph, options: Options) -> Graph:
    """The part of a graph that its outputs need, with products summed in place."""
    return _run(graph, [drop_dead, fuse_sums, _merging(options)])


def _fusing(options: Options) -> Pass:
    def fuse(graph: Graph) -> Graph:
        return fuse_head(graph, codes=options.compute == "exact")

    return fuse


def _merging(options: Options) -> Pass:
    deployed = options.quantize is not None and options.quantize.merged

    def merge(graph: Graph) -> Graph:
        return merge_lora(graph, deployed=deployed) if options.merge or deployed else graph

    return merge


def _run(graph: Graph, steps: Sequence[Pass]) -> Graph:
    for step in steps:
        graph = verify(step(graph), step.__name__)
    return graph


def _stored(
    made: Mapping[str, Graph], options: Options
) -> tuple[dict[str, Graph], dict[str, Any] | None]:
    """Let products read codes; what a program's metadata says about its storage, None for f32."""
    out = {
        name: verify(store_base(g, options.compute), f"store_base ({name})")
        for name, g in made.items()
    }
    # What the artifact holds: equal codes once, whatever shapes their readers see.
    held: dict[tuple[str, bytes, bytes], tuple[str, int]] = {}
    for g in made.values():
        for s in g.stored.values():
            held[s.kind, s.matrix.tobytes(), s.scale.tobytes()] = (s.kind, s.nbytes)
        for n in (n for n in g.nodes if n.op == "merge_codes"):
            codes, scale = (g.constants[v] for v in n.inputs[:2] if v is not None)
            held["int8", codes.tobytes(), scale.tobytes()] = ("int8", codes.nbytes + scale.nbytes)
    found = Counter(kind for kind, _ in held.values())
    if options.compute == "int8" and not found["int8"]:
        raise CompileError("compute='int8' needs weights stored as int8, and no frozen weight is: "
                           "use quantize='int8', or compute='exact'")
    if options.compute == "bf16" and not any(
        n.op.startswith("qlinear_bf16") for g in out.values() for n in g.nodes
    ):
        raise CompileError("compute='bf16' is for dense layers with frozen weights, and the model "
                           "has none: use compute='exact'")
    if options.quantize is None and not held:
        return out, None
    kept: dict[str, str] = {}
    for name, g in made.items():
        kept |= dict.fromkeys(doubled(g, out[name]), "read as f32 too")
        if options.quantize is not None:
            kept |= unstored(g, options.quantize)
    return out, {
        "asked": None if options.quantize is None else asdict(options.quantize),
        "compute": options.compute,
        "tensors": dict(sorted(found.items())),
        "bytes": sum(nbytes for _, nbytes in held.values()),
        "f32": dict(sorted(kept.items())),
    }


def _shared(made: Mapping[str, Graph]) -> dict[str, Graph]:
    return {name: verify(g, f"share ({name})") for name, g in share(made).items()}


def _check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        span = f"from {low} on" if high is None else f"from {low} to {high}"
        raise CompileError(f"{name}={value!r}: it must be a whole number {span}")


def _limit(name: str, size: Any) -> int:
    if not isinstance(size, str | int):
        raise CompileError(f'{name}={size!r}: write bytes, or a size such as "256 KiB"')
    try:
        return parse_bytes(size)
    except EdgeLoopError as e:
        raise CompileError(f"{name}: {e}") from None


def _options(
    loss: str | Loss, train: Train | Sequence[Train] | None, optimizer: Optimizer | None,
    entries: Sequence[str], seed: int, head: Head | None,
) -> Options:
    methods = flatten(train)
    if not isinstance(optimizer, Optimizer | None):
        known = " or ".join(f"el.{kind.__name__}(...)" for kind in get_args(Optimizer))
        raise CompileError(f"optimizer={optimizer!r}: use {known}")
    entries = (entries,) if isinstance(entries, str) else tuple(entries)
    unknown = [e for e in entries if e not in ENTRIES]
    if unknown or not entries:
        raise CompileError(f"entries {list(entries)}: choose from {', '.join(ENTRIES)}")
    if "apply" in entries and "accumulate" not in entries:
        raise CompileError("entry 'apply' uses what 'accumulate' gathers: ask for both")
    if ("features" in entries) != ("train_from" in entries) or (
        "eval_from" in entries and "features" not in entries
    ):
        raise CompileError("entries 'features' and 'train_from' are the two parts of a step: ask "
                           "for both; 'eval_from' goes with them")
    if not isinstance(head, Head | None):
        raise CompileError(f"head={head!r}: use el.Head(classes=...)")
    return Options(resolve(loss), methods, optimizer or SGD(), tuple(entries), seed, head)


def _metadata(
    first: Imported, known: Mapping[str, Any], made: Mapping[str, Graph], options: Options,
    batch: int, predict_batch: int, features: Mapping[str, Any] | None,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    named = dict(zip(first.outputs, known["outputs"], strict=True))
    inputs = {v.name: v.type for g in made.values() for v in g.inputs}
    labels = describe_loss(options.loss, named, inputs, known["targets"])
    width = labels["labels"]["classes"]
    if classes is not None and width is not None and len(classes) != width:
        raise CompileError(f"{len(classes)} class names for an output of {width} classes")
    twice = next((c for c in classes or () if list(classes or ()).count(c) > 1), None)
    if twice is not None:
        raise CompileError(f"class names must differ; {twice!r} is given twice")
    return {
        "batch": batch, "predict_batch": predict_batch, "loss": options.loss.name,
        "inputs": {k: _described(t) | _bound(first, k) for k, t in first.inputs.items()},
        "outputs": list(first.outputs),
        **labels,
        "total_params": sum(x.params for x in first.layers) + known["head_params"] + _added(made),
        "features": dict(features) if features is not None else None,
        "classes": list(classes) if classes is not None else None,
        "train": [repr(t) for t in options.train], "ia3": known["ia3"],
        "notes": [m.reason for m in options.train if isinstance(m, LoRA) and m.reason],
        "head": repr(options.head) if options.head else None, "head_layer": known["head_layer"],
        "optimizer": repr(options.optimizer), "tied": known["tied"], "seed": options.seed,
        "opset": first.opset, "producer": first.producer,
    }


def _added(made: Mapping[str, Graph]) -> int:
    """Elements of the params that the model itself does not have."""
    params = {v.name: v.type.size for g in made.values() for v in g.params}
    return sum(n for name, n in params.items() if ADDED.search(name))


def _bound(imported: Imported, name: str) -> dict[str, int]:
    """The number below which an integer input's values must lie, where it is known."""
    return {"bound": imported.bounds[name]} if name in imported.bounds else {}


def _described(t: Type) -> dict[str, Any]:
    return {"shape": list(t.shape), "dtype": t.dtype}
