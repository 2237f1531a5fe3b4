"""Streams from a real broker that is killed, refuses, and passes on what nobody should send."""

import json
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.link.parts import Process, certificates, free_port, needs_mosquitto

from edgeloop.data.item import Feedback, Item, Labels
from edgeloop.data.sources import MqttSource, make_source, mqtt
from edgeloop.data.sources.packed import Message, pack
from edgeloop.errors import ConfigError, DataError, LinkError

CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
persistence true
persistence_location {folder}/
max_queued_messages 0
user root
"""
TLS = "cafile {folder}/ca.pem\ncertfile {folder}/cert.pem\nkeyfile {folder}/cert.key\n"
ROOT = "edgeloop/v1/plant/press/"


class Broker:
    """Mosquitto with one user, kept on disk when told to."""

    def __init__(self, folder, tls=False):
        self.folder, self.port, self.tls = folder, free_port(), tls
        if tls:
            certificates(folder)
        text = CONFIG + (TLS if tls else "")
        (folder / "mosquitto.conf").write_text(text.format(port=self.port, folder=folder))
        (folder / "passwords").touch(0o600)
        subprocess.run([shutil.which("mosquitto_passwd"), "-b", folder / "passwords", "u", "p"],
                       check=True, capture_output=True)
        self.process = Process([needs_mosquitto(), "-c", folder / "mosquitto.conf"], self.port)

    def save(self):
        """Have everything written to disk."""
        db = self.folder / "mosquitto.db"
        db.unlink(missing_ok=True)
        self.process.process.send_signal(signal.SIGUSR1)
        wait(db.exists)

    def source(self, password="p", **options):
        token = self.folder / "token"
        token.write_text(f"u:{password}")
        token.chmod(0o600)
        options.setdefault("ca", self.folder / "ca.pem" if self.tls else None)
        return MqttSource(
            f"mqtt{'s' * self.tls}://127.0.0.1:{self.port}", site="plant", device="press",
            token_file=token, **options)

    def publish(self, messages, topic="acc"):
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.username_pw_set("u", "p")
        if self.tls:
            client.tls_set(str(self.folder / "ca.pem"))
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        for message in messages:
            client.publish(ROOT + topic, message, qos=1).wait_for_publish(20)
        client.disconnect()
        client.loop_stop()


def wait(until):
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def message(i):
    return json.dumps({"seq": i, "ts_ns": i * 10**9, "values": [i, i]})


def subscribe(broker, source):
    """Leave a session at the broker, as a first run does."""
    threading.Timer(0.7, source.stop).start()
    assert list(source.items()) == []


def taken(source, count):
    """The next `count` records."""
    found = []
    timer = threading.Timer(30, source.stop)
    timer.start()
    for record in filter(None, source.items()):
        found.append(record)
        if len(found) == count:
            source.stop()
    timer.cancel()
    return found


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    with broker.process:
        yield broker


def test_every_form_arrives(broker):
    subscribe(broker, broker.source())
    x = np.float32([[1, 2], [3, 4]])
    broker.publish([
        message(0), pack(Message(1, x, 2 * 10**9, 3, "k")), '{"id": "k", "y": 2}', "nonsense",
        "[" * 5000, b"EDLS", '{"seq": -1, "values": [1]}', '{"seq": 5, "values": ["a"]}',
        pack(Message(6, None, 10**9, 1)), b"0" * (2 << 20)])
    source = broker.source()
    first, second, label, *bad = taken(source, 10)
    assert first.meta == {"stream": "acc", "seq": 0}
    assert (second.key, second.y, second.time) == ("k", 3, 2.0)
    np.testing.assert_array_equal(second.x, x)
    assert label == Feedback(2, "k", None)
    late = bad.pop(5)
    assert late == Feedback(1, None, 1.0)
    assert [type(b) for b in bad] == [DataError] * 6
    assert source.mark() == {"acc": [6, 10**9]}


def test_silence_is_told(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "TICK", 0.2)
    items = broker.source().items()
    assert [next(items) for _ in range(3)] == [None] * 3
    items.close()


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_broker_killed_mid_stream_loses_nothing(broker, monkeypatch, acknowledged):
    """The control acknowledges what waits here only, and loses it with the process."""
    subscribe(broker, broker.source())
    broker.publish(map(message, range(30)))
    if acknowledged:
        init = paho.Client.__init__
        monkeypatch.setattr(paho.Client, "__init__", lambda self, *a, **k: init(
            self, *a, **k | {"manual_ack": False}))
    source, found = broker.source(queue=4), []
    for record in filter(None, source.items()):
        found.append(record.meta["seq"])
        if len(found) == 5:
            time.sleep(0.3)  # the queue is full
            broker.save()
            broker.process.kill()
            broker.process.start()
            broker.publish(map(message, range(30, 40)))
            break
    after = broker.source(queue=4)
    after.resume(json.loads(json.dumps(source.mark())))
    threading.Timer(5, after.stop).start()
    for record in filter(None, after.items()):
        found.append(record.meta["seq"])
        if record.meta["seq"] == 39:
            after.stop()
    lost = after.counts()["missing_messages"]
    assert lost == 40 - len(found)
    assert (lost > 0) == acknowledged
    assert found == sorted(set(found))


def test_the_same_reading_goes_on_after_the_broker_was_killed(broker):
    subscribe(broker, broker.source())
    broker.publish(map(message, range(30)))
    source, found = broker.source(queue=4), []
    timer = threading.Timer(30, source.stop)
    timer.start()
    for record in filter(None, source.items()):
        found.append(record.meta["seq"])
        if len(found) == 5:
            broker.save()
            broker.process.kill()
            broker.process.start()
            broker.publish(map(message, range(30, 40)))
        if len(found) == 40:
            source.stop()
    timer.cancel()
    assert found == list(range(40))
    assert source.counts()["missing_messages"] == 0
    assert source.counts()["repeated"] > 0


def test_gaps_and_repetitions_are_counted_and_a_restart_is_neither(broker):
    subscribe(broker, broker.source())
    broker.publish([message(i) for i in (3, 5, 5, 9)]
                   + ['{"seq": 0, "ts_ns": 99000000000, "values": [1]}'])
    source = broker.source()
    source.resume({"acc": [1, 10**9]})
    assert [item.meta["seq"] for item in taken(source, 4)] == [3, 5, 9, 0]
    assert source.counts() == {"missing_messages": 5, "repeated": 1}


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
def test_tls_and_password(tmp_path):
    broker = Broker(tmp_path, tls=True)
    with broker.process:
        subscribe(broker, broker.source())
        broker.publish([message(0)])
        assert isinstance(taken(broker.source(), 1)[0], Item)
        with pytest.raises(LinkError, match="broker says"):
            list(broker.source("wrong").items())
        with pytest.raises(LinkError, match="certificate"):
            list(broker.source(ca=None).items())


@pytest.mark.parametrize(("options", "said"), [
    ({"server": "mqtt://example.org"}, "without TLS"),
    ({"server": "http://example.org"}, "mqtts://HOST"),
    ({"server": "mqtts://h:99999"}, "server"),
    ({"site": "a/b"}, "topic"),
    ({"streams": ["#"]}, "topic"),
    ({"qos": 2}, "qos"),
    ({"token_file": "open"}, "chmod 600"),
    ({"token_file": "none"}, "cannot be read"),
])
def test_wrong_options_are_refused(tmp_path, options, said):
    (tmp_path / "open").write_text("u:p")
    (tmp_path / "open").chmod(0o644)
    table = {"kind": "mqtt", "server": "mqtts://h", "site": "s", "device": "d"} | options
    with pytest.raises(ConfigError, match=said):
        make_source(table, labels=Labels(), root=Path(tmp_path))
