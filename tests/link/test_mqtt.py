"""The same over a real broker with TLS and passwords, killed and started again in the middle."""

from __future__ import annotations

import subprocess
import time

import pytest
from tests.link.parts import Process, certificates, free_port, needs_mosquitto
from tests.trust.fleet import PROGRAM, weights

from edgeloop.errors import ConfigError
from edgeloop.link.mqtt import client_of
from edgeloop.store import Store

CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
cafile {folder}/ca.pem
certfile {folder}/cert.pem
keyfile {folder}/cert.key
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
user root
"""


class Broker:
    """Mosquitto with TLS, a user for the hub and one for each device, who sees its own topics."""

    def __init__(self, folder):
        self.folder, self.port, self.mosquitto = folder, free_port(), needs_mosquitto()
        (folder / "mosquitto.conf").write_text(CONFIG.format(port=self.port, folder=folder))
        (folder / "acl").write_text(
            "user hub\ntopic readwrite edgeloop/v1/press/#\n"
            "pattern readwrite edgeloop/v1/press/%u/#\n")
        (folder / "acl").chmod(0o600)
        (folder / "passwords").touch(0o600)
        self.user("hub", "hub-password")
        self.process = Process([self.mosquitto, "-c", folder / "mosquitto.conf"], self.port)

    def user(self, name, password):
        subprocess.run(["mosquitto_passwd", "-b", str(self.folder / "passwords"), name, password],
                       check=True, capture_output=True)
        token = self.folder / f"{name[:8]}.mqtt"
        token.write_text(f"{name}:{password}")
        token.chmod(0o600)
        return token

    @property
    def url(self):
        return f"mqtts://127.0.0.1:{self.port}"


@pytest.fixture
def broker(site):
    broker = Broker(site.folder)
    yield broker
    broker.process.kill()


def with_broker(site, broker):
    return site.hub("--mqtt", broker.url, "--mqtt-token", broker.folder / "hub.mqtt",
                    "--ca", broker.folder / "ca.pem")


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


def test_the_whole_way_with_a_broker_that_dies(site, broker, fleet):
    device = enrolled(site, broker)
    ca = ("--ca", broker.folder / "ca.pem", "--tries", "6")
    big = {"w": weights(3)["fc.A"].repeat(40, 0)}
    changed = {"w": big["w"] * weights(4)["fc.A"].repeat(40, 0)}
    broker.process.start()
    with with_broker(site, broker) as hub:
        def pull():
            return site.command("pull", device, broker.url, *ca)

        eventually(lambda: pull()[0] == 0, "the hub is not at the broker")
        site.publish(fleet.pack(None, weights(1), 1))  # small: travels in the notice
        eventually(lambda: (pull()[1] or {}).get("action") == "live", "release 1")
        with Store.open(device.path) as store:
            store.commit(big, program_hash=PROGRAM, parent=None, metrics={"kind": "shipped"},
                         live=True)
        site.publish(fleet.pack(big, changed, 2))  # 17 KB: is asked for in pieces
        broker.process.kill()
        assert pull()[0] == 8
        broker.process.start()
        eventually(lambda: (pull()[1] or {}).get("action") == "live", "release 2")
        with Store.open(device.path) as store:
            store.commit(big, program_hash=PROGRAM, parent=store.live().id, metrics={}, live=True)
        broker.process.kill()
        assert site.command("push", device, broker.url, *ca[:2], "--tries", "1")[0] == 8
        broker.process.start()
        hub.kill()  # the hub too: the device must wait for it
        assert site.command("push", device, broker.url, *ca[:2], "--tries", "1")[0] == 8
        hub.start()
        eventually(lambda: site.command("push", device, broker.url, *ca)[0] == 0, "push")
        assert site.command("push", device, broker.url, *ca)[1]["packages"] == 0
    with site.shelf() as shelf:
        assert len(shelf.uploads()) == 1
        assert [r["reports"] for r in shelf.releases()] == [{"taken": 1}, {"taken": 1}]
    with Store.open(device.path, readonly=True) as store:
        assert [v.lineage for v in store.versions()] == ["local", "fleet", "local", "fleet",
                                                         "local"]


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
            ("mqtts://x", "ab", "USER:PASSWORD")):
        with pytest.raises(ConfigError, match=said):
            client_of(url, token, None, "n")
