import pytest
from tests.serve.parts import Served

from edgeloop.program import Program
from edgeloop.runtime import Session
from edgeloop.store import Store


@pytest.fixture
def learnt(device):
    """A device whose live version is number 2; version 1 is what the program shipped with."""
    program = Program.load(device.folder / "model.elp")
    adapter = Session(program).adapter()
    with Store.open(device.state) as store:
        first = store.commit(adapter, program_hash=program.hash, parent=None, metrics={},
                             live=True, label="shipped")
        store.commit({k: a + 0.1 for k, a in adapter.items()}, program_hash=program.hash,
                     parent=first.id, metrics={}, live=True, label="better")
    return device.folder


@pytest.fixture
def served(learnt):
    with Served(learnt) as server:
        yield server


class Clock:
    """Stands still until `now` is set."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()
