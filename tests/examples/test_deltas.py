"""Signed packages between consecutive versions of the keyword demo are as small as promised."""

from __future__ import annotations

import itertools
import sys

import pytest
from tests.trust.fleet import new_key

from edgeloop import delta
from edgeloop.store import Store

sys.path.insert(0, "examples/keyword")
import demo


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """The demo's own device, told to take smaller steps: several versions one after another."""
    folder = tmp_path_factory.mktemp("kws")
    demo.compile_program(folder)
    text = (demo.HERE / "loop.toml").read_text().replace('"clips/', f'"{demo.HERE}/clips/')
    for key, value in (("samples", 24), ("epochs", 2), ("min_samples", 8), ("confidence", 0.5),
                       ("ram", '"1 GiB"')):
        text = "\n".join(
            f"{key} = {value}" if line.split(" = ")[0] == key else line
            for line in text.splitlines())
    (folder / "loop.toml").write_text(text)
    from edgeloop import loop

    loop.run(folder / "loop.toml")
    with Store.open(folder / "device.db", readonly=True) as store:
        return [(v, store.adapter(v.id)) for v in store.versions()]


def test_there_are_versions_to_compare(versions):
    assert len(versions) >= 3


@pytest.mark.parametrize(("codec", "share"), [("exact", 0.85), ("int8", 0.30)])
def test_sizes(versions, codec, share):
    key = new_key()
    for (_, before), (version, after) in itertools.pairwise(versions):
        package = delta.pack(
            before, after,
            {"program_hash": version.program_hash, "device_id": "0" * 32, "samples": 64,
             "data_hmac": "0" * 64, "training_seconds": 1.234567, "version": version.id},
            codec=codec, signers=[key], sequence=1000, audience="fleet:factory-floor",
            created=1.8e9)
        raw = sum(a.nbytes for a in after.values())
        assert len(package) <= share * raw + 1024, (codec, len(package), raw)
