"""enroll, keys: whom a device believes, and the keys of those who publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.beside import JOURNAL
from edgeloop.cli.exits import OK
from edgeloop.cli.places import Place, add_place
from edgeloop.delta.accept import note
from edgeloop.errors import ConfigError, StateError, TrustError
from edgeloop.link.fresh import heard
from edgeloop.store import MARK, REFUSED, Outbox, Store
from edgeloop.trust import Root, Trust, key_id, load_signer, new_key, public_key
from edgeloop.trust.keys import public_text
from edgeloop.trust.root import ROLES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output

_LARGEST = 128 << 10


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the commands of this group."""
    parser = command("enroll")
    add_place(parser)
    parser.add_argument("--root", metavar="FILE", required=True, help="the fleet's root document")
    parser.add_argument("--again", action="store_true",
                        help="begin anew: the journal is lost, or the fleet is another one")
    parser.add_argument("--key", metavar="NAME:ADDRESS",
                        help="hardware that holds the device's key (default: a new file)")
    parser.set_defaults(command=enroll)

    parser = command("keys")
    todo = parser.add_subparsers(metavar="WHAT", required=True)
    new = todo.add_parser("new", help="make a private key, readable by its owner only")
    new.add_argument("file", help="where to; its public key goes to FILE.pub")
    new.set_defaults(command=keys_new)
    shown = todo.add_parser("show", help="a key's public part, a root document, or a device")
    shown.add_argument("file", help="key, root document or state file")
    shown.set_defaults(command=keys_show)
    root = todo.add_parser("root", help="write the document that says which keys a fleet believes")
    root.add_argument("-o", "--output", required=True, metavar="FILE")
    root.add_argument("--fleet", metavar="NAME", help="name of the fleet (of a first document)")
    root.add_argument("--after", metavar="FILE", help="the document that it follows")
    for role in ROLES:
        root.add_argument(f"--{role}", action="append", default=[], metavar="KEY",
                          help=f"public key of role {role}: file or base64; may be repeated")
    root.add_argument("--threshold", action="append", default=[], metavar="ROLE=N",
                      help="how many keys of a role must sign (default: 1)")
    root.add_argument("--sign", action="append", required=True, metavar="KEY",
                      help="root key that signs it, old and new ones; may be repeated")
    root.set_defaults(command=keys_root)
    for each in (new, shown, root):
        each.add_argument("--json", action="store_true", help="print JSON for machines")


def enroll(args: argparse.Namespace, out: Output) -> int:
    """Pin a fleet's root document on this device and give the device a key of its own."""
    place = Place.of(args.state)
    document = read_small(Path(args.root), "root document")
    with Store.open(place.state) as store:
        seen = store.kv(MARK)
        if seen is not None and not args.again:
            msg = (f"{place.state} is enrolled already: `edgeloop enroll --root FILE --again` "
                   "begins anew")
            raise TrustError(msg)
        # The state still knows how far releases had come: a new journal begins there.
        sequence = 0 if seen is None else json.loads(seen)["sequence"]
        same = seen is not None and json.loads(seen).get("fleet") == Root.first(document).fleet
        trust = Trust.enroll(
            place.state, document, again=args.again, sequence=sequence if same else 0,
            signer=args.key)
        note(store, trust)
        store.drop_kv(REFUSED)  # by other keys it may be good
        store.event("enrolled", {"fleet": trust.root.fleet, "device": trust.device})
        public = public_text(trust.signer().public)
    with Outbox(place.state) as outbox:
        heard(outbox)  # silence is counted from here
        outbox.note("refused", [])
    out.result({"device": trust.device, "public": public, "fleet": trust.root.fleet,
                "root": trust.root.version, "sequence": trust.sequence})
    out.facts({"device": trust.device, "public key": public, "fleet": trust.root.fleet,
               "root document": f"version {trust.root.version}",
               "releases after": trust.sequence})
    return OK


def keys_new(args: argparse.Namespace, out: Output) -> int:
    """Make a key pair."""
    path, public = Path(args.file), Path(f"{args.file}.pub")
    if public.exists():
        msg = f"{public} exists already: choose another name"
        raise ConfigError(msg)
    key = new_key(path)
    public.write_text(public_text(key.public) + "\n")
    out.result({"key": str(path), "public": public_text(key.public), "id": key_id(key.public)})
    out.line(f"{path}: private, yours alone; {public}: {public_text(key.public)}")
    return OK


def keys_show(args: argparse.Namespace, out: Output) -> int:
    """Show what is public of a key, a root document or an enrolled device."""
    path = Path(args.file)
    if Path(f"{path}{JOURNAL}").exists():
        trust = Trust(path)
        facts = {"device": trust.device, "fleet": trust.root.fleet,
                 "root document": trust.root.version, "release": trust.sequence,
                 **_keys(trust.root)}
    elif read_small(path, "file").lstrip().startswith(b"{"):
        root = Root.first(read_small(path, "root document"))
        facts = {"fleet": root.fleet, "root document": root.version, **_keys(root)}
    else:
        public = load_public(args.file)
        facts = {"id": key_id(public), "public": public_text(public)}
    out.result(facts)
    out.facts(facts)
    return OK


def _keys(root: Root) -> dict[str, str]:
    return {
        f"{role} keys": f"{root.thresholds[role]} of {', '.join(root.keys[role]) or 'none'}"
        for role in ROLES
    }


def keys_root(args: argparse.Namespace, out: Output) -> int:
    """Write a root document: the first one of a fleet, or the one after another."""
    before = None if args.after is None else Root.first(
        read_small(Path(args.after), "root document"))
    if (before is None) == (args.fleet is None):
        msg = "keys root: a first document names its --fleet, a later one what it comes --after"
        raise ConfigError(msg)
    keys = {role: [load_public(k) for k in getattr(args, role)] for role in ROLES}
    thresholds = {}
    for text in args.threshold:
        role, _, number = text.partition("=")
        if role not in ROLES or not number.isdecimal():
            msg = f"--threshold {text!r}: write ROLE=N, with a role of {', '.join(ROLES)}"
            raise ConfigError(msg)
        thresholds[role] = int(number)
    fleet, version = (args.fleet, 1) if before is None else (before.fleet, before.version + 1)
    root = Root.of(fleet, version, keys, thresholds)
    document = root.sign([load_signer(k) for k in args.sign])
    (Root.first if before is None else before.next)(document)
    Path(args.output).write_bytes(document)
    out.result({"output": args.output, "fleet": root.fleet, "version": root.version})
    out.line(f"{args.output}: version {root.version} of fleet {root.fleet!r}")
    return OK


def load_public(name: str) -> bytes:
    """A public key: base64, the file that holds that, or the private key's file."""
    path = Path(name)
    if not path.exists():
        return public_key(name)
    if b"PRIVATE" in read_small(path, "key"):
        return load_signer(path).public
    return public_key(read_small(path, "key").decode("ascii", "replace"))


def read_small(path: Path, what: str) -> bytes:
    """A small file, read whole."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        msg = f"{what} {path} cannot be read: {error.strerror}"
        raise StateError(msg) from error
