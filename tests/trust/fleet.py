"""A fleet with its keys, and devices of it, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeloop import delta
from edgeloop.store import Store
from edgeloop.trust import FileKey, Release, Root, Trust

PROGRAM = "ab" * 32


class AnyDigest(str):
    """Equal to every digest: what a check of hashes is when it is switched off."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def new_key():
    return FileKey(Ed25519PrivateKey.generate())


class Fleet:
    """Keys of the roles, and the first root document."""

    def __init__(self, name="press"):
        self.name = name
        self.root_key, self.release_key, self.fresh_key = new_key(), new_key(), new_key()
        self.root = self.document(1)

    def document(self, version, *, root=None, release=None, signers=None, name=None):
        keys = {
            "root": [root or self.root_key.public],
            "release": release or [self.release_key.public],
            "fresh": [self.fresh_key.public],
        }
        made = Root.of(name or self.name, version, keys)
        return made.sign(signers or [self.root_key])

    def pack(
        self, parent, adapter, sequence, *, codec="exact", signers=None, audience=None, **more
    ):
        return delta.pack(
            parent, adapter, {"program_hash": more.pop("program", PROGRAM)}, codec=codec,
            signers=[self.release_key] if signers is None else signers, sequence=sequence,
            audience=audience or f"fleet:{self.name}", **({"created": 1.8e9} | more))

    def release(self, sequence, **changed):
        fields = {"kind": delta.DELTA, "sequence": sequence, "audience": f"fleet:{self.name}",
                  "program": PROGRAM, "result": "cd" * 32} | changed
        return Release(**fields)


def weights(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {"fc.A": (scale * rng.normal(size=(4, 32))).astype("f4"),
            "fc.B": (scale * rng.normal(size=(16, 4))).astype("f4")}


class Device:
    """A state file of the fleet with a shipped version; `install` takes packages."""

    def __init__(self, folder: Path, fleet: Fleet | None, name="device.db", *, seed=0):
        self.path = folder / name
        with Store.open(self.path) as store:
            store.commit(weights(seed), program_hash=PROGRAM, parent=None,
                         metrics={"kind": "shipped"}, live=True)
            if fleet is not None:
                delta.note(store, Trust.enroll(self.path, fleet.root))

    def learn(self, seed=99):
        """What the loop does: a version of its own, live."""
        with Store.open(self.path) as store:
            live = store.live()
            return store.commit(weights(seed), program_hash=PROGRAM, parent=live.id, metrics={},
                                live=True).id

    def install(self, package, **more):
        with Store.open(self.path) as store:
            return delta.install(store, package, trust=delta.trust_of(store),
                                 shipped=lambda: (weights(0), PROGRAM), **more)

    @property
    def live(self):
        with Store.open(self.path, readonly=True) as store:
            return store.live()

    @property
    def trust(self):
        return Trust(self.path)
