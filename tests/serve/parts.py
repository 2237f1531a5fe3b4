"""A real server in a thread, over a device that has learnt something."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading

import numpy as np
from tests.conftest import WIDTH

from edgeloop.data.inbox import Inbox
from edgeloop.loop import Config
from edgeloop.serve import Predictor
from edgeloop.serve.metrics import Metrics
from edgeloop.serve.run import desk_of, server_of


class Served:
    """A server of a device's folder; `table` is its [serve]."""

    def __init__(self, folder, **table):
        data = {"model": {"program": "model.elp"}, "state": {"path": "device.db"},
                "serve": {"port": 0} | table}
        self.config = Config.from_dict(data, root=folder)
        self.predictor = Predictor(folder / "model.elp", folder / "device.db", every=1e9)
        self.inbox = Inbox()
        desk = desk_of(self.config, self.predictor, self.inbox)
        self.server = server_of(self.config, self.predictor, Metrics(), desk)
        self.url, self._listens = "", threading.Event()
        self.server.on_listen = self._told
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def _told(self, url):
        self.url = url
        self._listens.set()

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def __enter__(self):
        self._thread.start()
        assert self._listens.wait(30)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ask(self, method, path, body=None, **headers):
        """Status, JSON and headers of an answer."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(line):
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            line.request(method, path, data,
                         {k.replace("_", "-"): v for k, v in headers.items()})
            response = line.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None, response.headers


def rows(n=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


def request(x, name="x"):
    return {"inputs": [{"name": name, "shape": list(x.shape), "datatype": "FP32",
                        "data": x.reshape(-1).tolist()}]}
