"""status, forget, uninstall: a device's state as a whole."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.beside import FILES, FOLDERS, INBOX, OUTBOX, READY
from edgeloop.cli.events import in_a_line
from edgeloop.cli.exits import OK
from edgeloop.cli.places import Place, add_place
from edgeloop.cli.times import parse_time
from edgeloop.cli.versions import described, show_time
from edgeloop.errors import ConfigError, StateError
from edgeloop.store import (
    MARK,
    REBASE,
    STATE,
    STATE_FORMAT,
    TRIAL,
    Outbox,
    Store,
    is_state_file,
)
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.device import Reading
    from edgeloop.store import Event


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("status")
    add_place(parser)
    parser.add_argument("--events", type=int, default=5, metavar="N", help="last events to show")
    parser.set_defaults(command=status)

    parser = command("forget")
    add_place(parser)
    parser.add_argument(
        "--since", metavar="TIME", help="first kept then or later: 2026-11-28, 2026-11-28T07:30"
    )
    parser.add_argument("--source", metavar="NAME", help="what came from this source")
    parser.add_argument("--sample", metavar="KEY", help="the item of this key")
    parser.set_defaults(command=forget)

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
        loop = json.loads(store.kv(STATE) or b"{}")
        suspended = None if job is None else suspension(store)
        updates = _updates(store, place)
        events_of_updates = [e for e in store.events(10_000) if e.kind in ("promoted", "rejected")]
    cost, readings = _last_update(events_of_updates), _readings(place)
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
        "waits_for": loop.get("said", []),
        "suspended": suspended,
        "counts": loop.get("counts", {}),
        "last_update": cost,
        "readings": {name: r.to_json() for name, r in readings.items()},
        "updates": updates,
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
            "job": "none" if job is None else _unfinished(job.isa, suspended),
            "samples": samples or "none",
            "seen": loop.get("counts") or "nothing yet",
            "last update": "none" if cost is None else cost["said"],
        }
        | {name.replace("_", " "): reading for name, reading in readings.items()}
        | ({"updates": updates["said"]} if updates else {})
    )
    for line in loop.get("said", []):
        out.line(line)
    for event in events:
        out.line(in_a_line(event))
    return OK


def suspension(store: Store) -> str | None:
    """Why the update under way is suspended; None: it is not, or was cut off."""
    for event in reversed(store.events(10_000)):
        if event.kind == "suspended":
            return str(event.detail["why"])
        if event.kind in ("went on", "started"):
            return None
    return None


def _unfinished(isa: str, suspended: str | None) -> str:
    if suspended is not None:
        return f"suspended: {suspended}"
    return f"interrupted, goes on with the next run ({isa})"


def _last_update(ended: list[Event]) -> dict[str, Any] | None:
    """What the last update cost, in numbers and words; None: there was none."""
    if not ended:
        return None
    last = ended[-1]
    cost = last.detail.get("cost") or {}
    seconds, joules = last.detail.get("training_seconds"), cost.get("joules")
    source = cost.get("joules_source", "not measured then")
    energy = f"energy unknown ({source})" if joules is None else f"{joules:.4g} J ({source})"
    moved = format_bytes(cost["bytes"]) if "bytes" in cost else "unknown"
    what = f"version {last.detail['version']} live" if last.kind == "promoted" else "turned down"
    took = "time unknown" if seconds is None else f"{seconds:.3g} s"
    said = f"{what}: {took}, {energy}, {moved} moved by the program"
    return {"at": last.created, "kind": last.kind, "seconds": seconds, **cost, "said": said}


def _readings(place: Place) -> dict[str, Reading]:
    """What the device says of itself now; nothing where no loop.toml is named."""
    if place.config is None:
        return {}
    from edgeloop.loop.config import Config
    from edgeloop.loop.surroundings import device_of

    device = device_of(Config.load(place.config), time.monotonic)
    time.sleep(0.1)  # for the share of others there must be some time to look at
    return device.read().readings()


def _updates(store: Store, place: Place) -> dict[str, Any] | None:
    """What an enrolled device knows of releases; None where it is not enrolled."""
    if store.kv(MARK) is None:
        return None
    # Signatures take a library of their own: only a device that has updates loads it.
    from edgeloop.delta import trust_of
    from edgeloop.errors import TrustError
    from edgeloop.link.fresh import silence
    from edgeloop.loop.config import Config, UpdateConfig

    try:
        trust = trust_of(store)
    except TrustError as error:
        return {"said": str(error), "refused": True}
    assert trust is not None
    config = UpdateConfig() if place.config is None else Config.load(place.config).update
    waiting, quiet = 0, None
    if Path(f"{store.path}{OUTBOX}").is_file():
        with Outbox(store.path) as outbox:
            waiting, quiet = len(outbox.waiting()), silence(outbox)
    stale = quiet is not None and quiet > config.stale_after
    said = f"release {trust.sequence} of fleet {trust.root.fleet!r}, root document "
    said += str(trust.root.version)
    if quiet is not None:
        mark = "STALE: " if stale else ""
        said += f", {mark}last signed answer {quiet / 3600:.1f} h of uptime ago"
    if waiting:
        said += f", {waiting} wait to be sent"
    came = len(list(Path(f"{store.path}{INBOX}").glob(f"*{READY}")))
    if came:
        said += f", {came} wait to be taken in"
    for key, text in ((REBASE, "what was learnt here is to be learnt on"), (TRIAL, "on trial:")):
        value = store.kv(key)
        if value is not None:
            said += f", {text} version {json.loads(value)[-2]}"
    return {
        "said": said, "refused": False, "fleet": trust.root.fleet, "device": trust.device,
        "release": trust.sequence, "root": trust.root.version, "silence_seconds": quiet,
        "stale": stale, "waiting": waiting, "rebase": store.kv(REBASE) is not None,
    }


def forget(args: argparse.Namespace, out: Output) -> int:
    """Delete samples and all that was made of them; name the versions that learnt from them."""
    if args.since is None and args.source is None and args.sample is None:
        msg = "forget: say what: --since TIME, --source NAME, --sample KEY; several: all must hold"
        raise ConfigError(msg)
    from edgeloop.loop.forget import forget as forgotten

    place = Place.of(args.state)
    with place.store(readonly=False) as store:
        gone = forgotten(
            store, since=args.since and parse_time(args.since, "--since"), source=args.source,
            key=_key(store, place, args.sample))
        live = store.live()
    out.result(
        {"items": gone.items, "samples": gone.samples, "job": gone.job,
         "versions": list(gone.versions)}
    )
    out.line(f"forgotten: {gone.items} items, {gone.samples} samples of them"
             + (", and the update under way" if gone.job else ""))
    if gone.versions:
        learnt = ", ".join(map(str, gone.versions))
        out.line(f"versions {learnt} were trained on them and stay: weights do not forget")
        if live is not None and live.id in gone.versions:
            out.line("one of them is live: `edgeloop rollback --to ID`, then `edgeloop gc`")
    return OK


def _key(store: Store, place: Place, sample: str | None) -> str | None:
    """The key under which a sample is kept: hashed or redacted where loop.toml says so."""
    if sample is None or place.config is None:
        return sample
    from edgeloop.loop import Config
    from edgeloop.loop.setup import stored_key

    kept = stored_key(Config.load(place.config), sample)
    return kept if store.from_where(key=kept) else sample


def uninstall(args: argparse.Namespace, out: Output) -> int:
    """Say what remains on the device; delete it with --purge."""
    place = Place.of(args.state)
    files = [path for end in FILES if (path := Path(f"{place.state}{end}")).is_file()]
    for end in FOLDERS:
        files += sorted(Path(f"{place.state}{end}").glob("*"))
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
    for end in FOLDERS:
        with suppress(FileNotFoundError):
            Path(f"{place.state}{end}").rmdir()
