"""export, import-adapter: adapters in the formats of other frameworks; import: the whole state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.cli.exits import OK
from edgeloop.cli.places import Place, adapter_of, add_place
from edgeloop.errors import CompileError, ConfigError, StateError
from edgeloop.store import backup, restore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output

_STATE = "state"
_FORMATS = ("peft", "onnx", "onnx-inputs", "onnx-adapter", _STATE)


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("export")
    add_place(parser, program=True)
    parser.add_argument("-o", "--output", required=True, metavar="PATH", help="folder, or file")
    parser.add_argument(
        "--format", choices=_FORMATS, default="peft",
        help="peft (default): a folder; onnx: merged into the model; onnx-inputs: the model with "
        "adapters as inputs, onnx-adapter: one of them; state: a verified copy of everything",
    )
    parser.add_argument("--model", metavar="ONNX", help="the model that was compiled, for onnx*")
    parser.add_argument("--new", metavar="ID", help="version, or 'shipped' (default: live)")
    _add_names(parser)
    parser.set_defaults(command=export)

    parser = command("import")
    parser.add_argument("copy", help="what `export --format state` or the loop's backup wrote")
    add_place(parser)
    parser.set_defaults(command=import_state)

    parser = command("import-adapter")
    parser.add_argument("adapter", help="folder that PEFT wrote")
    add_place(parser, program=True)
    parser.add_argument("--aside", action="store_true", help="store it without making it live")
    _add_names(parser)
    parser.set_defaults(command=import_adapter)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--names", metavar="LAYER=PATH,..", help="module paths of layers; '=bert.' is a prefix"
    )


def export(args: argparse.Namespace, out: Output) -> int:
    """Write one version, or the whole state, in the format that was asked for."""
    place = Place.of(args.state, args.program)
    if args.format == _STATE:
        return _copy(args, place, out)
    program = place.load_program("an adapter is exported by its program")
    if args.new == "shipped":
        version, adapter = None, None
    else:
        with place.store(readonly=True) as store:
            live = store.live()
            if args.new is None and live is None:
                msg = f"state {store.path} has no live version yet; --new shipped is the first one"
                raise StateError(msg)
            found = live if args.new is None else store.version(_number(args.new))
            assert found is not None
            version, adapter = found.id, adapter_of(store, place, found.id)
    if args.format == "peft":
        program.export_adapter(args.output, adapter, names=_names(args.names))
    else:
        _onnx(args, program, adapter)
    out.result({"output": args.output, "format": args.format, "version": version})
    what = "the shipped adapter" if version is None else f"version {version}"
    out.line(f"{args.output}: {what}, format {args.format}")
    return OK


def _copy(args: argparse.Namespace, place: Place, out: Output) -> int:
    with place.store(readonly=True) as store:
        live = store.live()
        backup(store, args.output)
    version = None if live is None else live.id
    out.result({"output": args.output, "format": _STATE, "version": version})
    out.line(f"{args.output}: all of {place.state}, read back and intact; it holds private data")
    return OK


def import_state(args: argparse.Namespace, out: Output) -> int:
    """Put a copy in the place of the state file: everything in it is checked first."""
    place = Place.of(args.state)
    aside = restore(args.copy, place.state)
    with place.store(readonly=True) as store:
        live = store.live()
    version = None if live is None else live.id
    out.result({"state": str(place.state), "live": version, "replaced": aside and str(aside)})
    out.line(f"{place.state}: version {version} is live" if live else f"{place.state}: as shipped")
    if aside is not None:
        out.line(f"what stood there is now {aside}")
    return OK


def _onnx(args: argparse.Namespace, program: object, adapter: object) -> None:
    if args.model is None:
        msg = f"--format {args.format}: name the model that was compiled with --model FILE"
        raise ConfigError(msg)
    try:
        from edgeloop import exporter
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        msg = "writing ONNX models needs the onnx package: pip install 'edgeloop[export]'"
        raise CompileError(msg) from error
    given = (args.model, program, adapter, args.output)
    if args.format == "onnx-adapter":
        exporter.export_onnx_adapter(*given)  # type: ignore[arg-type]
    else:
        mode = "inputs" if args.format == "onnx-inputs" else "merged"
        exporter.export_onnx(*given, mode=mode)  # type: ignore[arg-type]


def import_adapter(args: argparse.Namespace, out: Output) -> int:
    """Take in an adapter that PEFT wrote: all checks first, then one transaction."""
    from edgeloop.program.peft import import_peft

    place = Place.of(args.state, args.program)
    program = place.load_program("an adapter is checked against its program")
    adapter = import_peft(args.adapter, program, _names(args.names))
    with place.store(readonly=False) as store:
        live = store.live()
        version = store.commit(
            adapter, program_hash=program.hash, parent=live.id if live else None,
            metrics={"source": "peft"}, live=not args.aside,
        )
    out.result({"version": version.id, "live": version.live, "parent": version.parent})
    out.line(f"version {version.id} " + ("is live" if version.live else "is stored, not live"))
    return OK


def _names(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    names = {}
    for part in text.split(","):
        layer, eq, path = part.partition("=")
        if not eq:
            msg = f"--names {part!r}: write LAYER=PATH, such as fc=classifier.dense"
            raise ConfigError(msg)
        names[layer.strip()] = path.strip()
    return names


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"{text!r} is not a version: give a number from `edgeloop versions`, or 'shipped'"
        raise ConfigError(msg) from error
