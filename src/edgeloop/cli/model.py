"""inspect, compile: models and programs. The compiler is imported inside the commands."""

from __future__ import annotations

import json
import resource
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.cli.exits import OK
from edgeloop.errors import CompileError, ConfigError, ModelError
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output

CUT = ("features", "train_from", "eval_from")
_PACKAGE, _SQLITE = b"EDLD", b"SQLite format 3\0"


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("inspect")
    parser.add_argument("file", help=".onnx, .elp, a delta package or a state file")
    parser.add_argument("--batch", type=int, default=8, help="of a model's planned training (8)")
    parser.add_argument(
        "--shapes", metavar="NAME=N,..", help="sizes of a model's other dynamic dimensions"
    )
    parser.add_argument(
        "--no-plans", action="store_true", help="of a model: do not compile the common choices"
    )
    parser.set_defaults(command=inspect)

    parser = command("compile")
    parser.add_argument("model", help="the ONNX model")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="program to write")
    parser.add_argument(
        "--loss", default="cross_entropy", help="cross_entropy (default), mse, bce, l1 or huber"
    )
    parser.add_argument(
        "--train",
        default="lora:rank=4",
        metavar="WHAT",
        help="lora:rank=4,targets=GLOB (default lora:rank=4), ia3, adapter, prefix, sparse, "
        "last:count=1, bias, full; join by +; or a loop.toml with [train] method",
    )
    parser.add_argument(
        "--head", metavar="N", help="a new head of N classes, or classes=N,init=uniform,layer=NAME"
    )
    parser.add_argument(
        "--optimizer", default="sgd:lr=0.01", metavar="WHAT",
        help="sgd, adamw, adamw8bit, lion or adafactor, with :lr=..",
    )
    parser.add_argument(
        "--quantize", metavar="KIND", help="keep the frozen base as int8, int4, f16 or bf16; also "
        "int4:group=64,zero_point=true,skip=GLOB",
    )
    parser.add_argument(
        "--compute", default="exact", help="exact (default), int8 (products on integers) or bf16 "
        "(dense products of operands rounded to bfloat16)",
    )
    parser.add_argument("--batch", type=int, default=8, help="rows of a training step (8)")
    parser.add_argument("--predict-batch", type=int, default=1, help="rows of a prediction (1)")
    parser.add_argument(
        "--shapes", metavar="NAME=N,..", help="sizes of the model's other dynamic dimensions"
    )
    parser.add_argument(
        "--entries",
        default="train,eval,predict",
        help="of train,eval,predict,grad,accumulate,apply,features,train_from,eval_from (default "
        "train,eval,predict)",
    )
    parser.add_argument(
        "--cut", action="store_true", help="part the step where all below is the same in every "
        "epoch: adds the entries features, train_from and eval_from",
    )
    parser.add_argument(
        "--features", metavar="FILE", help="feature pipeline, TOML (its [features]) or JSON"
    )
    parser.add_argument("--classes", metavar="A,B,..", help="class names, or @FILE with one a line")
    parser.add_argument("--budget", metavar="SIZE", help='largest RAM, such as "256 KiB"')
    parser.add_argument(
        "--slowdown", type=float, default=2.0, metavar="FACTOR",
        help="most work of a step for the budget's sake, as a multiple (2)",
    )
    parser.add_argument(
        "--allow", metavar="WHAT",
        help="what the budget may do to results: saved (activations wait in f16 or int8), state "
        "(8-bit optimizer state), int8 (images pass between operators as int8 rows); '' for "
        "nothing (default saved,state,int8); optimizer too: Lion, then Adafactor, in Adam's place; "
        "method too: LoRA of a smaller rank, on fewer blocks",
    )
    parser.add_argument(
        "--resident", metavar="SIZE", help="frozen weights in memory at once; the others are read "
        'from the program\'s file meanwhile, such as "64 MiB"'
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default="auto", help="auto (default), ref, avx2, neon, ...")
    parser.add_argument("--target", default="host", help="host (default) or mcu")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=compile_)


def inspect(args: argparse.Namespace, out: Output) -> int:
    """Look at a file by its first bytes."""
    path = Path(args.file)
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(_PACKAGE):
        return _inspect_package(path, out)
    if head == _SQLITE:
        from edgeloop.cli.state import status

        args.state, args.events = args.file, 5
        return status(args, out)
    # Safetensors: eight bytes of length, then JSON.
    if path.suffix == ".elp" or head[8:9] == b"{":
        return _inspect_program(path, out)
    return _inspect_model(path, args, out)


def _inspect_package(path: Path, out: Output) -> int:
    from dataclasses import asdict

    from edgeloop import delta
    from edgeloop.delta.programs import is_program, read_program_manifest

    if is_program(path):
        manifest, _ = read_program_manifest(path, None)
        kind = "program package"
    else:
        manifest, kind = delta.unpack(delta.read(path)).manifest, "delta package"
    facts = {"kind": kind, "file": str(path)} | asdict(manifest)
    out.result(facts)
    out.facts(facts)
    return OK


def _inspect_program(path: Path, out: Output) -> int:
    from edgeloop.program import Program

    program = Program.load(path)
    facts = {"kind": "program", "file": str(path), "hash": program.hash}
    out.result(facts | {"metadata": dict(program.metadata), "plan": program.plan.to_dict()})
    out.facts(facts | {n: v for n, v in program.metadata.items() if n != "program_hash"})
    out.line()
    out.line(str(program.plan))
    return OK


def _inspect_model(path: Path, args: argparse.Namespace, out: Output) -> int:
    found = compiler("coverage").coverage(
        path, batch=args.batch, shapes=shapes_of(args.shapes), plans=not args.no_plans
    )
    error = found["error"]
    out.result({"kind": "model", "file": str(path), **found})
    names = ("producer", "opset", "inputs", "outputs", "params", "weight_bytes")
    out.facts({"file": path, **{name: found[name] for name in names}})
    out.line()
    out.table(
        ["operator", "count", "supported"],
        [[o["op"], o["count"], o["supported"]] for o in found["operators"]],
    )
    if found["layers"]:
        out.line()
        out.table(
            ["layer", "weights", "params", "LoRA"],
            [
                [
                    x["name"],
                    "; ".join("x".join(map(str, s)) for s in x["weights"].values()),
                    x["params"],
                    x["lora"],
                ]
                for x in found["layers"]
            ],
        )
    for note in found["notes"]:
        out.line(f"note: {note}")
    if error is not None:
        raise ModelError(error)
    _show_coverage(found, out)
    return OK


def _show_coverage(found: dict[str, Any], out: Output) -> None:
    out.line()
    out.table(
        ["method", "places", "such as"],
        [
            [name, m["count"], ", ".join(m["examples"]) or m["reason"].partition(";")[0]]
            for name, m in found["methods"].items()
        ],
    )
    for line in found["advice"]:
        out.line(f"note: {line}")
    if not found["choices"]:
        return
    out.line()
    out.table(
        [f"training (batch {found['batch']})", "learns", "share", "RAM", "compiled in"],
        [
            [
                c["train"],
                c["trainable"],
                f"{c['share']:.2%}",
                format_bytes(c["ram_bytes"]),
                f"{c['seconds']:.1f} s",
            ]
            if "ram_bytes" in c
            else [c["train"], "-", "-", f"at most {format_bytes(c['at_most_bytes'])}", "estimate"]
            for c in found["choices"]
            if "error" not in c
        ],
    )
    for c in found["choices"]:
        if "error" in c:
            out.line(f"note: {c['train']}: {c['error']}")


def compile_(args: argparse.Namespace, out: Output) -> int:
    """Compile, save, report the plan."""
    compile_program = compiler("compiler").compile
    from edgeloop.options import parse_head, parse_optimizer, parse_train
    from edgeloop.quantize import parse as parse_quantize

    start = time.perf_counter()
    program = compile_program(
        args.model,
        loss=args.loss,
        train=parse_train(_train(args.train)),
        head=None if args.head is None else parse_head(args.head),
        optimizer=parse_optimizer(args.optimizer),
        batch=args.batch,
        predict_batch=args.predict_batch,
        shapes=shapes_of(args.shapes),
        entries=_entries(args),
        threads=args.threads,
        isa=args.isa,
        budget=args.budget,
        slowdown=args.slowdown,
        **({} if args.allow is None else {"allow": tuple(filter(None, args.allow.split(",")))}),
        resident=args.resident,
        target=args.target,
        seed=args.seed,
        quantize=None if args.quantize is None else parse_quantize(args.quantize),
        compute=args.compute,
        features=_features(args.features),
        classes=_classes(args.classes),
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    folder = Path(args.output).resolve().parent
    if not folder.is_dir():
        msg = f"--output {args.output}: the folder {folder} does not exist; create it"
        raise ConfigError(msg)
    program.save(args.output)
    size = Path(args.output).stat().st_size
    out.result(
        {
            "output": args.output,
            "bytes": size,
            "program_hash": program.hash,
            "plan": program.plan.to_dict(),
            "compile_seconds": seconds,
            "compile_peak_bytes": peak,
        }
    )
    out.line(f"{args.output}: {size} bytes, program {program.hash[:12]}")
    out.line(f"compiled in {seconds:.1f} s; this process took {format_bytes(peak)} of RAM at most")
    out.line(str(program.plan))
    return OK


def _entries(args: argparse.Namespace) -> tuple[str, ...]:
    asked = [part.strip() for part in args.entries.split(",")]
    return tuple(dict.fromkeys([*asked, *(CUT if args.cut else ())]))


def compiler(name: str) -> Any:
    """Import a module of the compiler stack; it needs onnx, which a device may not have."""
    from importlib import import_module

    try:
        return import_module(f"edgeloop.{name}")
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        msg = "reading ONNX models needs the onnx package: pip install 'edgeloop[onnx]'"
        raise CompileError(msg) from error


def shapes_of(text: str | None) -> dict[str, int] | None:
    """Read --shapes; raises ConfigError."""
    if text is None:
        return None
    shapes = {}
    for part in text.split(","):
        name, _, size = part.rpartition("=")
        if not name or not size.strip().isdigit():
            msg = f"--shapes {part!r}: write NAME=SIZE, such as sequence=128"
            raise ConfigError(msg)
        shapes[name.strip()] = int(size)
    return shapes


def _train(text: str) -> str:
    """Return the methods as text; a TOML file gives its [train] method."""
    if not text.endswith(".toml"):
        return text
    try:
        found = tomllib.loads(Path(text).read_text(encoding="utf-8")).get("train", {})
    except ValueError as error:
        msg = f"--train {text}: not TOML ({error})"
        raise ConfigError(msg) from error
    method = found.get("method") if isinstance(found, dict) else None
    if not isinstance(method, str):
        msg = f'--train {text}: [train] has no method, such as method = "lora:rank=4"'
        raise ConfigError(msg)
    return method


def _features(file: str | None) -> dict[str, Any] | None:
    if file is None:
        return None
    data = Path(file).read_bytes()
    try:
        value = json.loads(data) if file.endswith(".json") else tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        msg = f"--features {file}: neither TOML nor JSON ({error})"
        raise ConfigError(msg) from error
    if isinstance(value, dict) and isinstance(value.get("features"), dict):
        value = value["features"]  # a whole loop.toml will do
    if not isinstance(value, dict) or not {"kind", "steps"} & value.keys():
        msg = f'--features {file}: needs a key "kind", such as kind = "log-mel", or "steps"'
        raise ConfigError(msg)
    from edgeloop.data.features import from_spec

    # The whole specification with its defaults, so that the program records what will run.
    spec: dict[str, Any] = dict(from_spec(value).spec())
    return spec


def _classes(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if text.startswith("@"):
        names = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    else:
        names = text.split(",")
    names = [name.strip() for name in names if name.strip()]
    if len(set(names)) != len(names):
        msg = f"--classes {text}: a name stands there twice"
        raise ConfigError(msg)
    return names
