"""Predictions in programs of one's own: the examples, as a user runs them."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import CLASSES, WIDTH
from tests.link.parts import Process, free_port

from edgeloop.store import Store

HERE = Path(__file__).parents[2] / "examples/serving"


@pytest.fixture
def learnt(device):
    """A device that has learnt from its stream."""
    assert device.run("run", "loop.toml").returncode == 0
    with Store.open(device.state, readonly=True) as store:
        assert store.live().id > 1
    return device


def test_a_plain_program_answers_with_the_version_that_is_live(learnt):
    rows = np.random.default_rng(0).normal(size=(3, WIDTH))
    done = subprocess.run(
        [sys.executable, HERE / "plain.py", "model.elp", "device.db"], cwd=learnt.folder,
        env=learnt.environment(), text=True, capture_output=True, check=False,
        input="".join(",".join(map(str, row)) + "\n" for row in rows))
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    with Store.open(learnt.state, readonly=True) as store:
        assert {version for _, version in said} == {str(store.live().id)}
    assert len(said) == 3
    assert {name for name, _ in said} <= set(CLASSES)


def test_a_fastapi_application(learnt):
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", HERE, "fastapi_app:app", "--port",
               port, "--log-level", "warning"]
    environment = {**os.environ, **learnt.environment(), "PROGRAM": "model.elp",
                   "STATE": "device.db"}
    with Process(command, port, cwd=learnt.folder, env=environment):

        def ask(rows):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            line.request("POST", "/classify", json.dumps({"rows": rows}),
                         {"Content-Type": "application/json"})
            response = line.getresponse()
            found = response.status, json.loads(response.read())
            line.close()
            return found

        status, answer = ask(np.random.default_rng(0).normal(size=(2, WIDTH)).tolist())
        assert status == 200
        assert len(answer["classes"]) == 2
        assert answer["version"] > 1
        assert ask([[1.0] * 3])[0] == 422
        assert ask([[1.0], [1.0, 2.0]])[0] == 422
