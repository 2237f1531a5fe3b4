"""diff, pack, apply: what changed, and its way out of and into a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop import delta
from edgeloop.cli.exits import OK
from edgeloop.cli.places import Place, adapter_of, add_place, shipped_adapter
from edgeloop.errors import ConfigError, DeltaError, StateError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.store import Store, Version

# What of a version's metrics travels along: figures, never samples.
_CARRIED = ("data_sha256", "samples", "training_seconds", "epochs", "steps", "gate")


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("diff")
    add_place(parser, program=True)
    parser.add_argument("--old", metavar="ID", help="version, or 'shipped' (default: the parent)")
    parser.add_argument("--new", metavar="ID", help="version (default: live)")
    parser.set_defaults(command=diff)

    parser = command("pack")
    add_place(parser, program=True)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="package to write")
    parser.add_argument("--new", metavar="ID", help="version (default: live)")
    parser.add_argument("--old", metavar="ID", help="version, or 'shipped' (default: the parent)")
    parser.add_argument(
        "--codec", choices=("xor", "f16", "int8"), default="xor", help="xor is lossless (default)"
    )
    parser.add_argument("--device-id", help="instead of the random one kept in the state")
    parser.set_defaults(command=pack)

    parser = command("apply")
    parser.add_argument("package", help="the package")
    add_place(parser, program=True)
    parser.add_argument("--aside", action="store_true", help="store it without making it live")
    parser.set_defaults(command=apply)


def diff(args: argparse.Namespace, out: Output) -> int:
    """Show size and reach of the change of each tensor."""
    place = Place.of(args.state, args.program)
    with place.store(readonly=True) as store:
        new, old = _pair(store, args)
        before, after = adapter_of(store, place, old), store.adapter(new.id)
    if {n: a.shape for n, a in before.items()} != {n: a.shape for n, a in after.items()}:
        msg = f"versions {_name(old)} and {new.id} belong to different programs"
        raise StateError(msg)
    rows: list[dict[str, Any]] = []
    for name in sorted(after):
        change = after[name].astype(np.float64) - before[name]
        norm = float(np.linalg.norm(before[name]))
        rows.append(
            {
                "tensor": name,
                "shape": list(change.shape),
                "changed": int(np.count_nonzero(change)),
                "max": float(np.abs(change).max(initial=0.0)),
                "norm": float(np.linalg.norm(change)),
                "relative": float(np.linalg.norm(change)) / norm if norm else None,
            }
        )
    out.result({"old": old, "new": new.id, "tensors": rows})
    out.line(f"{_name(old)} -> version {new.id}")
    out.table(
        ["tensor", "shape", "changed", "max", "norm", "relative"],
        [["x".join(map(str, r["shape"])) if k == "shape" else r[k] for k in r] for r in rows],
    )
    return OK


def pack(args: argparse.Namespace, out: Output) -> int:
    """Write a delta package."""
    place = Place.of(args.state, args.program)
    with place.store(readonly=True) as store:
        new, old = _pair(store, args)
        before, after = adapter_of(store, place, old), store.adapter(new.id)
        device = args.device_id or store.device_id
    metadata: dict[str, Any] = {
        "program_hash": new.program_hash,
        "device_id": device,
        "version": new.id,
        "created": new.created,
    }
    metadata |= {name: new.metrics[name] for name in _CARRIED if name in new.metrics}
    package = delta.pack(before, after, metadata, codec=args.codec)
    write_atomically(Path(args.output), package)
    manifest, _ = delta.unpack(package)
    whole = sum(array.nbytes for array in after.values())
    result = {
        "output": args.output,
        "bytes": len(package),
        "adapter_bytes": whole,
        "old": old,
        "new": new.id,
        "codec": args.codec,
        "result": manifest.result,
        "metadata": manifest.metadata,
    }
    out.result(result)
    out.line(
        f"{args.output}: {_name(old)} -> version {new.id}, {len(package)} bytes "
        f"(the adapter has {whole}), result {manifest.result[:12]}"
    )
    return OK


def apply(args: argparse.Namespace, out: Output) -> int:
    """Take in a delta package: all its checks first, then one transaction."""
    package = delta.read(args.package)
    manifest, _ = delta.unpack(package)
    place = Place.of(args.state, args.program)
    with place.store(readonly=False) as store:
        parent = next((v for v in store.versions() if v.sha256 == manifest.parent), None)
        if parent is not None:
            before, program_hash = store.adapter(parent.id), parent.program_hash
        else:
            program = place.load_program(
                "the package was not made from a version here; to try the shipped adapter"
            )
            before, program_hash = shipped_adapter(program), program.hash
        adapter = delta.apply(before, package, program_hash=program_hash)
        if any(v.sha256 == manifest.result for v in store.versions()):
            msg = f"delta package refused: {args.package} is already a version here"
            raise DeltaError(msg)
        version = store.commit(
            adapter,
            program_hash=program_hash,
            parent=parent.id if parent else None,
            metrics={"source": "delta", **manifest.metadata},
            live=not args.aside,
        )
    out.result({"version": version.id, "live": version.live, "parent": version.parent})
    out.line(f"version {version.id} " + ("is live" if version.live else "is stored, not live"))
    return OK


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the whole new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _pair(store: Store, args: argparse.Namespace) -> tuple[Version, int | None]:
    if args.new is None:
        new = store.live()
        if new is None:
            msg = f"state {store.path} has no live version yet: there is nothing to compare"
            raise StateError(msg)
    else:
        new = store.version(_number(args.new))
    if args.old is None:
        return new, new.parent
    return new, None if args.old == "shipped" else store.version(_number(args.old)).id


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"{text!r} is not a version: give a number from `edgeloop versions`"
        raise ConfigError(msg) from error


def _name(version: int | None) -> str:
    return "the shipped adapter" if version is None else f"version {version}"
