"""The service units verify, stay hardened, and the loop speaks to the manager; the manual page."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from edgeloop.cli.exits import CODES
from edgeloop.cli.main import COMMANDS

CONTRIB = Path(__file__).parents[2] / "contrib"
SERVICES = ("edgeloop.service", "edgeloop-update.service")


def tool(name):
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing: make setup-system")
        pytest.skip(f"needs {name}: make setup-system")
    return found


@pytest.fixture
def units(tmp_path):
    """The units as installed, with a command that exists and a manual that is not looked for."""
    command = tmp_path / "edgeloop"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    for path in (CONTRIB / "systemd").iterdir():
        text = path.read_text().replace("/usr/local/bin/edgeloop", str(command))
        text = re.sub("^Documentation=.*\n", "", text, flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", [*SERVICES, "edgeloop-update.timer"])
def test_units_verify(units, name):
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", units / name], capture_output=True, text=True,
        check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_wrong_unit_would_be_noticed(units):
    path = units / "edgeloop.service"
    path.write_text(path.read_text().replace("Type=notify", "Type=notifies\nRestartSecs=5"))
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", path], capture_output=True, text=True, check=False)
    assert "notifies" in done.stderr
    assert "RestartSecs" in done.stderr


@pytest.mark.parametrize(("name", "most"), [(SERVICES[0], 0.5), (SERVICES[1], 1.5)])
def test_units_are_hardened(units, name, most):
    done = subprocess.run(
        [tool("systemd-analyze"), "security", "--offline=true", units / name],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_PAGER": ""})
    level = re.search(r"exposure level for \S+ (\d+\.\d)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= most


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.bind(str(tmp_path / "notify"))
        way.settimeout(30)
        yield way, str(tmp_path / "notify")


def test_the_loop_says_that_it_is_ready_and_alive_while_it_waits(device, manager):
    way, address = manager
    text = (device.folder / "loop.toml").read_text()
    text = text.replace('kind = "csv"\npath = "stream.csv"\nlabel = "label"', 'kind = "stdin"')
    (device.folder / "loop.toml").write_text(text)
    process = subprocess.Popen(
        device.command("run", "loop.toml", "--quiet"), cwd=device.folder, stdin=subprocess.PIPE,
        env=device.environment() | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
    try:
        assert way.recv(100) == b"READY=1"
        assert [way.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.send_signal(signal.SIGSTOP)  # it hangs
        time.sleep(0.3)
        way.setblocking(False)
        while True:
            try:
                way.recv(100)
            except BlockingIOError:
                break
        way.settimeout(1.0)
        with pytest.raises(TimeoutError):
            way.recv(100)
        process.send_signal(signal.SIGCONT)
        way.settimeout(30)
        assert way.recv(100) == b"WATCHDOG=1"
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_without_a_manager_nothing_is_said(device):
    done = device.run("run", "loop.toml", "--quiet", NOTIFY_SOCKET="", WATCHDOG_USEC="1")
    assert done.returncode == 0, done.stderr


def test_the_manual_page_has_every_command_and_status():
    text = (CONTRIB / "man/edgeloop.1").read_text().replace("\\-", "-")
    commands = re.findall(r"^\.TP\n\.B (\S+)", text.split(".SH EXIT")[0], re.MULTILINE)
    assert commands == list(COMMANDS)
    for status in {0, 130, *CODES.values()}:
        assert re.search(rf"\b{status} [a-z]", text)


def test_the_manual_page_formats_without_a_warning():
    done = subprocess.run(
        [tool("groff"), "-man", "-Tutf8", "-ww", "-z", CONTRIB / "man/edgeloop.1"],
        capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
