"""hub: the reference update server, and what its operator does with it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.cli.exits import OK
from edgeloop.cli.trust import load_public, read_small
from edgeloop.cli.versions import show_time
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command and what can be done with it."""
    todo = command("hub").add_subparsers(metavar="WHAT", required=True)

    def one(name: str, text: str, run: Callable[..., int]) -> argparse.ArgumentParser:
        parser = todo.add_parser(name, help=text, description=text)
        parser.add_argument("folder", help="the hub's folder")
        parser.add_argument("--json", action="store_true", help="print JSON for machines")
        parser.set_defaults(command=run)
        return parser

    parser = one("init", "make a hub of a fleet", init)
    parser.add_argument("--root", required=True, metavar="FILE", help="the fleet's root document")
    parser.add_argument("--fresh-key", required=True, metavar="KEY",
                        help="answers nonces; the only key that a hub holds")
    parser = one("root", "take the next root document", root)
    parser.add_argument("file")
    parser = one("device", "let a device in; prints its token, once", device)
    parser.add_argument("name")
    parser.add_argument("--public", metavar="KEY", help="its public key, as `enroll` printed it")
    parser.add_argument("--drop", action="store_true", help="let it in no more")
    parser = one("publish", "offer signed packages, all of one release or of several", publish)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--percent", type=float,
                        help="to how many of the devices (default: all, or as it was)")
    parser = one("rollout", "to more devices, to none, or on again", rollout)
    parser.add_argument("sequence", type=int)
    parser.add_argument("--percent", type=float)
    parser.add_argument("--halt", action="store_true")
    parser.add_argument("--resume", action="store_true")
    one("status", "releases, devices, uploads", status)
    parser = one("serve", "answer devices", serve)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: this machine only)")
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--cert", metavar="FILE", help="certificate, PEM")
    parser.add_argument("--cert-key", metavar="FILE", help="its key, PEM")
    parser.add_argument("--mqtt", metavar="URL", help="mqtts://HOST[:PORT]: a broker as well")
    parser.add_argument("--mqtt-token", metavar="FILE", help="USER:PASSWORD at the broker")
    parser.add_argument("--ca", metavar="FILE", help="authority behind the broker's certificate")


def init(args: argparse.Namespace, out: Output) -> int:
    """Make the folder."""
    from edgeloop.hub.shelf import Shelf

    document = read_small(Path(args.root), "root document")
    with closing(Shelf.create(Path(args.folder), document, Path(args.fresh_key))) as shelf:
        fleet = shelf.root.fleet
    out.result({"folder": args.folder, "fleet": fleet})
    out.line(f"{args.folder}: hub of fleet {fleet!r}")
    return OK


def root(args: argparse.Namespace, out: Output) -> int:
    """Take the next root document."""
    from edgeloop.hub.shelf import Shelf

    with closing(Shelf(Path(args.folder))) as shelf:
        version = shelf.add_root(read_small(Path(args.file), "root document"))
    out.result({"version": version})
    out.line(f"root document {version}")
    return OK


def device(args: argparse.Namespace, out: Output) -> int:
    """Let a device in, or out."""
    from edgeloop.hub.shelf import Shelf

    if args.drop == (args.public is not None):
        msg = "hub device: give its --public key, or --drop it"
        raise ConfigError(msg)
    with closing(Shelf(Path(args.folder))) as shelf:
        if args.drop:
            shelf.drop_device(args.name)
            out.result({"dropped": args.name})
            out.line(f"device {args.name} is let in no more")
            return OK
        token = shelf.add_device(args.name, load_public(args.public))
    out.result({"device": args.name, "token": token})
    out.line(token)
    return OK


def publish(args: argparse.Namespace, out: Output) -> int:
    """Offer packages."""
    from edgeloop.hub.shelf import Shelf

    if args.percent is not None and not 0.0 <= args.percent <= 100.0:
        msg = f"--percent {args.percent}: from 0 to 100"
        raise ConfigError(msg)
    taken = []
    with closing(Shelf(Path(args.folder))) as shelf:
        for name in args.packages:
            manifest = shelf.publish(Path(name), percent=args.percent)
            taken.append({"file": name, "sequence": manifest.sequence, "result": manifest.result})
        now = {r["sequence"]: r["percent"] for r in shelf.releases()}
    out.result({"published": taken, "percent": now[taken[-1]["sequence"]]})
    for each in taken:
        to = now[each["sequence"]]
        out.line(f"release {each['sequence']}: {each['file']}, to {to:g} % of devices")
    return OK


def rollout(args: argparse.Namespace, out: Output) -> int:
    """Change how far a release goes."""
    from edgeloop.hub.shelf import Shelf

    if args.percent is None and not args.halt and not args.resume:
        msg = "hub rollout: say --percent N, --halt or --resume"
        raise ConfigError(msg)
    with closing(Shelf(Path(args.folder))) as shelf:
        shelf.rollout(args.sequence, percent=args.percent,
                      halted="by the operator" if args.halt else None, resume=args.resume)
        now = next(r for r in shelf.releases() if r["sequence"] == args.sequence)
    out.result(now)
    out.line(f"release {args.sequence}: {now['percent']:g} %"
             + (f", halted: {now['halted']}" if now["halted"] else ""))
    return OK


def status(args: argparse.Namespace, out: Output) -> int:
    """Show releases, devices and uploads."""
    from edgeloop.hub.shelf import Shelf

    with closing(Shelf(Path(args.folder))) as shelf:
        facts: dict[str, Any] = {"fleet": shelf.root.fleet, "root": shelf.root.version,
                 "releases": shelf.releases(), "devices": shelf.devices(),
                 "uploads": shelf.uploads()}
    out.result(facts)
    out.line(f"fleet {facts['fleet']!r}, root document {facts['root']}")
    out.table(["release", "audience", "percent", "halted", "reports"],
              [[r["sequence"], r["audience"], r["percent"], r["halted"] or "", r["reports"]]
               for r in facts["releases"]])
    out.table(["device", "key", "seen", "uploads"],
              [[d["name"], d["id"][:8], show_time(d["seen"]) if d["seen"] else "never",
                d["uploads"]] for d in facts["devices"]])
    return OK


def serve(args: argparse.Namespace, out: Output) -> int:
    """Answer devices until a signal says stop."""
    try:
        from edgeloop.hub.serve import serve as served
    except ImportError as error:
        if error.name not in ("starlette", "uvicorn", "paho"):
            raise
        msg = "the hub needs more than the core: pip install 'edgeloop[hub]'"
        raise ConfigError(msg) from error

    if (args.cert is None) != (args.cert_key is None):
        msg = "hub serve: a certificate has its key: --cert and --cert-key"
        raise ConfigError(msg)
    if args.cert is None and args.host not in ("127.0.0.1", "localhost", "::1"):
        msg = (f"hub serve: --host {args.host} without --cert: tokens could be read on the way; "
               "give a certificate, or put a TLS proxy in front of 127.0.0.1")
        raise ConfigError(msg)
    served(args, out.line)
    return OK
