"""What fits a device: ways to train a model inside so much RAM and flash, and the best of them.

Each way (method, storage of the base, RAM) is compiled for real, so every number is a plan's. Ways
that another one beats in RAM, work and trainable parameters at once are left out of the front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgeloop.compiler import compile as compile_program
from edgeloop.compiler import layer_names
from edgeloop.errors import BudgetError, CompileError, EdgeLoopError
from edgeloop.importer.load import read_model
from edgeloop.methods import Bias, LastLayers, LoRA, Method
from edgeloop.options import Optimizer
from edgeloop.passes.layers import blocks_of, depths
from edgeloop.program import Program
from edgeloop.units import format_bytes, parse_bytes

RANKS: Final = (16, 8, 4, 2, 1)
STORAGES: Final = (None, "int8", "int4")  # of the frozen base, the least harmful first
# RAM is asked for in these shares of what is there: a front has more than one point.
SHARES: Final = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, slots=True)
class Way:
    """One way that fits: bytes of RAM and of the program file, work in operations of a step.

    ``how`` says what the memory solver did for it, "" for nothing. ``best``: on the front.
    """

    train: str
    storage: str
    ram_bytes: int
    flash_bytes: int
    step_flops: int
    trainable: int
    how: str
    best: bool = False


def fit(
    model: Any, *, ram: str | int, flash: str | int | None = None, loss: str = "cross_entropy",
    optimizer: Optimizer | None = None, train: Mapping[str, Sequence[Method]] | None = None,
    batch: int = 8, shapes: Mapping[str, int] | None = None, threads: int = 1, isa: str = "auto",
    target: str = "host", slowdown: float = 2.0, allow: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compile the ways to train a model that fit ``ram`` and ``flash``.

    Parameters
    ----------
    ram, flash
        Most bytes of ``plan.ram_bytes``, and of the program file (None: any), such as "256 KiB".
    train
        Methods by the text that names them; default: LoRA of several ranks on all layers, rank 4
        on the last blocks, biases, the last layer.
    loss, optimizer, batch, shapes, threads, isa, target, slowdown, allow
        As for ``compile``.

    Returns
    -------
    dict
        ``ram``, ``flash`` (bytes, or None), ``ways`` (dicts of `Way`, least RAM first; those
        with ``best`` are the Pareto front of RAM, work and trainable parameters) and ``refused``:
        by method, why nothing fits.

    Raises
    ------
    ModelError, UnsupportedError
        The file cannot be read, or holds what the compiler does not know.
    BudgetError
        Nothing fits: the smallest plan that was found, and for which method.
    """
    proto = read_model(model)
    most, room = parse_bytes(ram), None if flash is None else parse_bytes(flash)
    options: dict[str, Any] = {
        "loss": loss, "optimizer": optimizer, "batch": batch, "shapes": shapes, "threads": threads,
        "isa": isa, "target": target, "slowdown": slowdown, "entries": ("train", "predict"),
    } | ({} if allow is None else {"allow": allow})
    ways: list[Way] = []
    refused: dict[str, str] = {}
    least: tuple[int, str] = (1 << 62, "")
    for name, methods in (train or dict(_common(proto, batch, shapes))).items():
        try:
            ways += _of_method(proto, name, methods, most, room, options)
        except BudgetError as e:
            refused[name] = str(e).partition("\n")[0]
            least = min(least, (e.needed, name))
        except EdgeLoopError as e:
            refused[name] = str(e)
    if not ways:
        if not least[1]:
            raise CompileError("no way to train this model: " + "; ".join(
                f"{name}: {why}" for name, why in refused.items()))
        raise BudgetError(
            f"nothing fits {format_bytes(most)} of RAM"
            f"{'' if room is None else ' and ' + format_bytes(room) + ' of flash'}: the smallest "
            f"plan is {format_bytes(least[0])}, for {least[1]}; {refused[least[1]]}",
            needed=least[0])
    ways = sorted(set(ways), key=lambda w: (w.ram_bytes, w.step_flops, -w.trainable))
    return {
        "ram": most, "flash": room, "refused": refused,
        "ways": [asdict(w) | {"best": not any(_beats(v, w) for v in ways)} for w in ways],
    }


def _common(proto: Any, batch: int, shapes: Any) -> Iterator[tuple[str, list[Method]]]:
    for rank in RANKS:
        yield f"lora:rank={rank}", [LoRA(rank=rank)]
    blocks = blocks_of(layer_names(proto, batch, shapes))
    for k in depths(len(blocks))[:-1]:
        targets = tuple(name for block in blocks[-k:] for name in block)
        yield f"lora:rank=4 on the last {k} of {len(blocks)} blocks", [LoRA(4, targets=targets)]
    yield "bias", [Bias()]
    yield "last:count=1", [LastLayers(1)]


def _of_method(
    proto: Any, name: str, methods: Sequence[Method], most: int, room: int | None,
    options: Mapping[str, Any],
) -> list[Way]:
    """Ways of one method: the least harmful storage that fits, at several sizes of RAM."""
    out: list[Way] = []
    sizes = []
    for storage in STORAGES:
        program = compile_program(proto, train=methods, quantize=storage, budget=most, **options)
        sizes.append(program.nbytes)
        if room is None or program.nbytes <= room:
            break
    else:
        raise CompileError(
            f"the program file is larger than {format_bytes(room or 0)}: " + ", ".join(
                f"{s or 'f32'} {format_bytes(n)}" for s, n in zip(STORAGES, sizes, strict=True)))
    out.append(_way(name, storage, program))
    for share in SHARES[1:]:
        budget = int(share * most)
        if out[-1].ram_bytes <= budget:
            continue
        try:
            program = compile_program(
                proto, train=methods, quantize=storage, budget=budget, **options)
        except BudgetError:
            break
        if room is None or program.nbytes <= room:
            out.append(_way(name, storage, program))
    return out


def _way(name: str, storage: str | None, program: Program) -> Way:
    plan = program.plan
    note = next((n for n in plan.notes if n.startswith("to fit ")), "")
    return Way(name, storage or "f32", plan.ram_bytes, program.nbytes, plan.step_flops,
               plan.trainable_params, note.partition(": ")[2])


def _beats(a: Way, b: Way) -> bool:
    """Tell whether a is nowhere worse than b, and somewhere better."""
    x = a.ram_bytes, a.step_flops, -a.trainable
    y = b.ram_bytes, b.step_flops, -b.trainable
    return x != y and all(i <= j for i, j in zip(x, y, strict=True))
