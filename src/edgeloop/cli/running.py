"""run, plan, predict: a program at work."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.cli.exits import FAILED, OK
from edgeloop.cli.notify import watched
from edgeloop.cli.output import to_json
from edgeloop.cli.places import Place
from edgeloop.cli.progress import Progress
from edgeloop.errors import ConfigError, DataError
from edgeloop.store import Store
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from edgeloop.cli.output import Output
    from edgeloop.data.item import Item
    from edgeloop.loop import Config
    from edgeloop.program import Program

_KINDS = {".csv": "csv", ".npz": "npz", ".elr": "recording"}


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("plan")
    parser.add_argument("file", help="loop.toml, a program (.elp), or with --advise a model")
    parser.add_argument(
        "--advise", action="store_true", help="of a model: time and memory of LoRA on its last "
        "blocks, for several depths; compiles and runs them",
    )
    parser.add_argument(
        "--plot", metavar="FILE.svg", help="of a program: draw lifetimes x offsets of its arena"
    )
    parser.add_argument(
        "--peak", action="store_true", help="of a program: list what is live at the arena's peak"
    )
    parser.add_argument("--entry", help="with --plot and --peak (default: the largest one)")
    parser.add_argument("--batch", type=int, default=8, help="with --advise (8)")
    parser.add_argument("--rank", type=int, default=4, help="of LoRA, with --advise (4)")
    parser.add_argument("--threads", type=int, default=1, help="with --advise (1)")
    parser.add_argument(
        "--shapes", metavar="NAME=N,..", help="with --advise: a model's other dynamic dimensions"
    )
    parser.set_defaults(command=plan)

    parser = command("run")
    parser.add_argument("config", help="the loop.toml")
    parser.add_argument("--until", type=int, metavar="N", help="stop after N records in all")
    parser.add_argument("--state", metavar="FILE", help="instead of state.path")
    parser.add_argument(
        "--discard-job", action="store_true", help="forget an interrupted update, do not resume it"
    )
    parser.add_argument("--quiet", action="store_true", help="only the summary")
    parser.add_argument(
        "--explain", action="store_true", help="say what it waits for whenever that changes, why "
        "each update starts or stops, and what it cost"
    )
    parser.set_defaults(command=run)

    parser = command("predict")
    parser.add_argument(
        "file", help="loop.toml (its program, state and features) or program (.elp)"
    )
    parser.add_argument("input", help="CSV, NPZ, a recording (.elr), a folder of WAV clips, or - "
                        "for JSON lines")
    parser.add_argument("--state", metavar="FILE", help="state file whose live version answers")
    parser.add_argument(
        "--source", action="append", default=[], metavar="KEY=VALUE", help="option of the source"
    )
    parser.set_defaults(command=predict)


def plan(args: argparse.Namespace, out: Output) -> int:
    """Show the plan; exit status 1 when it does not fit its budget."""
    if args.advise:
        from edgeloop.cli.advice import advice

        return advice(args, out)
    if args.file.endswith(".onnx"):
        msg = f"{args.file}: is a model; add --advise, or compile it first"
        raise ConfigError(msg)
    if not args.file.endswith(".toml"):
        from edgeloop.program import Program

        program = Program.load(args.file)
        made = program.plan
        entry = args.entry or max(made.entries, key=lambda e: e.arena_bytes).name
        if not (args.plot or args.peak or args.entry):
            out.result(made.to_dict())
            out.line(str(made))
            return OK
        _show_arena(program, entry, args.plot, out)
        return OK
    from edgeloop import loop

    found = loop.plan(args.file)
    out.result(found.to_json())
    out.line(str(found))
    if found.budget is not None:
        out.line(
            f"budget {format_bytes(found.budget)}: " + ("fits" if found.fits else "does not fit")
        )
    return OK if found.fits else FAILED


def _show_arena(program: Program, entry: str, plot: str | None, out: Output) -> None:
    from edgeloop.program.lifetimes import lifetimes, peak

    step, there = peak(lifetimes(program, entry))
    out.result({"entry": entry, "step": step, "alive": [x._asdict() for x in there]})
    out.line(f"{entry}: at step {step}, where its arena is fullest")
    out.table(["bytes", "offset", "kind", "from", "to", "made by"], [
        [x.nbytes, x.offset, x.kind, x.first, x.last, x.name] for x in there])
    if plot:
        from edgeloop.cli.memory_svg import picture

        Path(plot).write_text(picture(program, entry), encoding="utf-8")
        out.line(f"{plot}: steps to the right, bytes upwards")


def run(args: argparse.Namespace, out: Output) -> int:
    """Run the loop; an interrupted update goes on where it stopped."""
    from edgeloop import loop

    config = _config(args.config, args.state)
    if args.discard_job:
        with Store.open(config.path(config.state.path)) as store:
            store.clear_job()
    with watched(), Progress(out, quiet=args.quiet) as progress:
        until = "exhausted" if args.until is None else args.until
        report = loop.run(
            config, on_event=progress.event, until=until, explain=args.explain,
            on_open=lambda opened: end_by_signal(opened.stop))
    summary = report.to_json()
    out.result({"event": "report", **summary})
    out.line(
        f"{report.items} records, {report.accepted} samples kept; {report.promoted} updates live, "
        f"{report.rejected} turned down; {report.ended} after {report.seconds:.1f} s"
    )
    if report.unlabelled:
        out.line(
            f"{report.unlabelled} records without a label were not used: name the label with "
            'source.label, or set train.target = "input" for a model that reproduces its input'
        )
    lost = {name: getattr(report, name) for name in loop.COUNTS}
    if any(lost.values()):
        out.line("lost: " + ", ".join(f"{n} {name}" for name, n in lost.items() if n))
    if report.updates:
        columns = ["version", "reason", "stop", "epochs", "steps", "train_seconds", "cycle_seconds"]
        out.table(columns, [[getattr(u, name) for name in columns] for u in report.updates])
    return OK


def predict(args: argparse.Namespace, out: Output) -> int:
    """Answer for each record of the input; keys and errors pass the filters of [privacy]."""
    from edgeloop.data.privacy import apply_filters
    from edgeloop.loop import checks, setup
    from edgeloop.runtime import Session

    place = _place(args.file, args.state)
    program = _live_program(place.load_program("nothing to predict with"), place)
    config = _source_config(args, place)
    session = Session(program)
    version = _load_live(session, program, place)
    labels = checks.labels_of(config, program)
    prepare = setup.preparer(checks.features_of(config, program))
    shape = checks.input_shape(config, program)
    classes = program.metadata.get("classes")
    distribution = program.metadata["loss"] == "cross_entropy"
    rows = []
    filters = setup.filters_of(config)
    for raw in _items(setup.make_items(config, labels, None).items()):
        item = apply_filters(filters, raw)
        if item is None:
            continue
        x = prepare(item.x)
        if x.shape != shape:
            msg = f"{item.key}: has shape {list(x.shape)}, the program takes {list(shape)}"
            raise DataError(msg)
        output = np.asarray(session.predict(x[np.newaxis]))[0]
        row: dict[str, Any] = {"key": item.key}
        row |= _answer(output, classes) if distribution else {"output": output.tolist()}
        if item.y is not None:
            row["label"] = _label(item.y, classes)
        rows.append(row)
        if not out.as_json:
            out.line("\t".join(_plain(value) for value in row.values()))
    result: dict[str, Any] = {"version": version, "predictions": rows}
    labelled = [row for row in rows if "label" in row and "class" in row]
    if labelled:
        result["accuracy"] = sum(r["label"] == r["class"] for r in labelled) / len(labelled)
        out.line(f"accuracy {result['accuracy']:.4f} on {len(labelled)} labelled records")
    out.result(result)
    return OK


def _config(path: str, state: str | None) -> Config:
    from edgeloop.loop import Config

    config = Config.load(path)
    if state is not None:
        config = replace(config, state=replace(config.state, path=Path(state).absolute()))
    return config


def _place(file: str, state: str | None) -> Place:
    if file.endswith(".toml"):
        place = Place.of(file)
        return replace(place, state=Path(state)) if state is not None else place
    return Place(Path(state) if state is not None else Path(), Path(file))


def _source_config(args: argparse.Namespace, place: Place) -> Config:
    """Read the options of [source] where the kind is the same, with the input's own path."""
    from edgeloop.loop import Config

    kind = "stdin" if args.input == "-" else _kind(Path(args.input))
    options: dict[str, Any] = {}
    base = None
    if place.config is not None:
        base = Config.load(place.config)
        if base.source.options.get("kind") == kind:
            options |= base.source.options
    options["kind"] = kind
    if kind != "stdin":
        options["path"] = str(Path(args.input).absolute())
    if kind == "wav":
        options["order"] = "name"
    for text in args.source:
        key, equals, value = text.partition("=")
        if not equals:
            msg = f"--source {text!r}: write KEY=VALUE, such as window=64"
            raise ConfigError(msg)
        options[key] = _value(value)
    features = {} if base is None or base.features is None else {"features": base.features}
    data = {"model": {"program": str(place.program)}, "source": options, **features}
    made = Config.from_dict(data, root=Path(), name="predict")
    if base is None:
        return made
    privacy = replace(base.privacy, key_file=base.path(base.privacy.key_file).absolute())
    return replace(made, window=base.window, feedback=base.feedback, privacy=privacy)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "wav"
    if path.suffix not in _KINDS:
        msg = f"{path}: give a .csv, .npz or .elr file, a folder of .wav clips, or - for JSON lines"
        raise ConfigError(msg)
    return _KINDS[path.suffix]


def _value(text: str) -> Any:
    """Read a value as TOML would, or as a plain string."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _live_program(own: Program, place: Place) -> Program:
    """The program of the live version: the one that is named, or one that was installed since."""
    from edgeloop.program.installed import program_named

    if place.state == Path() or not place.state.exists():
        return own
    with place.store(readonly=True) as store:
        live = store.live()
    return program_named(own, place.state, None if live is None else live.program_hash)


def _load_live(session: Any, program: Program, place: Place) -> int | None:
    """Load the live version of the place's state, when there is one."""
    if place.state == Path() or (place.config is not None and not place.state.exists()):
        return None
    with place.store(readonly=True) as store:
        live = store.live()
        if live is None:
            return None
        if live.program_hash != program.hash:
            msg = (
                f"state {place.state}: version {live.id} belongs to program "
                f"{live.program_hash[:12]}, not {program.hash[:12]}; name the program it came from"
            )
            raise ConfigError(msg)
        session.load_adapter(store.adapter(live.id))
        return live.id


def _items(items: Iterator[Item | DataError | None]) -> Iterator[Item]:
    for item in items:
        if isinstance(item, DataError):
            raise item
        if item is not None:
            yield item


def _answer(logits: np.ndarray, classes: list[str] | None) -> dict[str, Any]:
    flat = logits.reshape(-1).astype(np.float64)
    odds = np.exp(flat - flat.max())
    best = int(flat.argmax())
    return {
        "class": classes[best] if classes else best,
        "probability": float(odds[best] / odds.sum()),
    }


def _label(y: Any, classes: list[str] | None) -> Any:
    if isinstance(y, np.ndarray):
        return y.tolist()
    return classes[y] if classes else y


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return to_json(value)
    return str(value)


def end_by_signal(end: Callable[[], None]) -> None:
    """Let SIGTERM call what ends a command in order; a second one ends it at once."""

    def told(signum: int, frame: object) -> None:
        del signum, frame
        signal.signal(signal.SIGTERM, _at_once)
        # In a thread: this one may hold the very locks that stopping takes.
        threading.Thread(target=end, daemon=True).start()

    signal.signal(signal.SIGTERM, told)


def _at_once(signum: int, frame: object) -> None:
    del signum, frame
    raise KeyboardInterrupt
