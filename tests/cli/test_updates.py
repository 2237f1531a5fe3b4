"""What status says of updates, what uninstall removes of them; the hub's own commands."""

from __future__ import annotations

import json

from tests.trust.fleet import weights

from edgeloop.cli import main
from edgeloop.link import fresh
from edgeloop.store import Outbox, Store
from edgeloop.trust import new_key
from edgeloop.trust.keys import public_text


def run_json(capsys, *args):
    capsys.readouterr()
    status = main([*map(str, args), "--json"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_status_says_when_nobody_was_heard(site, capsys, monkeypatch, tmp_path):
    device = site.device()
    assert run_json(capsys, "status", device.path)[1]["updates"]["silence_seconds"] is None
    with Outbox(device.path) as outbox:
        fresh.heard(outbox, ("boot", 0.0))
    monkeypatch.setattr(fresh, "boot", lambda: ("boot", 10 * 3600.0))
    status, said = run_json(capsys, "status", device.path)
    assert (status, said["updates"]["stale"]) == (0, False)
    config = tmp_path / "loop.toml"
    config.write_text('[model]\nprogram = "x.elp"\n[source]\nkind = "stdin"\n'
                      f'[state]\npath = "{device.path.name}"\n[update]\nstale_after = "9 h"\n')
    assert run_json(capsys, "status", config)[1]["updates"]["stale"] is True
    assert main(["status", str(config)]) == 0
    assert "STALE" in capsys.readouterr().out
    device.path.with_name("device.db.trust").unlink()
    assert main(["status", str(device.path)]) == 0
    assert "is missing" in capsys.readouterr().out


def test_a_device_that_is_not_enrolled_has_no_updates(tmp_path, capsys):
    with Store.open(tmp_path / "d.db") as store:
        store.event("x", {})
    assert run_json(capsys, "status", tmp_path / "d.db")[1]["updates"] is None
    assert main(["pull", str(tmp_path / "d.db"), "--server", "http://127.0.0.1:1"]) == 2
    assert "token" in capsys.readouterr().err
    token = tmp_path / "t"
    token.write_text("t")
    token.chmod(0o600)
    asked = ("--server", "http://127.0.0.1:1", "--token", str(token))
    for command in ("pull", "push"):
        assert main([command, str(tmp_path / "d.db"), *asked]) == 7
        assert "not enrolled" in capsys.readouterr().err


def test_what_cannot_be_sent_waits(site, capsys):
    device = site.device()
    device.learn()
    asked = (device.path, "--server", "http://127.0.0.1:1", "--token", device.token)
    assert run_json(capsys, "push", *asked, "--queue")[1] == {"queued": True, "waiting": 1}
    assert run_json(capsys, "push", *asked, "--tries", 1)[0] == 8
    assert run_json(capsys, "status", device.path)[1]["updates"]["waiting"] == 1
    assert run_json(capsys, "push", *asked, "--queue")[1] == {"queued": False, "waiting": 1}
    assert main(["push", str(device.path)]) == 2
    assert "no update server" in capsys.readouterr().err


def test_uninstall_removes_keys_journal_outbox_and_inbox(site, capsys):
    device = site.device()
    with Outbox(device.path) as outbox:
        outbox.put("a", b"b")
    for folder in (".inbox", ".programs"):
        place = device.path.with_name(f"device.db{folder}")
        place.mkdir()
        (place / "x").write_bytes(b"x")
    assert main(["uninstall", str(device.path), "--purge"]) == 0
    assert not list(device.path.parent.glob("device.db*"))


def test_the_hub_by_its_commands(site, fleet, tmp_path, capsys):
    hub = site.folder / "hub"
    package = tmp_path / "p.edl"
    package.write_bytes(fleet.pack(weights(0), weights(1), 1))
    assert run_json(capsys, "hub", "publish", hub, package, "--percent", "10")[0] == 0
    status, now = run_json(capsys, "hub", "rollout", hub, "1", "--percent", "50")
    assert (status, now["percent"]) == (0, 50.0)
    assert run_json(capsys, "hub", "rollout", hub, "1", "--halt")[1]["halted"] == "by the operator"
    assert run_json(capsys, "hub", "rollout", hub, "1", "--resume")[1]["halted"] is None
    key = new_key(tmp_path / "dev.key")
    status, made = run_json(
        capsys, "hub", "device", hub, "press-7", "--public", public_text(key.public))
    assert (status, len(made["token"])) == (0, 43)
    (tmp_path / "root2.json").write_bytes(fleet.document(2))
    assert run_json(capsys, "hub", "root", hub, tmp_path / "root2.json")[1] == {"version": 2}
    assert main(["hub", "status", str(hub)]) == 0
    shown = capsys.readouterr().out
    assert "press-7" in shown
    assert "fleet 'press', root document 2" in shown
    assert run_json(capsys, "hub", "device", hub, "press-7", "--drop")[0] == 0
    for args, said in (
        (("publish", hub, package, "--percent", "101"), "from 0 to 100"),
        (("rollout", hub, "1"), "say --percent"),
        (("device", hub, "x"), "--public"),
        (("status", tmp_path), "is no hub"),
        (("serve", hub, "--host", "0.0.0.0"), "without --cert"),
        (("serve", hub, "--cert", "x"), "has its key"),
    ):
        assert main(["hub", *map(str, args)]) == 2
        assert said in capsys.readouterr().err


def test_a_new_hub(tmp_path, fleet, capsys, site):
    (tmp_path / "root.json").write_bytes(fleet.root)
    status, made = run_json(capsys, "hub", "init", tmp_path / "second", "--root",
                            tmp_path / "root.json", "--fresh-key", site.folder / "fresh.key")
    assert (status, made["fleet"]) == (0, "press")
