"""A device and its hub, as processes, over TLS and over a bad line."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from tests.link.parts import BadLine, adapter_of, certificates
from tests.trust.fleet import PROGRAM, new_key, weights

from edgeloop import delta
from edgeloop.delta.programs import pack_program
from edgeloop.errors import ConfigError, LinkError, TrustError
from edgeloop.link import HttpTransport, Offer, fetched, patiently
from edgeloop.link import pull as pulled
from edgeloop.link import push as pushed
from edgeloop.link.pull import fetch
from edgeloop.loop.follow import take_in
from edgeloop.program import Program
from edgeloop.program.installed import installed_path
from edgeloop.store import REFUSED, REPORTS, Outbox, Store
from edgeloop.trust import Trust

SCALE = float(os.environ.get("EDGELOOP_LINK_SCALE", "20"))  # 1: a line of really 1 kB a second


def test_the_whole_way_over_tls(site, fleet):
    device = site.device()
    url, ca = f"https://127.0.0.1:{site.port}", ("--ca", site.folder / "ca.pem")
    with site.hub(tls=True):
        assert site.command("pull", device, url, *ca)[1]["action"] == "nothing"
        site.publish(fleet.pack(weights(0), weights(1), 1))
        assert site.command("pull", device, url, *ca)[1] == {
            "sequence": 1, "action": "live", "held_back": False, "root": 1}
        assert site.command("pull", device, url, *ca)[1]["action"] == "nothing"
        # A new root takes the old release key away; what it signed before is not taken any more.
        second = new_key()
        with site.shelf() as shelf:
            shelf.add_root(fleet.document(2, release=[second.public]))
        site.publish(fleet.pack(weights(1), weights(2), 2, signers=[second]))
        assert site.command("pull", device, url, *ca)[1]["action"] == "live"
        assert device.trust.root.version == 2
        device.learn(70)
        status, sent, _ = site.command("push", device, url, *ca)
        assert (status, sent["packages"], sent["reports"]) == (0, 1, 0)
        assert site.command("push", device, url, *ca)[1]["packages"] == 0
        site.publish(fleet.pack(weights(2), weights(3), 3, signers=[second]))
        assert site.command("pull", device, url, *ca)[1]["action"] == "rebase"
    with site.shelf() as shelf:
        assert shelf.releases()[0]["reports"] == {"taken": 1}
        (upload,) = shelf.uploads()
    with Store.open(device.path, readonly=True) as store:
        assert store.version(4).lineage == "local"
    got = delta.apply(weights(2), delta.read(upload["file"]))
    assert np.array_equal(got["fc.A"], weights(70)["fc.A"])


def test_servers_and_devices_that_are_not_to_be_believed(site, fleet):
    device = site.device()
    other = site.folder / "other"
    other.mkdir()
    certificates(other)
    url = f"https://127.0.0.1:{site.port}"
    with site.hub(tls=True):
        status, said, errors = site.command("pull", device, url, "--ca", other / "ca.pem")
        assert (status, said["kind"]) == (8, "LinkError")
        assert "not to be believed" in errors
        device.token.write_text("wrong")
        status, _, errors = site.command("pull", device, url, "--ca", site.folder / "ca.pem")
        assert status == 8
        assert "does not know this device" in errors
        device.token.chmod(0o644)
        status, _, errors = site.command("pull", device, url)
        assert status == 2
        assert "read by others" in errors
    status, _, errors = site.command("pull", device, "http://hub.example")
    assert status == 2


def test_urls():
    for url in ("ftp://x", "https://", "hub.example"):
        with pytest.raises(ConfigError, match="write https"):
            HttpTransport(url, "t")
    with pytest.raises(ConfigError, match="could read the token"):
        HttpTransport("http://hub.example", "t")


def test_a_line_of_1_kb_a_second_that_is_down_90_percent_of_the_time(site, fleet):
    """Everything arrives, once: releases on the device, what it learnt at the hub.

    The line passes 5,000 bytes in each time that it is up, as it would in 5 of every 50 seconds.
    """
    device = site.device()
    big = {f"w{n}": np.random.default_rng(n).normal(size=(40, 32)).astype("f4") for n in range(2)}
    device_big = {n: a + np.float32(0.01) * a for n, a in big.items()}
    with Store.open(device.path) as store:
        store.commit(big, program_hash=PROGRAM, parent=None, metrics={"kind": "shipped"}, live=True)
        site.publish(fleet.pack(big, device_big, 1))
        mine = store.commit(big, program_hash=PROGRAM, parent=2, metrics={}, live=False)
        sent = delta.pack(
            device_big, big, {"program_hash": PROGRAM}, signers=[device.trust.signer()],
            sequence=1, audience="hub:press", device=device.trust.device)
    moved = [0]

    def again(action, progress):
        return patiently(action, tries=1000, base=0.5 / SCALE, cap=5.0 / SCALE, progress=progress)

    with site.hub(), Outbox(device.path) as outbox, BadLine(
            site.port, rate=1000 * SCALE, up=5 / SCALE, down=45 / SCALE) as line:
        way = HttpTransport(f"http://127.0.0.1:{line.port}", device.token.read_text(),
                            outbox=outbox, timeout=40 / SCALE)
        done = again(lambda: pulled(
            device.path, way, outbox, lambda store, path: delta.install(
                store, path.read_bytes(), trust=delta.trust_of(store), shipped=lambda: 1 / 0)),
            lambda: fetched(device.path))
        assert done.action == "live"
        outbox.put(mine.sha256, sent)
        again(lambda: pushed(
            outbox, way, moved=lambda n: moved.__setitem__(0, moved[0] + n)), lambda: moved[0])
        way.close()
        assert line.breaks > 0
    with site.shelf() as shelf:
        (upload,) = shelf.uploads()
        assert delta.read(upload["file"]) == sent
        assert shelf.releases()[0]["reports"] == {"taken": 1}
    assert np.array_equal(adapter_of(device, device.live.id)["w0"], device_big["w0"])
    with Store.open(device.path, readonly=True) as store:
        assert [v.lineage for v in store.versions()].count("fleet") == 1


def test_a_hub_that_is_killed_in_the_middle(site, fleet):
    """Of a package the rest is fetched, whatever the hub was killed in; an upload goes on too."""
    device = site.device()
    package = fleet.pack(weights(0), weights(1), 1)
    site.publish(package)
    hub = site.hub().start()
    try:
        way = HttpTransport(f"http://127.0.0.1:{site.port}", device.token.read_text())
        notice = way.notice()
        (offer,) = notice.offers
        part = device.path.with_name("device.db.inbox")
        part.mkdir()
        (part / f"{offer.sha256}.part").write_bytes(package[:900])
        hub.kill()
        with pytest.raises(LinkError) as failed:
            fetch(device.path, way, offer)
        assert failed.value.again
        hub.start()
        path = fetch(device.path, way, offer)
        assert path.read_bytes() == package
        # The rest only was asked for; whoever changed the part is found out and begins anew.
        path.rename(part / f"{offer.sha256}.part")
        (part / f"{offer.sha256}.part").write_bytes(b"x" * 900)
        with pytest.raises(LinkError, match="not the package"):
            fetch(device.path, way, offer)
        assert fetch(device.path, way, offer).read_bytes() == package
    finally:
        hub.kill()


def test_a_program_comes_the_same_way_no_faster_than_it_may(site, fleet, device_template):
    device = site.device()
    program = device_template.folder / "model.elp"
    package = site.folder / "program.edl"
    pack_program(program, package, signers=[fleet.release_key], sequence=1,
                 audience="fleet:press", created=1.8e9)
    site.publish(package.read_bytes())
    size, began = package.stat().st_size, time.monotonic()
    with site.hub():
        status, said, errors = site.command(
            "pull", device, f"http://127.0.0.1:{site.port}", "--bandwidth", f"{size // 2}")
    assert (status, said and said["action"]) == (0, "live"), errors
    assert time.monotonic() - began > 1.0
    new = Program.load(program).hash
    assert installed_path(device.path, new).read_bytes() == program.read_bytes()
    assert device.live.program_hash == new


def test_while_the_loop_runs_it_waits(site, fleet):
    device = site.device()
    site.publish(fleet.pack(weights(0), weights(1), 1))
    with site.hub():
        with Store.open(device.path):  # the loop
            status, said, _ = site.command("pull", device, f"http://127.0.0.1:{site.port}")
        assert (status, said["action"]) == (0, "waits")
        assert len(list(device.path.with_name("device.db.inbox").glob("*.edl"))) == 1
        assert site.command("pull", device, f"http://127.0.0.1:{site.port}")[1]["action"] == "live"


def test_the_full_package_where_the_parent_is_lost(site, fleet):
    device = site.device(seed=5)  # has another first version than the publisher thought
    site.publish(fleet.pack(weights(0), weights(1), 1))
    url = f"http://127.0.0.1:{site.port}"
    with site.hub():
        status, _, errors = site.command("pull", device, url)
        assert status == 8
        assert "no package that fits" in errors
        site.publish(fleet.pack(None, weights(1), 1))
        assert site.command("pull", device, url)[1]["action"] == "live"
        site.publish(fleet.pack(None, weights(5), 2, codec="none"))
        assert site.command("pull", device, url)[1]["action"] == "live"
    assert device.live.id == 1


def test_a_bad_release_is_reported_and_what_the_loop_found_too(site, fleet, monkeypatch):
    device = site.device()
    other = {"fc.A": weights(1)["fc.A"][:2], "fc.B": weights(1)["fc.B"]}
    site.publish(fleet.pack(None, other, 1))  # other shapes than the program has
    url = f"http://127.0.0.1:{site.port}"
    with site.hub():
        status, _, errors = site.command("pull", device, url)
        assert status == 7
        assert "other names or shapes" in errors
        with Store.open(device.path) as store:
            store.put_kv(REPORTS, json.dumps([[1, "regressed"]]).encode())
        with site.shelf() as shelf:  # said at once, though the pull failed
            assert shelf.releases()[0]["reports"] == {"refused": 1}
        status, _, errors = site.command("pull", device, url)  # not fetched again
        assert status == 8
        assert "no package that fits" in errors
        with site.shelf() as shelf:
            assert shelf.releases()[0]["reports"] == {"regressed": 1}  # a device's last word
        assert site.command("push", device, url)[1]["reports"] == 0


def test_what_the_loop_refused_is_not_fetched_again_but_the_full_package_is(site, fleet):
    """A parent whose bytes rotted while the loop ran: the loop asks for the full package."""
    device = site.device()
    near = {n: a * np.float32(1.001) for n, a in weights(0).items()}
    with Store.open(device.path) as store:
        store.commit(weights(3), program_hash=PROGRAM, parent=1, metrics={}, live=False)
    site.publish(fleet.pack(weights(0), near, 1), fleet.pack(None, near, 1))
    url = f"http://127.0.0.1:{site.port}"
    with site.hub():
        with Store.open(device.path):  # the loop
            assert site.command("pull", device, url)[1]["action"] == "waits"
        (path,) = device.path.with_name("device.db.inbox").glob("*.edl")
        with Store.open(device.path) as store:
            store._db.query("UPDATE version SET adapter = x'00' WHERE id = 1")
            assert take_in(store, lambda: (weights(7), PROGRAM), lambda *_, **__: None)
            assert json.loads(store.kv(REFUSED)) == [path.stem]
        assert site.command("pull", device, url)[1]["action"] == "live"
    assert np.array_equal(adapter_of(device, 3)["fc.A"], near["fc.A"])


def test_what_the_server_will_never_have_does_not_block_the_rest(site, fleet):
    device = site.device()
    device.learn()
    with Outbox(device.path) as outbox:
        outbox.put("alien", fleet.pack(weights(0), weights(1), 1))  # not signed by this device
    with site.hub():
        status, said, _ = site.command("push", device, f"http://127.0.0.1:{site.port}")
    assert status == 1
    assert (said["packages"], [r[0] for r in said["refused"]]) == (1, ["alien"])
    with site.shelf() as shelf:
        assert len(shelf.uploads()) == 1


def test_what_was_new_before_the_device_was_enrolled_again_is_not_refused(site, fleet):
    """A device that begins anew knows how far releases had come: that is no bad release."""
    device = site.device()
    site.publish(fleet.pack(weights(0), weights(1), 1))
    url = f"http://127.0.0.1:{site.port}"
    with site.hub():
        assert site.command("pull", device, url)[1]["action"] == "live"
        trust = Trust.enroll(device.path, fleet.root, again=True, sequence=1)
        with Store.open(device.path) as store:
            delta.note(store, trust)
        with site.shelf() as shelf:
            device.token.write_text(shelf.add_device("device2", trust.signer().public))
        assert site.command("pull", device, url)[1]["action"] == "nothing"
        site.publish(fleet.pack(weights(1), weights(2), 2))
        assert site.command("pull", device, url)[1]["action"] == "live"
    with site.shelf() as shelf:
        assert [r["reports"] for r in shelf.releases()] == [{"taken": 1}, {"taken": 1}]


def test_a_rollout_that_holds_back(site, fleet):
    device = site.device()
    site.publish(fleet.pack(weights(0), weights(1), 1), percent=0.0)
    with site.hub():
        said = site.command("pull", device, f"http://127.0.0.1:{site.port}")[1]
    assert (said["action"], said["sequence"], said["held_back"]) == ("nothing", None, True)


class Frozen(http.server.BaseHTTPRequestHandler):
    """Somebody on the way who plays back what a hub once said, or lies."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict] = {}

    def do_GET(self):
        status, body, *headers = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_): ...


@pytest.fixture
def liar():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Frozen)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Frozen.answers = {}
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def visit(device, port):
    with Outbox(device.path) as outbox:
        way = HttpTransport(f"http://127.0.0.1:{port}", "t", outbox=outbox)
        try:
            return pulled(device.path, way, outbox, lambda *_: pytest.fail("nothing may come"))
        finally:
            way.close()


def test_a_frozen_server_cannot_say_that_it_is_fresh(site, fleet, liar):
    device = site.device()
    with site.shelf() as shelf:
        old = shelf.answer(device.trust.device, "0" * 32)
    Frozen.answers = {"/v1/fresh": (200, old)}
    with pytest.raises(TrustError, match="another question"):
        visit(device, liar)
    with Outbox(device.path) as outbox:
        assert outbox.fact("fresh") is None  # nobody has told this device anything


def test_the_control_a_server_that_repeats_the_nonce(site, fleet, liar, monkeypatch):
    device = site.device()
    monkeypatch.setattr(Trust, "question", lambda _: "0" * 32)  # a nonce that can be foreseen
    with site.shelf() as shelf:
        Frozen.answers = {"/v1/fresh": (200, shelf.answer(device.trust.device, "0" * 32))}
    assert visit(device, liar).action == "nothing"
    with Outbox(device.path) as outbox:
        assert outbox.fact("fresh") is not None


@pytest.mark.parametrize(("answers", "said"), [
    ({"/v1/latest": (200, b"{}")}, "notice cannot be read"),
    ({"/v1/latest": (200, b"[" * 9000)}, "notice cannot be read"),
    ({"/v1/latest": (200, b" " * (200 << 10))}, "more than the"),
    ({"/v1/latest": (500, b"oops")}, "500: oops"),
    ({"/v1/root/2": (200, b"{}")}, "DSSE"),
])
def test_servers_that_lie_or_stumble(site, fleet, liar, answers, said, monkeypatch):
    device = site.device()
    monkeypatch.setattr(Trust, "question", lambda _: "0" * 32)
    with site.shelf() as shelf:
        Frozen.answers = {
            "/v1/fresh": (200, shelf.answer(device.trust.device, "0" * 32))} | answers
    with pytest.raises((LinkError, TrustError), match=said):
        visit(device, liar)
    assert device.live.id == 1


def test_packages_that_grow_or_lie_on_the_way(site, fleet, liar):
    device = site.device()
    way = HttpTransport(f"http://127.0.0.1:{liar}", "t")
    digest = "a" * 64
    offer = Offer(digest, 100, "full", None)
    for answer, said in (
        ((200, bytes(1 << 20)), "more than the 100 bytes"),
        ((200, bytes(50)), "before all of the package"),
        ((200, bytes(100)), "not the package"),
    ):
        Frozen.answers = {f"/v1/packages/{digest}": answer}
        for old in device.path.parent.glob("device.db.inbox/*"):
            old.unlink()
        with pytest.raises(LinkError, match=said):
            fetch(device.path, way, offer)
    part = device.path.with_name("device.db.inbox") / f"{digest}.part"
    for answer, said in (
        ((206, bytes(50), ("Content-Range", "bytes 0-49/100")), "another range"),
        ((206, bytes(50)), "another range"),
        ((200, bytes(100)), "cannot go on"),
    ):
        part.write_bytes(bytes(50))
        Frozen.answers = {f"/v1/packages/{digest}": answer}
        with pytest.raises(LinkError, match=said):
            fetch(device.path, way, offer)
    with pytest.raises(LinkError, match="too large"):
        fetch(device.path, way, Offer(digest, 1 << 40, "full", None))
    way.close()


def test_requests_that_a_hub_refuses(site, fleet):
    import http.client

    device = site.device()
    head = {"Authorization": f"Bearer {device.token.read_text()}"}
    with site.hub():
        link = http.client.HTTPConnection("127.0.0.1", site.port)

        def ask(method, path, body=None, **headers):
            link.request(method, path, body, head | headers)
            answer = link.getresponse()
            answer.read()
            return answer.status

        assert ask("GET", "/v1/latest", Authorization="Bearer x") == 401
        assert ask("GET", "/v1/latest", Authorization="Basic x") == 401
        assert ask("GET", "/v1/packages/..%2f..%2fhub.db") == 404
        assert ask("GET", "/v1/packages/" + "a" * 64) == 404
        assert ask("GET", "/v1/packages/fresh.key") == 404
        assert ask("POST", "/v1/fresh", b"[]") == 400
        assert ask("POST", "/v1/fresh", b"{") == 400
        assert ask("POST", "/v1/fresh", json.dumps({"nonce": "x"})) == 400
        assert ask("POST", "/v1/fresh", b"[" * 100000) == 400
        assert ask("POST", "/v1/fresh", b" " * (200 << 10)) == 413
        assert ask("POST", "/v1/reports", b"{}") == 400
        assert ask("POST", "/v1/reports", json.dumps({"sequence": 9, "outcome": "taken"})) == 404
        assert ask("HEAD", "/v1/uploads/" + "a" * 64) == 400
        assert ask("PATCH", f"/v1/uploads/{'a' * 64}?size=9", b"123") == 400
        assert ask("PATCH", f"/v1/uploads/{'a' * 64}?size=9", b"x" * (2 << 20)) in (400, 413)
        link.close()
