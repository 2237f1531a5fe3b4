"""A learner small enough to read at a glance, a stream to learn from, and loops around both."""

import contextlib
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from edgeloop.data.sources import IterableSource
from edgeloop.errors import NonFiniteError
from edgeloop.loop import Config, Loop
from edgeloop.store import Store, Version

CLASSES, WIDTH, BATCH = 4, 6, 4


class Softmax:
    """Softmax regression with momentum: the methods of a session, in NumPy."""

    def __init__(self, start=None):
        self.w = np.zeros((CLASSES, WIDTH), np.float32) if start is None else start.copy()
        self.m = np.zeros_like(self.w)
        self.steps = 0
        self.lr = 0.1

    @property
    def work(self):
        return 100 * self.steps, 400 * self.steps

    def _logits(self, x):
        return x.reshape(len(x), -1) @ self.w.T

    def _loss(self, x, y):
        z = self._logits(x)
        z = z - z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        return p, float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())

    def step(self, x, y):
        p, loss = self._loss(x, y)
        if not np.isfinite(loss):
            raise NonFiniteError("loss is not finite")
        p[np.arange(len(y)), y] -= 1
        grad = p.T @ x.reshape(len(x), -1) / np.float32(len(y))
        self.m = np.float32(0.9) * self.m + grad
        self.w = self.w - np.float32(self.lr) * self.m
        self.steps += 1
        return loss

    def predict(self, x):
        return self._logits(x)

    def evaluate(self, x, y):
        return self._loss(x, y)[1], {}

    def adapter(self):
        return {"w": self.w.copy()}

    def load_adapter(self, adapter):
        self.w = adapter["w"].copy()

    def snapshot(self):
        return pickle.dumps((self.w, self.m, self.steps))

    def restore(self, snapshot):
        self.w, self.m, self.steps = pickle.loads(snapshot)


def stream(n, *, seed=1, truth_seed=7, shuffled=False, noise=0.3):
    """Pairs (x [WIDTH], class): the class is the row of a fixed matrix that x is nearest to."""
    r = np.random.default_rng(seed)
    centres = np.random.default_rng(truth_seed).normal(size=(CLASSES, WIDTH)).astype(np.float32)
    y = r.permutation(np.arange(n) % CLASSES)
    x = centres[y] + noise * r.normal(size=(n, WIDTH)).astype(np.float32)
    if shuffled:
        y = r.permutation(y)
    return [(x[i].astype(np.float32), int(y[i])) for i in range(n)]


def make_config(**sections):
    data = {
        "model": {"program": "none.elp"},
        "source": {"kind": "stdin"},
        "buffer": {"capacity": 32, "rehearsal": 24, "validation": 16},
        "trigger": {"samples": 24},
        "train": {"epochs": 4, "checkpoint_every": 3, "lr": 0.1},
        "gate": {"min_samples": 8},
    }
    for name, keys in sections.items():
        data[name] = {**data.get(name, {}), **keys}
    return Config.from_dict(data, root=Path(), name="loop.toml")


def make_loop(store, data, config=None, **options):
    config = config or make_config()
    options = {"source": IterableSource(data), "program_hash": "p" * 64,
               "wall": lambda: 0.0} | options
    return Loop(
        config,
        store=store,
        learner=Softmax(),
        predictor=Softmax(),
        batch=BATCH,
        shape=(WIDTH,),
        prepare=lambda x: x,
        **options,
    )


class MemoryStore:
    """The part of a store that the loop uses, without a disk: for runs by the hundred."""

    def __init__(self):
        self._versions, self._kv, self._job, self._live = [], {}, None, None
        self.path = Path("nowhere.db")

    def transaction(self):
        return contextlib.nullcontext()

    def commit(
        self, adapter, *, program_hash, parent, metrics, live, finish_job=False, codec="f32",
        lesson=(),
    ):
        number = len(self._versions) + 1
        version = Version(number, parent, program_hash, "", metrics, 0.0, live, 0)
        self._versions.append((version, adapter))
        self._live = number if live else self._live
        self._job = None if finish_job else self._job
        return version

    def live(self):
        return self._versions[self._live - 1][0] if self._live else None

    def adapter(self, number):
        return self._versions[number - 1][1]

    def job(self):
        return self._job

    def save_job(self, job):
        self._job = job

    def clear_job(self):
        self._job = None

    def kv(self, key):
        return self._kv.get(key)

    def put_kv(self, key, value):
        self._kv[key] = value

    def drop_kv(self, key):
        self._kv.pop(key, None)

    def put_samples(self, items): ...

    def drop_samples(self, name, keys=None): ...

    def event(self, kind, detail): ...

    def gc(self, *, keep, quota): ...

    def arrived(self, keys, source): ...

    def tidy_arrivals(self): ...


class Kit:
    """What the tests of this room share."""

    Softmax = Softmax
    MemoryStore = MemoryStore
    stream = staticmethod(stream)
    config = staticmethod(make_config)
    loop = staticmethod(make_loop)
    classes, width, batch = CLASSES, WIDTH, BATCH
    replace = staticmethod(dataclasses.replace)


@pytest.fixture(scope="session")
def kit():
    return Kit


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "device.db") as store:
        yield store
