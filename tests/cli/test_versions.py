"""versions, show, promote, rollback, pin, label, gc, export and import of the whole state."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.cli.test_state_commands import HASH, commit, refused, run_json, weights

from edgeloop.cli import main
from edgeloop.store import Store


@pytest.fixture
def state(tmp_path):
    """Four versions, the third live; the second arrived from elsewhere."""
    with Store.open(tmp_path / "device.db") as store:
        commit(store, 1)
        store.commit(weights(2), program_hash=HASH, parent=1, metrics={}, live=False,
                     lineage="fleet", label="spring")
        commit(store, 3, 1)
        commit(store, 4, 3, live=False)
    return str(tmp_path / "device.db")


def ids(state):
    with Store.open(state, readonly=True) as store:
        return [v.id for v in store.versions()], store.live().id


def rot(state, number):
    db = sqlite3.connect(state)
    db.execute("UPDATE version SET adapter = zeroblob(length(adapter)) WHERE id = ?", (number,))
    db.commit()
    db.close()


def test_the_list_tells_lineages_labels_and_pins(state, capsys):
    main(["pin", state, "--id", "2"])
    capsys.readouterr()
    found = run_json(capsys, "versions", state)[1]["versions"]
    assert [(v["lineage"], v["label"], v["pinned"], v["codec"]) for v in found] == [
        ("local", None, False, "f32"), ("fleet", "spring", True, "f32"),
        ("local", None, False, "f32"), ("local", None, False, "f32")]
    main(["versions", state])
    text = capsys.readouterr().out
    assert all(word in text for word in ("fleet", "spring", "pinned"))


def test_show(state, capsys):
    status, value = run_json(capsys, "show", state)
    assert (status, value["id"], value["ancestors"], value["intact"]) == (0, 3, [1], True)
    assert run_json(capsys, "show", state, "--id", "4")[1]["ancestors"] == [3, 1]
    main(["show", state])
    assert "local: 3 < 1" in capsys.readouterr().out
    rot(state, 4)
    assert run_json(capsys, "show", state, "--id", "4")[1]["intact"] is False
    assert "no version 9" in refused(capsys, 4, "show", state, "--id", "9")


def test_promote_never_a_damaged_version(state, capsys):
    assert run_json(capsys, "promote", state, "--id", "2") == (0, {"from": 3, "live": 2})
    rot(state, 4)
    for command in (("promote", state, "--id", "4"), ("rollback", state, "--to", "4")):
        assert "version 4 lost" in refused(capsys, 4, *command)
    assert ids(state)[1] == 2
    with Store.open(state, readonly=True) as store:
        assert [e.kind for e in store.events()] == ["promote"]


def test_gc_keeps_what_is_pinned_live_and_its_parent(state, capsys):
    assert "--keep N, --quota SIZE" in refused(capsys, 2, "gc", state)
    assert run_json(capsys, "pin", state, "--id", "2") == (0, {"version": 2, "pinned": True})
    status, value = run_json(capsys, "gc", state, "--quota", "1")
    assert (status, value["dropped"], value["left"]) == (0, [4], [1, 2, 3])
    assert run_json(capsys, "pin", state, "--id", "2", "--off")[1]["pinned"] is False
    assert run_json(capsys, "gc", state, "--keep", "1")[1]["dropped"] == [2]
    assert ids(state) == ([1, 3], 3)


def test_label(state, capsys):
    assert run_json(capsys, "label", state, "--text", "night shift")[1] == {
        "version": 3, "label": "night shift"}
    assert run_json(capsys, "label", state, "--text", "")[1]["label"] is None


def test_the_whole_state_out_and_in_again(state, tmp_path, capsys):
    copy = str(tmp_path / "copy.db")
    status, value = run_json(capsys, "export", state, "--format", "state", "-o", copy)
    assert (status, value["version"]) == (0, 3)
    main(["promote", state, "--id", "2"])
    capsys.readouterr()
    status, value = run_json(capsys, "import", copy, state)
    assert (status, value["live"]) == (0, 3)
    assert ids(state) == ([1, 2, 3, 4], 3)
    assert ids(value["replaced"])[1] == 2
    rot(copy, 1)
    assert "is damaged: version 1" in refused(capsys, 4, "import", copy, state)
    assert "does not exist" in refused(capsys, 4, "import", str(tmp_path / "none.db"), state)
    rot(state, 2)
    assert "damaged are version 2" in refused(
        capsys, 4, "export", state, "--format", "state", "-o", copy)


def test_purge_takes_the_copies_along(state, tmp_path, capsys):
    with Store.open(state) as store:
        store.copy_to(Path(f"{state}.backup"))
    main(["import", f"{state}.backup", state])
    main(["uninstall", state, "--purge"])
    capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
