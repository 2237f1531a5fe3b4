"""`edgeloop serve` as a process: it answers while its loop learns, and ends in order."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import urllib.error
import urllib.request

import pytest
from tests.conftest import LOOP
from tests.serve.parts import request, rows

from edgeloop.errors import StateError
from edgeloop.loop import Config
from edgeloop.serve import Predictor
from edgeloop.serve.run import Learning
from edgeloop.store import Store


class Process:
    """A server as a user starts it, and its lines as they come."""

    def __init__(self, device, *args):
        self.process = subprocess.Popen(
            device.command("serve", "loop.toml", "--port", "0", *args), cwd=device.folder,
            env=device.environment() | {"PYTHONUNBUFFERED": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines, self.all = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.wait("serving model on ").rpartition(" ")[2]

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip())

    def wait(self, begin):
        while True:
            for line in self.all:
                if line.startswith(begin):
                    return line
            self.all.append(self.lines.get(timeout=60))

    def infer(self):
        return self.ask("infer", request(rows()))

    def ask(self, what, body):
        asked = urllib.request.Request(
            f"{self.url}/v2/models/model/{what}", json.dumps(body).encode(),
            {"Authorization": "Bearer secret"})
        with urllib.request.urlopen(asked, timeout=30) as got:
            return json.loads(got.read())

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode, errors


def test_it_answers_while_the_loop_learns_and_after_its_stream_ended(device):
    server = Process(device)
    assert server.infer()["outputs"][0]["shape"] == [3, 4]
    server.wait("promoted")
    version = int(server.infer()["model_version"])
    assert version >= 1
    server.wait("ended")
    with Store.open(device.state, readonly=True) as store:
        live = store.live().id
    assert server.infer()["model_version"] == str(live)
    assert server.end()[0] == 0
    with Store.open(device.state, readonly=True) as store:
        assert store.live().id == live


def test_predictions_outlive_a_loop_that_fails(device):
    text = LOOP.replace('label = "label"', 'label = "wat"')
    (device.folder / "loop.toml").write_text(
        f'{text}[serve]\nfeedback = 9\ntoken_file = "token"\n')
    (device.folder / "token").write_text("secret")
    (device.folder / "token").chmod(0o600)
    server = Process(device)
    assert "has no column 'wat'" in server.wait("failed")
    assert server.infer()["model_version"] == "0"
    with pytest.raises(urllib.error.HTTPError, match="503"):
        server.ask("feedback", {"id": "q", "label": 1})
    assert server.end(signal.SIGINT)[0] == 0


def test_a_device_may_learn_from_feedback_alone(device):
    """What a client labelled is in the state when the server has ended, and can be forgotten."""
    head, _, rest = LOOP.partition("[source]")
    (device.folder / "loop.toml").write_text(
        head + '[source]\nkind = "none"\n' + rest[rest.index("[trigger]"):]
        + '[serve]\nfeedback = 50\ntoken_file = "token"\n')
    (device.folder / "token").write_text("ann:secret")
    (device.folder / "token").chmod(0o600)
    server = Process(device)
    for i in range(5):
        made = server.ask("infer", {**request(rows(1, seed=i)), "id": f"q{i}"})
        assert server.ask("feedback", {"id": made["id"], "label": "mill"}) == {"taken": True}
    assert server.end()[0] == 0
    with Store.open(device.state, readonly=True) as store:
        assert [s.y for s in store.samples("train")] == [2] * 5
    done = device.run("forget", "loop.toml", "--source", "feedback/ann", "--json")
    assert json.loads(done.stdout)["samples"] == 5


def test_without_a_loop(device):
    server = Process(device, "--no-loop")
    assert server.infer()["model_version"] == "0"
    assert server.end()[0] == 0
    assert not any(line.startswith("start") for line in server.all)


def test_what_is_open_to_others_is_refused(device):
    done = device.run("serve", "loop.toml", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "can be reached from other machines" in done.stderr


def test_a_port_that_is_taken_is_said(device):
    server = Process(device, "--no-loop")
    port = server.url.rpartition(":")[2]
    done = device.run("serve", "loop.toml", "--no-loop", "--port", port)
    assert done.returncode != 0
    assert "in use" in done.stderr
    server.end()


@pytest.mark.parametrize("early", [True, False])
def test_a_loop_told_to_stop_suspends_and_goes_on(device, early):
    config = Config.load(device.folder / "loop.toml")
    told, seen = [], threading.Event()

    def tell(kind, **_):
        told.append(kind)
        if kind == "epoch":
            seen.set()

    learner = Learning(config, Predictor(device.folder / "model.elp", device.state), tell)
    learner.start()
    if not early:
        assert seen.wait(30)
    learner.stop()
    assert not learner.is_alive()
    assert told[-1] == "ended"
    with Store.open(device.state, readonly=True) as store:
        assert store.has_job() or early or "promoted" in told or "rejected" in told


def test_a_predictor_that_cannot_look_does_not_end_the_loop(device):
    class Blind(Predictor):
        def refresh(self):
            raise StateError("cannot be read")

    told = []
    blind = object.__new__(Blind)
    learner = Learning(
        Config.load(device.folder / "loop.toml"), blind, lambda kind, **_: told.append(kind))
    learner.run()
    assert "promoted" in told
    assert told[-1] == "ended"
