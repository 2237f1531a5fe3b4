"""The same over a real broker with TLS and passwords, killed and started again in the middle."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.link.parts import Broker, certificates, with_broker
from tests.trust.fleet import PROGRAM, weights

from edgeloop.errors import ConfigError
from edgeloop.link.mqtt import client_of, topic
from edgeloop.store import Store


@pytest.fixture
def broker(site):
    broker = Broker(site.folder)
    yield broker
    broker.process.kill()


def enrolled(site, broker, name="device"):
    device = site.device(name)
    device.token = broker.user(device.trust.device, "secret")
    return device


def eventually(action, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := action()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return found


def waits_for(size, *paths):
    """Wait until one of these files has so many bytes."""
    return eventually(
        lambda: any(p.stat().st_size >= size for pattern in paths
                    for p in pattern.parent.glob(pattern.name)), f"{paths}")


def test_the_whole_way_with_a_broker_that_dies_in_the_middle(site, broker, fleet):
    device = enrolled(site, broker)
    ca = ("--ca", broker.folder / "ca.pem", "--tries", "6")
    slowly = (*ca, "--bandwidth", "9kB")
    big, changed = ({"w": np.random.default_rng(n).normal(size=(160, 32)).astype("f4")}
                    for n in (3, 4))
    broker.process.start()
    with with_broker(site, broker) as hub:
        eventually(lambda: site.command("pull", device, broker.url, *ca)[0] == 0, "the hub")
        site.publish(fleet.pack(None, weights(1), 1))  # small: travels in the notice
        eventually(lambda: (site.command("pull", device, broker.url, *ca)[1] or {}).get(
            "action") == "live", "release 1")
        with Store.open(device.path) as store:
            store.commit(big, program_hash=PROGRAM, parent=None, metrics={"kind": "shipped"},
                         live=True)
        site.publish(fleet.pack(big, changed, 2))  # 20 KB: is asked for in pieces
        eventually(lambda: caught(
            device, broker, site, site.begin("pull", device, broker.url, *slowly)), "release 2")
        with Store.open(device.path) as store:
            assert store.live().lineage == "fleet"
            store.commit(big, program_hash=PROGRAM, parent=store.live().id, metrics={}, live=True)
        push = site.begin("push", device, broker.url, *slowly)
        waits_for(1, site.folder / "hub" / "uploads" / "*.part")
        broker.process.kill()
        hub.kill()  # the hub too
        broker.process.start()
        hub.start()
        assert site.end(push)[0] == 0
        assert site.command("push", device, broker.url, *ca)[1]["packages"] == 0
    with site.shelf() as shelf:
        assert len(shelf.uploads()) == 1
        assert [r["reports"] for r in shelf.releases()] == [{"taken": 1}, {"taken": 1}]
    with Store.open(device.path, readonly=True) as store:
        assert [v.lineage for v in store.versions()] == ["local", "fleet", "local", "fleet",
                                                         "local"]


def caught(device, broker, site, pull):
    """Kill the broker while a package comes; True when that very process then finished."""
    inbox = device.path.with_name("device.db.inbox")
    while pull.poll() is None and not any(p.stat().st_size for p in inbox.glob("*.part")):
        time.sleep(0.02)
    if pull.poll() is not None:  # the notice had not come yet
        status, _, errors = site.end(pull)
        assert status == 0, errors
        return False
    broker.process.kill()
    broker.process.start()
    status, said, errors = site.end(pull)
    assert (status, said and said["action"]) == (0, "live"), errors
    return True


def test_an_odd_question_does_not_end_the_bridge(site, broker, fleet):
    device = enrolled(site, broker)
    broker.process.start()
    ca = ("--ca", broker.folder / "ca.pem", "--tries", "4")
    with with_broker(site, broker):
        eventually(lambda: site.command("pull", device, broker.url, *ca)[0] == 0, "the hub")
        client, host, port = client_of(
            broker.url, device.token.read_text(), broker.folder / "ca.pem", "odd")
        client.connect(host, port)
        client.loop_start()
        for said in (b"", b"[" * 9000, b'{"id": 1, "do": "report", "sequence": 1e999}',
                     b'{"id": 1, "do": "root", "version": %d}' % 10**40, b'{"id": 1}',
                     b'{"id": 1, "do": "report", "sequence": %d, "outcome": "taken"}' % 10**30,
                     b'{"id": 1, "do": "fetch", "sha256": "x", "start": -1}'):
            client.publish(topic("press", device.trust.device, "ask"), said, 1).wait_for_publish()
        client.disconnect()
        client.loop_stop()
        assert site.command("pull", device, broker.url, *ca)[0] == 0


def test_who_is_not_let_in(site, broker, fleet):
    device = enrolled(site, broker)
    broker.process.start()
    device.token.write_text(f"{device.trust.device}:wrong")
    status, _, errors = site.command(
        "pull", device, broker.url, "--ca", broker.folder / "ca.pem", "--tries", "1")
    assert status == 8
    assert "broker says" in errors
    other = site.folder / "other"
    other.mkdir()
    certificates(other)
    status, _, errors = site.command(
        "pull", device, broker.url, "--ca", other / "ca.pem", "--tries", "1")
    assert status == 8
    assert "cannot be reached" in errors


def test_urls_and_tokens():
    for url, token, said in (
            ("http://x", "a:b", "write mqtts"), ("mqtt://far.example", "a:b", "TLS"),
            ("mqtts://x", "ab", "USER:PASSWORD"), ("mqtts://x:port", "a:b", "Port")):
        with pytest.raises(ConfigError, match=said):
            client_of(url, token, None, "n")
