"""pull, push: what is new at the update server, and what this device has for it."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop import delta
from edgeloop.beside import JOURNAL
from edgeloop.cli.deltas import SAID, carried, take
from edgeloop.cli.exits import FAILED, OK
from edgeloop.cli.places import Place, add_place, shipped_adapter
from edgeloop.errors import ConfigError, EdgeLoopError, TrustError
from edgeloop.link import HttpTransport, Pushed, Throttle, fetched, patiently, read_token
from edgeloop.link import pull as pulled
from edgeloop.link import push as pushed
from edgeloop.loop.config import Config, UpdateConfig
from edgeloop.store import Outbox
from edgeloop.trust import Trust
from edgeloop.units import parse_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.link import Transport
    from edgeloop.store import Store


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    for name, run in (("pull", pull), ("push", push)):
        parser = command(name)
        add_place(parser, program=True)
        parser.add_argument("--server", metavar="URL",
                            help="https://HOST[:PORT] or mqtts://HOST[:PORT] (default: loop.toml)")
        parser.add_argument("--token", metavar="FILE", help="holds the device's token; mode 0600")
        parser.add_argument("--ca", metavar="FILE", help="authority behind its certificate")
        parser.add_argument("--bandwidth", metavar="SIZE", help="a second at most, such as 2kB")
        parser.add_argument("--tries", type=int, metavar="N", help="failures in a row (default: 8)")
        if name == "push":
            parser.add_argument("--new", type=int, metavar="ID", help="version (default: live)")
            parser.add_argument("--codec", choices=("exact", "f16", "int8"), default="exact")
            parser.add_argument("--queue", action="store_true", help="queue it, send nothing yet")
        parser.set_defaults(command=run)


def pull(args: argparse.Namespace, out: Output) -> int:
    """Fetch the newest release and take it in, or leave it for the loop that runs."""
    place, how = Place.of(args.state, args.program), settings(args)
    shipped = None
    if place.program is not None:
        program = place.load_program("")

        def shipped() -> Any:
            return shipped_adapter(program)

    known = Trust(place.state).root.version if Path(f"{place.state}{JOURNAL}").exists() else 0
    with Outbox(place.state) as outbox, closing(transport(how, outbox, place)) as way:
        try:
            done = patiently(
                lambda: pulled(
                    place.state, way, outbox, lambda store, path: take(store, path, place),
                    shipped=shipped),
                tries=how.tries, progress=lambda: fetched(place.state))
        finally:  # a release that was refused is to be known as well
            with suppress(EdgeLoopError), place.store(readonly=True) as store:
                queue_reports(store, outbox)
                pushed(outbox, way)
    out.result(done._asdict())
    said = {"nothing": "nothing new", "waits": "fetched: the loop that runs takes it in"} | SAID
    out.line((f"release {done.sequence}: " if done.sequence else "") + said[done.action])
    if done.root > known:
        out.line(f"root document {done.root} is believed now")
    if done.held_back:
        out.line("a newer release is being rolled out; this device is not among the first")
    return OK


def push(args: argparse.Namespace, out: Output) -> int:
    """Send what was learnt here, and how releases did; what cannot be sent now waits."""
    place, how = Place.of(args.state, args.program), settings(args)
    with Outbox(place.state) as outbox:
        if args.queue:
            queued = _queued(outbox, place, args)
            waiting = len(outbox.waiting())
            out.result({"queued": queued, "waiting": waiting})
            out.line(f"{'queued' if queued else 'nothing new'}; {waiting} wait")
            return OK
        got = [0]

        def send(way: Transport) -> Pushed:
            return patiently(
                lambda: pushed(outbox, way, moved=lambda n: got.__setitem__(0, got[0] + n)),
                tries=how.tries, progress=lambda: got[0])

        with closing(transport(how, outbox, place)) as way:
            first = send(way)  # what waits makes room for what is new
            queued = _queued(outbox, place, args)
            after = send(way)
    done = Pushed(first.packages + after.packages, first.reports + after.reports,
                  first.bytes + after.bytes, first.refused + after.refused)
    out.result(done._asdict() | {"queued": queued})
    out.line(f"sent: {done.packages} packages, {done.reports} reports")
    for about, why in done.refused:
        out.line(f"refused for good: {about[:24]}: {why}")
    return FAILED if done.refused else OK


def _queued(outbox: Outbox, place: Place, args: argparse.Namespace) -> bool:
    with place.store(readonly=True) as store:
        return queue(store, outbox, place, args)


def queue(store: Store, outbox: Outbox, place: Place, args: argparse.Namespace) -> bool:
    """Queue the difference of a version that was learnt here to its parent, once."""
    trust = delta.trust_of(store)
    if trust is None:
        msg = f"{place.state} is not enrolled: `edgeloop enroll`"
        raise TrustError(msg)
    queue_reports(store, outbox)
    new = store.live() if args.new is None else store.version(args.new)
    if new is None or not delta.learnt_here(new) or outbox.known(new.sha256):
        return False
    if new.parent is None:
        before = shipped_adapter(place.load_program("the adapter as shipped is what it builds on"))
    else:
        before = store.adapter(new.parent)
    package = delta.pack(
        before, store.adapter(new.id), carried(store, new), codec=args.codec,
        signers=[trust.signer()], sequence=trust.next_upload(), audience=f"hub:{trust.root.fleet}",
        device=trust.device, created=new.created)
    return outbox.put(new.sha256, package)


def queue_reports(store: Store, outbox: Outbox) -> None:
    """Queue what the loop has to say of releases, each once."""
    for sequence, outcome in store.reports():
        outbox.put(f"report {sequence} {outcome}", b"")


def settings(args: argparse.Namespace) -> UpdateConfig:
    """[update] of the loop.toml, and what the command line says instead."""
    found = UpdateConfig()
    if args.state.endswith(".toml"):
        config = Config.load(args.state)
        found = config.update
        found = replace(found, token_file=config.path(found.token_file),
                        ca=None if found.ca is None else config.path(found.ca))
    elif args.token is None:
        found = replace(found, token_file=Path(args.state).with_name(found.token_file.name))
    asked = {
        "server": args.server, "token_file": args.token and Path(args.token),
        "ca": args.ca and Path(args.ca), "tries": args.tries,
        "bandwidth": args.bandwidth and parse_bytes(args.bandwidth),
    }
    return replace(found, **{k: v for k, v in asked.items() if v is not None})


def transport(how: UpdateConfig, outbox: Outbox, place: Place) -> Transport:
    """Open the way to the server."""
    if how.server is None:
        msg = "no update server is named: --server URL, or [update] server in the loop.toml"
        raise ConfigError(msg)
    throttle = Throttle(how.bandwidth)
    token = read_token(how.token_file)
    if how.server.startswith(("mqtt://", "mqtts://")):
        from edgeloop.link.mqtt import MqttTransport

        trust = Trust(place.state)
        return MqttTransport(how.server, token, fleet=trust.root.fleet, device=trust.device,
                             ca=how.ca, throttle=throttle)
    return HttpTransport(how.server, token, ca=how.ca, throttle=throttle, outbox=outbox)
