"""diff, pack, apply: what changed, and its way out of and into a device."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop import delta
from edgeloop.cli.exits import OK
from edgeloop.cli.places import Place, adapter_of, add_place, shipped_adapter
from edgeloop.cli.times import parse_time
from edgeloop.delta.programs import install_program, is_program
from edgeloop.errors import ConfigError, StateError
from edgeloop.trust import load_signer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.store import Store, Version

# What of a version's metrics travels along: figures, never samples.
_CARRIED = ("samples", "training_seconds", "epochs", "steps", "gate")


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
        "--codec", choices=("exact", "f16", "int8"), default="exact", help="exact is the default"
    )
    parser.add_argument("--full", action="store_true", help="needs no parent where it arrives")
    parser.add_argument("--back", action="store_true",
                        help="no weights: whoever takes it goes back to this version")
    parser.add_argument("--install", metavar="PROGRAM", help="a program in place of a version")
    parser.add_argument("--device-id", help="instead of the random one kept in the state")
    parser.add_argument("--key", action="append", default=[], metavar="KEY",
                        help="release key that signs it: file, or NAME:ADDRESS; may be repeated")
    parser.add_argument("--sequence", type=int, metavar="N", help="number of the release")
    parser.add_argument("--audience", metavar="WHOM", help="fleet:NAME or device:KEY_ID")
    parser.add_argument("--expires", metavar="TIME", help="2027-01-31: not to be taken after it")
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
    """Write a delta package, or one that carries a program."""
    stated = _stated(args)
    signers = [load_signer(key) for key in args.key]
    if args.install is not None:
        from edgeloop.delta.programs import pack_program

        manifest = pack_program(Path(args.install), Path(args.output), signers=signers, **stated)
        size = Path(args.output).stat().st_size
        out.result({"output": args.output, "bytes": size, "program": manifest.program_hash,
                    "sequence": manifest.sequence})
        out.line(f"{args.output}: program {manifest.program_hash[:12]}, {size} bytes")
        return OK
    place = Place.of(args.state, args.program)
    with place.store(readonly=True) as store:
        new, old = _pair(store, args)
        after = store.adapter(new.id)
        before = None if args.full else after if args.back else adapter_of(store, place, old)
        metadata = carried(store, new)
    if args.device_id is not None:
        metadata["device_id"] = args.device_id
    package = delta.pack(before, after, metadata, codec="none" if args.back else args.codec,
                         signers=signers, **{"created": new.created} | stated)
    write_atomically(Path(args.output), package)
    manifest = delta.unpack(package).manifest
    whole = sum(array.nbytes for array in after.values())
    result = {
        "output": args.output,
        "bytes": len(package),
        "adapter_bytes": whole,
        "old": None if args.full or args.back else old,
        "new": new.id,
        "codec": manifest.codec,
        "result": manifest.result,
        "sequence": manifest.sequence,
        "metadata": manifest.metadata,
    }
    out.result(result)
    whence = "full" if args.full else "back" if args.back else _name(old)
    out.line(
        f"{args.output}: {whence} -> version {new.id}, {len(package)} bytes "
        f"(the adapter has {whole}), result {manifest.result[:12]}"
    )
    return OK


def carried(store: Store, version: Version) -> dict[str, Any]:
    """What travels along with a version: figures, and an HMAC in place of its data's hash."""
    data = version.metrics.get("data_sha256")
    keyed = None if data is None else store.keyed(data)
    metadata: dict[str, Any] = {
        "program_hash": version.program_hash,
        "device_id": store.device_id,
        "version": version.id,
    }
    metadata |= {name: version.metrics[name] for name in _CARRIED if name in version.metrics}
    return metadata if keyed is None else metadata | {"data_hmac": keyed}


def _stated(args: argparse.Namespace) -> dict[str, Any]:
    """What the command says of a release."""
    if bool(args.key) != (args.sequence is not None and args.audience is not None):
        msg = ("pack: a release has all of --key, --sequence and --audience; a package for your "
               "own hands none of them")
        raise ConfigError(msg)
    if not args.key:
        return {}
    stated: dict[str, Any] = {
        "sequence": args.sequence, "audience": args.audience, "created": round(time.time())}
    if args.expires is not None:
        stated["expires"] = parse_time(args.expires, "--expires")
    return stated


def apply(args: argparse.Namespace, out: Output) -> int:
    """Take in a package: all its checks first, then one transaction."""
    place = Place.of(args.state, args.program)
    with place.store(readonly=False) as store:
        version, action = take(store, Path(args.package), place, aside=args.aside)
    out.result({"version": version.id, "live": version.live, "parent": version.parent,
                "action": action})
    out.line(f"version {version.id} " + SAID[action])
    return OK


SAID = {
    "live": "is live",
    "aside": "is stored, not live",
    "again": "was taken before: nothing changed",
    "rebase": "is stored; what was learnt here stays live until the next `edgeloop run` has learnt "
              "it again on this one",
}


def take(store: Store, package: Path, place: Place, *, aside: bool = False) -> delta.Installed:
    """Install a package, of whichever kind, on the device of an open state file."""
    trust = delta.trust_of(store)
    if package.is_file() and is_program(package):
        return install_program(store, package, trust=trust)

    def shipped() -> tuple[dict[str, np.ndarray], str]:
        program = place.load_program(
            "the package was not made from a version here; to try the shipped adapter")
        return shipped_adapter(program), program.hash

    return delta.install(store, delta.read(package), trust=trust, shipped=shipped, aside=aside)


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
