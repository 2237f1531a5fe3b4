"""Keys, enrolment, release, rollback, rotation: the whole way by the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.trust.fleet import PROGRAM, weights

from edgeloop.beside import JOURNAL
from edgeloop.cli import main
from edgeloop.store import Store


def run_json(capsys, *args):
    status = main([*map(str, args), "--json"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A publisher's folder with keys and root, and two devices that share their first version."""
    monkeypatch.chdir(tmp_path)
    for name in ("root", "release", "hub"):
        assert main(["keys", "new", f"{name}.key"]) == 0
    assert main(["keys", "root", "-o", "root.json", "--fleet", "press", "--root", "root.key.pub",
                 "--release", "release.key.pub", "--fresh", "hub.key.pub",
                 "--sign", "root.key"]) == 0
    for name in ("publisher.db", "device.db"):
        with Store.open(name) as store:
            store.commit(weights(0), program_hash=PROGRAM, parent=None,
                         metrics={"kind": "shipped"}, live=True)
    with Store.open("publisher.db") as store:
        store.commit(weights(1), program_hash=PROGRAM, parent=1, live=True,
                     metrics={"samples": 32, "data_sha256": "00ff", "training_seconds": 2.5})
    capsys.readouterr()
    return tmp_path


def pack(capsys, number, *more, out="r.edl"):
    return run_json(capsys, "pack", "publisher.db", "-o", out, "--key", "release.key",
                    "--sequence", number, "--audience", "fleet:press", *more)


def test_from_keys_to_a_release_that_is_live(place, capsys):
    status, enrolled = run_json(capsys, "enroll", "device.db", "--root", "root.json")
    assert (status, enrolled["fleet"], enrolled["sequence"]) == (0, "press", 0)
    status, packed = pack(capsys, 1)
    assert (status, packed["sequence"]) == (0, 1)
    assert set(packed["metadata"]) >= {"samples", "training_seconds", "data_hmac", "device_id"}
    status, judged = run_json(capsys, "verify", "r.edl", "device.db")
    assert (status, judged["believed"], judged["again"]) == (0, True, False)
    assert run_json(capsys, "apply", "r.edl", "device.db")[1] == {
        "version": 2, "live": True, "parent": 1, "action": "live"}
    assert run_json(capsys, "apply", "r.edl", "device.db")[1]["action"] == "again"
    assert run_json(capsys, "verify", "r.edl", "device.db")[1]["again"] is True
    with Store.open("device.db", readonly=True) as store:
        assert np.array_equal(store.adapter(2)["fc.A"], weights(1)["fc.A"])
        assert store.version(2).metrics["sequence"] == 1


def test_a_rollback_and_a_full_package(place, capsys):
    main(["enroll", "device.db", "--root", "root.json"])
    for args, said in ((("1",), "live"), (("2", "--back", "--new", "1"), "live"),
                       (("3", "--full", "--codec", "f16", "--expires", "2099-01-01"), "live")):
        assert pack(capsys, *args)[0] == 0
        assert run_json(capsys, "apply", "r.edl", "device.db")[1]["action"] == said
    with Store.open("device.db", readonly=True) as store:
        assert [(v.id, v.live) for v in store.versions()] == [(1, False), (2, False), (3, True)]


def refused(capsys, status, *args):
    capsys.readouterr()
    assert main([*map(str, args)]) == status
    return capsys.readouterr().err


def test_what_is_refused_says_why(place, capsys):
    main(["enroll", "device.db", "--root", "root.json"])
    pack(capsys, 1, out="one.edl")
    pack(capsys, 2, out="two.edl")
    assert main(["apply", "two.edl", "device.db"]) == 0
    assert "not newer than 2" in refused(capsys, 7, "apply", "one.edl", "device.db")
    assert "not newer than 2" in refused(capsys, 7, "verify", "one.edl", "device.db")
    assert main(["verify", "one.edl"]) == 0
    assert "who made it was not asked" in capsys.readouterr().out
    run_json(capsys, "pack", "publisher.db", "-o", "plain.edl")
    assert "signed by nobody" in refused(capsys, 7, "apply", "plain.edl", "device.db")
    assert "all of --key" in refused(
        capsys, 2, "pack", "publisher.db", "-o", "x", "--key", "release.key")
    assert "enrolled already" in refused(capsys, 7, "enroll", "device.db", "--root", "root.json")
    assert "cannot be read" in refused(capsys, 4, "enroll", "device.db", "--root", "none")


def test_a_new_root_and_a_lost_journal(place, capsys):
    main(["enroll", "device.db", "--root", "root.json"])
    pack(capsys, 4)
    assert main(["apply", "r.edl", "device.db"]) == 0
    (place / f"device.db{JOURNAL}").unlink()
    pack(capsys, 5)
    assert "is missing" in refused(capsys, 7, "apply", "r.edl", "device.db")
    assert main(["status", "device.db"]) == 0  # the loop and what it learnt are not affected
    capsys.readouterr()
    status, again = run_json(capsys, "enroll", "device.db", "--root", "root.json", "--again")
    assert (status, again["sequence"]) == (0, 4)  # the state still knew how far releases had come
    pack(capsys, 3, out="old.edl")
    assert "not newer than 4" in refused(capsys, 7, "apply", "old.edl", "device.db")
    assert main(["apply", "r.edl", "device.db"]) == 0


def test_keys_and_documents_are_shown(place, capsys):
    assert run_json(capsys, "keys", "show", "release.key")[1] == run_json(
        capsys, "keys", "show", "release.key.pub")[1]
    shown = run_json(capsys, "keys", "show", "root.json")[1]
    assert (shown["fleet"], shown["root document"]) == ("press", 1)
    main(["enroll", "device.db", "--root", "root.json"])
    capsys.readouterr()
    assert run_json(capsys, "keys", "show", "device.db")[1]["release"] == 0
    assert main(["keys", "new", "release2.key"]) == 0
    capsys.readouterr()
    status, second = run_json(
        capsys, "keys", "root", "-o", "root2.json", "--after", "root.json", "--root",
        "root.key.pub", "--release", "release2.key.pub", "--sign", "root.key")
    assert (status, second["version"]) == (0, 2)
    for args, said in (
        (("--fleet", "x", "--after", "root.json"), "names its --fleet"),
        (("--fleet", "x", "--threshold", "root=two"), "ROLE=N"),
        (("--fleet", "x", "--threshold", "root=2"), "must sign as root"),
        (("--fleet", "x"), "one key in two roles"),
    ):
        wrong = ("--root", "root.key") if "one key" in said else ()
        status = 2 if "names" in said or "ROLE" in said else 7
        assert said in refused(
            capsys, status, "keys", "root", "-o", "bad.json", "--root", "root.key", "--release",
            "root.key" if wrong else "release.key", "--sign", "root.key", *args)
    assert not (place / "bad.json").exists()


def test_a_key_file_is_never_replaced(place, capsys):
    before = (place / "hub.key").read_bytes()
    assert "exists already" in refused(capsys, 2, "keys", "new", "hub.key")
    assert (place / "hub.key").read_bytes() == before
