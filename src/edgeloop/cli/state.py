"""status, versions, rollback, uninstall: a device's state."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.cli.exits import OK
from edgeloop.cli.output import show
from edgeloop.cli.places import Place, add_place
from edgeloop.errors import StateError
from edgeloop.store import STATE_FORMAT, Store, is_state_file

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.store import Version

# Figures of the loop that fit beside a version on one line; --json has them all.
_SHOWN = ("samples", "steps", "training_seconds")
_BESIDE = ("", "-wal", "-shm", "-journal", ".lock")


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("status")
    add_place(parser)
    parser.add_argument("--events", type=int, default=5, metavar="N", help="last events to show")
    parser.set_defaults(command=status)

    parser = command("versions")
    add_place(parser)
    parser.set_defaults(command=versions)

    parser = command("rollback")
    add_place(parser)
    parser.add_argument("--to", type=int, metavar="ID", help="this version instead of the parent")
    parser.set_defaults(command=rollback)

    parser = command("uninstall")
    add_place(parser)
    parser.add_argument("--purge", action="store_true", help="delete the device's state for good")
    parser.set_defaults(command=uninstall)


def status(args: argparse.Namespace, out: Output) -> int:
    """Show the live version, the running job, samples and the last events."""
    place = Place.of(args.state)
    with place.store(readonly=True) as store:
        live, everything, job = store.live(), store.versions(), store.job()
        samples, events = store.sample_counts(), store.events(args.events)
        device = store.device_id
    size = place.state.stat().st_size
    result = {
        "state": str(place.state),
        "state_format": STATE_FORMAT,
        "bytes": size,
        "device_id": device,
        "live": described(live) if live else None,
        "versions": len(everything),
        "job": None
        if job is None
        else {"parent": job.parent, "isa": job.isa, "cursor": job.cursor},
        "samples": samples,
        "events": [{"at": e.created, "kind": e.kind, "detail": e.detail} for e in events],
    }
    out.result(result)
    out.facts(
        {
            "state": place.state,
            "bytes": size,
            "device": device,
            "live": f"version {live.id} ({show_time(live.created)})" if live else "as shipped",
            "versions": len(everything),
            "job": "none" if job is None else f"interrupted, goes on with the next run ({job.isa})",
            "samples": samples or "none",
        }
    )
    for event in events:
        short = {name: value for name, value in event.detail.items() if _line_worthy(value)}
        out.line(f"{show_time(event.created)}  {show(event.kind)}  {show(short)}".rstrip())
    return OK


def versions(args: argparse.Namespace, out: Output) -> int:
    """List the versions."""
    with Place.of(args.state).store(readonly=True) as store:
        found = store.versions()
    out.result({"versions": [described(version) for version in found]})
    if not found:
        out.line("no versions yet: the device uses the adapter its program shipped with")
        return OK
    names = [name for name in _SHOWN if any(name in v.metrics for v in found)]
    out.table(
        ["id", "live", "parent", "created", "bytes", "sha256", *names],
        [
            [
                v.id,
                "*" if v.live else "",
                v.parent,
                show_time(v.created),
                v.bytes,
                v.sha256[:8],
                *(v.metrics.get(name) for name in names),
            ]
            for v in found
        ],
    )
    return OK


def rollback(args: argparse.Namespace, out: Output) -> int:
    """Go back one version, or to the one named."""
    with Place.of(args.state).store(readonly=False) as store:
        before = store.live()
        if args.to is None:
            after = store.rollback()
        else:
            with store.transaction():
                store.promote(args.to)
                store.event("rollback", {"from": before.id if before else None, "to": args.to})
            after = store.version(args.to)
    out.result({"from": before.id if before else None, "live": after.id})
    out.line(f"version {after.id} is live" + (f" (was {before.id})" if before else ""))
    return OK


def uninstall(args: argparse.Namespace, out: Output) -> int:
    """Say what remains on the device; delete it with --purge."""
    place = Place.of(args.state)
    files = [path for end in _BESIDE if (path := Path(f"{place.state}{end}")).is_file()]
    if args.purge:
        if not files:
            msg = f"state {place.state} does not exist: there is nothing to delete"
            raise StateError(msg)
        _purge(place, files)
    out.result({"purged": args.purge, "files": [str(path) for path in files]})
    for path in files:
        out.line(f"{'deleted' if args.purge else 'remains'}: {path}")
    if not files:
        out.line(f"no state at {place.state}")
    if not args.purge:
        out.line("programs (.elp), loop.toml and your data are yours and are never deleted")
        out.line("`pip uninstall edgeloop` removes the library; add --purge to delete the state")
    return OK


def _purge(place: Place, files: list[Path]) -> None:
    if not is_state_file(place.state):
        msg = f"{place.state} is not an edgeloop state file: it was not deleted"
        raise StateError(msg)
    try:
        Store.open(place.state).close()
    except StateError as error:
        if "in use" in str(error):  # a damaged one may go, a busy one may not
            raise
    for path in files:
        path.unlink(missing_ok=True)


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
    }


def show_time(seconds: float) -> str:
    """Write a time in the device's own zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _line_worthy(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 60)
