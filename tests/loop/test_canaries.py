"""1,000 canaries in a stream: no filter lets one through, into whatever form, file or message."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sqlite3
import sys
import threading
import time
import traceback
import urllib.parse
from types import SimpleNamespace

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.conftest import CLASSES, LOOP, WIDTH
from tests.link.parts import Broker, with_broker

from edgeloop import loop
from edgeloop.cli import main
from edgeloop.errors import DataError
from edgeloop.store import Outbox
from edgeloop.trust import Trust

PRIVACY = {
    "allow": ["user", "text", "deep", "at", "lat", "lon"],
    "hash_ids": True,
    "hash_fields": ["user"],
    "redact": ["email", "phone", "card", "ip", "iban"],
    "patterns": {"customer": r"K-\d{8}"},
    "coarse_time": "1 h",
    "time_fields": ["at"],
    "coarse_place_km": 5.0,
    "place_fields": ["lat", "lon"],
}
STREAM = '[source]\nkind = "stdin"\non_bad = "skip"\n'
TEXTS = ("email", "phone", "card", "ip", "iban", "customer")


def letters(rng, n=12):
    return "".join(rng.choice(list("abcdefghijklmnoprstuvwxyz"), n))


def digits(rng, n):
    return "".join(map(str, rng.integers(0, 10, n)))


def card(rng):
    body = "4" + digits(rng, 14)
    return next(body + d for d in "0123456789" if luhn(body + d))


def luhn(number):
    """By the table of doubled digits, not as the filter does it."""
    doubled = "0246813579"
    return sum(int(doubled[int(c)] if i % 2 else c) for i, c in enumerate(number[::-1])) % 10 == 0


def iban(rng):
    account = digits(rng, 18)
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"  # D, E are 13, 14


MAKERS = {
    "email": lambda r: f"{letters(r, 6)}.{letters(r, 5)}@{letters(r, 7)}.example",
    "phone": lambda r: f"+49 {digits(r, 3)} {digits(r, 8)}",
    "card": card,
    "ip": lambda r: ".".join(str(v) for v in r.integers(10, 255, 4)),
    "iban": iban,
    "customer": lambda r: f"K-{digits(r, 8)}",
    "id": letters,
    "user": lambda r: f"ünal {letters(r)}",
    "note": letters,
    "label": letters,
    "number": letters,
    "time": lambda r: f"{r.integers(10, 24)}:{r.integers(10, 60)}:42.{digits(r, 6)}",
    "place": lambda r: f"{r.uniform(47, 54):.9f}",
}


def records(seed=5, n=150):
    """Lines of JSON, and the canaries in them by kind."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(len(CLASSES), WIDTH))
    planted = {kind: [] for kind in MAKERS}
    lines = []

    def new(kind):
        planted[kind].append(MAKERS[kind](rng))
        return planted[kind][-1]

    for i in range(n):
        label = int(rng.integers(len(CLASSES)))
        x = (centres[label] + 0.8 * rng.normal(size=WIDTH)).round(5).tolist()
        one, two, three = (TEXTS[(i + k) % 6] for k in (0, 2, 4))
        record = {
            "x": x, "y": CLASSES[label], "id": new("id"), "user": new("user"), "note": new("note"),
            "text": f"call {new(one)}, now", "at": f"2026-11-30T{new('time')}+00:00",
            "deep": {"list": [new(two), {new(three): 1}]}, "lat": float(new("place")), "lon": 11.5,
        }
        if i % 10 == 3:
            record["y"] = new("label")
        if i % 10 == 7:
            record["x"] = [new("number")]
        lines.append(json.dumps(record))
    return lines, planted


def late_label(line):
    """The label of a record once more, for the item of its id."""
    return json.dumps({"id": json.loads(line)["id"], "y": CLASSES[0]})


def forms(canary):
    """The bytes that a text may hide as."""
    data = canary.encode()
    yield from (data, canary.encode("utf-16-le"), canary.encode("utf-16-be"))
    yield from (data.hex().encode(), data.hex().upper().encode())
    for shift in range(3):  # the ends mix with what stands beside it
        packed = base64.b64encode(b"\0" * shift + data)
        yield packed[4 * (shift > 0):len(packed) // 4 * 4 - 4]
    yield urllib.parse.quote(canary).encode()
    yield urllib.parse.quote_plus(canary, safe="").encode()
    yield json.dumps(canary)[1:-1].encode()
    yield json.dumps(canary, ensure_ascii=False)[1:-1].encode()


def found(planted, spilled):
    """Kinds of which a canary is in what was spilled, with a place of one."""
    everything = b"\0".join(spilled.values())
    there = np.unique(heads(everything))
    hits = {}
    for kind, canaries in planted.items():
        data = sorted({form for canary in canaries for form in forms(canary)})
        # Few begin with 8 bytes that stand somewhere: only those are searched for.
        begin = np.concatenate([heads(form[:8]) for form in data])
        for i in np.flatnonzero(np.isin(begin, there)):
            if data[i] in everything:
                hits[kind] = next(where for where, held in spilled.items() if data[i] in held)
                break
    return hits


def heads(data):
    """Every 8 bytes that follow each other, as numbers."""
    return np.ascontiguousarray(
        np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8)
    ).view(np.uint64).ravel()


class Spill:
    """Everything that a device writes, says or would send, by where."""

    def __init__(self, device, monkeypatch, capsys):
        self.device, self.bytes = device, {}
        self._patch, self._capsys = monkeypatch, capsys

    def files(self, when):
        for path in self.device.folder.rglob("*"):
            if path.is_file() and path.suffix not in (".onnx", ".elp", ".csv"):
                self.bytes[f"{when}: {path.name}"] = path.read_bytes()

    def rows(self):
        """The state as SQL, so that no page's layout hides a text."""
        db = sqlite3.connect(self.device.state)
        self.bytes["rows"] = "\n".join(db.iterdump()).encode("utf-8", "surrogatepass")
        db.close()

    def said(self, where):
        told = self._capsys.readouterr()
        self.bytes[where] = (told.out + told.err).encode("utf-8", "surrogatepass")

    def command(self, *args, status=0):
        assert main([str(a) for a in args]) == status
        self.said(" ".join(map(str, args)))

    def feed(self, lines):
        data = ("\n".join(lines) + "\n").encode()
        self._patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    def run(self, lines):
        """Run with a log of every event, as a user's own callback would keep it."""
        with (self.device.folder / "events.log").open("a") as log:

            def event(kind, **detail):
                log.write(json.dumps({"event": kind, **detail}, default=str) + "\n")
                if kind == "item" and detail["n"] % 40 == 0:
                    self.files(f"at item {detail['n']}")  # the log of the database is there now

            self.feed(lines)
            return loop.run(self.device.folder / "loop.toml", on_event=event)


def toml(table):
    return "[privacy]\n" + "".join(
        f"{k} = {json.dumps(v)}\n" for k, v in table.items() if k != "patterns"
    ) + "[privacy.patterns]\n" + "".join(
        f"{k} = {json.dumps(v)}\n" for k, v in table.get("patterns", {}).items())


@pytest.fixture
def spill(device, monkeypatch, capsys, fleet):
    def make(privacy, lines):
        monkeypatch.chdir(device.folder)
        head, _, rest = LOOP.partition("[source]")
        text = head + STREAM + rest[rest.index("[trigger]"):] + toml(privacy)
        text = text.replace("min_samples = 16", "min_samples = 8")
        (device.folder / "loop.toml").write_text(text)
        made = Spill(device, monkeypatch, capsys)
        report = made.run(lines)
        assert report.promoted
        (device.folder / "strict.toml").write_text(text.replace('"skip"', '"stop"'))
        for line in lines[3], lines[7]:  # a label, and a number, that are none
            made.feed([line])
            with pytest.raises(DataError) as raised:
                loop.run("strict.toml")
            made.bytes[f"traceback {line[:9]}"] = "".join(
                traceback.format_exception(raised.value)).encode()
            made.feed([line])
            made.command("run", "strict.toml", "--json", status=5)
        made.feed(lines[:3])
        made.command("predict", "loop.toml", "-")
        made.feed(lines[3:4])
        made.command("predict", "loop.toml", "-", "--json", status=5)
        made.feed([*lines[:30], *(late_label(line) for line in lines[:3])])
        made.command("record", "loop.toml", "stream.elr")
        made.feed(lines[:3])
        made.command("run", "loop.toml", "--explain", "--json")
        for command in ("status", "versions"):
            made.command(command, "loop.toml", "--json")
        send(made, fleet)
        made.files("at the end")
        made.rows()
        return made

    return make


def send(made, fleet):
    """Pack what was learnt as a delta, and queue it as `push` over HTTP or MQTT would send it."""
    folder = made.device.folder
    (folder / "root.json").write_bytes(fleet.root)
    made.command("enroll", "loop.toml", "--root", "root.json")
    made.command("pack", "loop.toml", "-o", "delta.edl")
    made.command("inspect", "delta.edl", "--json")
    token = folder / "device.token"
    token.write_text("t")
    token.chmod(0o600)
    made.command("push", "loop.toml", "--queue", "--server", "mqtts://127.0.0.1:1")
    with Outbox(made.device.state) as outbox:
        waiting = outbox.waiting()
    assert waiting
    for message in waiting:
        made.bytes[f"message {message.about}"] = message.body
        (folder / "sent.edl").write_bytes(message.body)
        made.command("inspect", "sent.edl", "--json")


def test_no_canary_gets_out(spill):
    lines, planted = records()
    assert sum(map(len, planted.values())) >= 1000
    made = spill(PRIVACY, lines)
    assert found(planted, made.bytes) == {}
    assert any(name.endswith("device.db-wal") for name in made.bytes)
    assert any(name.endswith("device.db.backup") for name in made.bytes)


def test_without_filters_every_kind_gets_out(spill):
    lines, planted = records()
    everything = {"allow": [*PRIVACY["allow"], "note"]}
    made = spill(everything, lines)
    assert set(found(planted, made.bytes)) == set(MAKERS)
    state = {where: data for where, data in made.bytes.items() if "device.db" in where}
    assert set(found(planted, state)) == {"id"}


OFF = {
    "note": {"allow": [*PRIVACY["allow"], "note"]},
    "id": {"hash_ids": False},
    "user": {"hash_fields": []},
    "customer": {"patterns": {}},
    "time": {"coarse_time": None},
    "place": {"coarse_place_km": None},
    **{kind: {"redact": [k for k in PRIVACY["redact"] if k != kind]} for kind in TEXTS[:5]},
}


@pytest.mark.parametrize("kind", OFF)
def test_a_filter_that_is_off_lets_its_kind_through(kind, spill):
    lines, planted = records()
    table = {k: v for k, v in (PRIVACY | OFF[kind]).items() if v is not None}
    assert set(found(planted, spill(table, lines).bytes)) == {kind}


def test_errors_in_full_quote_the_record(spill):
    lines, planted = records()
    there = found(planted, spill(PRIVACY | {"errors": "full"}, lines).bytes)
    assert {"label", "number"} <= set(there)


@contextlib.contextmanager
def spying(site, broker):
    """A real broker with the fleet's hub behind it, and what everybody publishes there."""
    with broker.process, with_broker(site, broker):
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.username_pw_set("hub", "hub-password")
        client.tls_set(str(site.folder / "ca.pem"))
        heard = {}
        ready = threading.Event()
        client.on_connect = lambda c, *_: c.subscribe("edgeloop/v1/press/#")
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = lambda _c, _d, m: heard.setdefault(
            f"{m.topic} {len(heard)}", m.topic.encode() + b"\0" + m.payload)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        assert ready.wait(30)
        yield client, heard
        client.disconnect()
        client.loop_stop()


def test_what_push_publishes_holds_none(spill, site):
    lines, planted = records()
    made = spill(PRIVACY, lines)
    trust, broker = Trust(made.device.state), Broker(site.folder)
    with site.shelf() as shelf:
        shelf.add_device(trust.device, trust.signer().public)
    token = broker.user(trust.device, "secret")
    with spying(site, broker) as (client, heard):
        made.command("push", "loop.toml", "--server", broker.url, "--token", token, "--ca",
                     site.folder / "ca.pem", "--tries", "6")
        with site.shelf() as shelf:
            assert len(shelf.uploads()) == 1
        assert sum(map(len, heard.values())) > 1000
        assert found(planted, heard) == {}
        client.publish("edgeloop/v1/press/x", planted["email"][0]).wait_for_publish(30)
        deadline = time.monotonic() + 30
        while set(found(planted, heard)) != {"email"}:
            assert time.monotonic() < deadline, "the spy hears nothing"
            time.sleep(0.1)
