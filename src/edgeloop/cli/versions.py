"""versions, show, promote, rollback, pin, label, gc: the versions of an adapter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgeloop.cli.exits import OK
from edgeloop.cli.places import Place, add_place
from edgeloop.errors import ConfigError, StateError
from edgeloop.store import REBASE, TRIAL
from edgeloop.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.store import Store, Version

# Figures of the loop that fit beside a version on one line; --json has them all.
_SHOWN = ("samples", "steps", "training_seconds")


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("versions")
    add_place(parser)
    parser.set_defaults(command=versions)

    one = {name: command(name) for name in ("show", "pin", "label")}
    for parser in one.values():
        add_place(parser)
        parser.add_argument("--id", type=int, metavar="ID", help="version (default: live)")
    one["show"].set_defaults(command=show_one)
    one["pin"].add_argument("--off", action="store_true", help="no longer")
    one["pin"].set_defaults(command=pin)
    one["label"].add_argument("--text", required=True, help="its name; '' for none")
    one["label"].set_defaults(command=label)

    parser = command("promote")
    add_place(parser)
    parser.add_argument("--id", type=int, metavar="ID", required=True, help="the version")
    parser.set_defaults(command=promote)

    parser = command("rollback")
    add_place(parser)
    parser.add_argument("--to", type=int, metavar="ID", help="this version instead of the parent")
    parser.set_defaults(command=rollback)

    parser = command("gc")
    add_place(parser)
    parser.add_argument("--keep", type=int, metavar="N", help="versions that stay at most")
    parser.add_argument("--quota", metavar="SIZE", help='bytes of all weights, such as "1 MiB"')
    parser.set_defaults(command=gc)


def versions(args: argparse.Namespace, out: Output) -> int:
    """List the versions."""
    with Place.of(args.state).store(readonly=True) as store:
        found = store.versions()
    out.result({"versions": [described(version) for version in found]})
    if not found:
        out.line("no versions yet: the device uses the adapter its program shipped with")
        return OK
    names = [name for name in _SHOWN if any(name in v.metrics for v in found)]
    marks = [n for n in ("pinned", "label") if any(getattr(v, n) for v in found)]
    out.table(
        ["id", "live", "parent", "lineage", "created", "bytes", "sha256", *names, *marks],
        [
            [
                v.id,
                "*" if v.live else "",
                v.parent,
                v.lineage,
                show_time(v.created),
                v.bytes,
                v.sha256[:8],
                *(v.metrics.get(name) for name in names),
                *({"pinned": "*" if v.pinned else "", "label": v.label}[n] for n in marks),
            ]
            for v in found
        ],
    )
    return OK


def show_one(args: argparse.Namespace, out: Output) -> int:
    """Show one version: where it comes from, how it is stored, whether its bytes are intact."""
    with Place.of(args.state).store(readonly=True) as store:
        version = _named(store, args.id)
        line, at = [version.id], version
        while at.parent is not None:
            at = store.version(at.parent)
            line.append(at.id)
        intact = store.intact(version)
    out.result(described(version) | {"ancestors": line[1:], "intact": intact})
    stored = version.codec if version.base is None else f"{version.codec} of {version.base}"
    out.facts(
        {
            "version": f"{version.id}" + (" (live)" if version.live else ""),
            "label": version.label or "none",
            "lineage": f"{version.lineage}: {' < '.join(map(str, line))}",
            "created": show_time(version.created),
            "stored": f"{version.bytes} bytes as {stored}" + ("" if intact else ", damaged"),
            "sha256": version.sha256,
            "program": version.program_hash,
            "pinned": "yes" if version.pinned else "no",
        }
        | {k: v for k, v in version.metrics.items() if isinstance(v, bool | int | float | str)}
    )
    return OK


def promote(args: argparse.Namespace, out: Output) -> int:
    """Make one version live."""
    return _go(args, out, "promote", args.id)


def rollback(args: argparse.Namespace, out: Output) -> int:
    """Go back one version, or to the one named."""
    return _go(args, out, "rollback", args.to)


def _go(args: argparse.Namespace, out: Output, what: str, to: int | None) -> int:
    with Place.of(args.state).store(readonly=False) as store:
        before = store.live()
        if to is None:
            after = store.rollback()
        else:
            with store.transaction():
                store.promote(to)
                store.event(what, {"from": before.id if before else None, "to": to})
            after = store.version(to)
        # The operator has chosen: no release is compared with that, or built on beside it.
        left = [key for key in (REBASE, TRIAL) if store.kv(key) is not None]
        for key in left:
            store.drop_kv(key)
    out.result({"from": before.id if before else None, "live": after.id})
    out.line(f"version {after.id} is live" + (f" (was {before.id})" if before else ""))
    if left:
        out.line("the release that was being tried, or built on, is left aside")
    return OK


def pin(args: argparse.Namespace, out: Output) -> int:
    """Keep a version whatever the retention rules say."""
    with Place.of(args.state).store(readonly=False) as store:
        version = _named(store, args.id).id
        store.pin(version, pinned=not args.off)
    out.result({"version": version, "pinned": not args.off})
    out.line(f"version {version} is " + ("no longer pinned" if args.off else "pinned"))
    return OK


def label(args: argparse.Namespace, out: Output) -> int:
    """Give a version a name for people."""
    with Place.of(args.state).store(readonly=False) as store:
        version = _named(store, args.id).id
        store.label(version, args.text)
    out.result({"version": version, "label": args.text or None})
    out.line(f"version {version}: {args.text or 'no label'}")
    return OK


def gc(args: argparse.Namespace, out: Output) -> int:
    """Drop the oldest versions; never the live one, its parent or a pinned one."""
    if args.keep is None and args.quota is None:
        msg = "gc: say what may stay: --keep N, --quota SIZE, or both"
        raise ConfigError(msg)
    quota = None if args.quota is None else parse_bytes(args.quota)
    with Place.of(args.state).store(readonly=False) as store:
        dropped = store.gc(keep=args.keep, quota=quota)
        left = store.versions()
    nbytes = sum(v.bytes for v in left)
    out.result({"dropped": dropped, "left": [v.id for v in left], "bytes": nbytes})
    out.line(
        f"dropped {', '.join(map(str, dropped)) or 'nothing'}; {len(left)} versions of "
        f"{format_bytes(nbytes)} stay"
    )
    return OK


def _named(store: Store, number: int | None) -> Version:
    """Return the version of a number, or the live one."""
    found = store.live() if number is None else store.version(number)
    if found is None:
        msg = f"state {store.path} has no live version yet: name one with --id"
        raise StateError(msg)
    return found


def described(version: Version) -> dict[str, Any]:
    """Return a version for JSON."""
    return {
        "id": version.id,
        "parent": version.parent,
        "live": version.live,
        "created": version.created,
        "bytes": version.bytes,
        "program_hash": version.program_hash,
        "sha256": version.sha256,
        "metrics": version.metrics,
        "lineage": version.lineage,
        "label": version.label,
        "pinned": version.pinned,
        "codec": version.codec,
        "base": version.base,
    }


def show_time(seconds: float) -> str:
    """Write a time in the device's own zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
