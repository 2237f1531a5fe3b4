"""doctor: what this machine can do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeloop.cli.exits import FAILED, OK
from edgeloop.errors import StateError
from edgeloop.store import Store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output

_MACHINES = ("x86_64", "aarch64")


class Finding(NamedTuple):
    """One thing looked at; `needed` ones decide the exit status."""

    name: str
    ok: bool
    needed: bool
    detail: str


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("doctor")
    parser.add_argument(
        "folder", nargs="?", default=".", help="where the state will live (default: here)"
    )
    parser.set_defaults(command=doctor)


def doctor(args: argparse.Namespace, out: Output) -> int:
    """Look at everything and report."""
    findings = [
        _python(),
        _machine(),
        _core(),
        _cores(),
        _memory(),
        *(_library(name, needed=True) for name in ("numpy", "safetensors", "cryptography")),
        _sqlite(Path(args.folder)),
        _disk(Path(args.folder)),
        *(_library(name, needed=False) for name in ("onnx", "rich")),
        _compiler(),
    ]
    good = all(finding.ok for finding in findings if finding.needed)
    out.result({"ok": good, "findings": [finding._asdict() for finding in findings]})
    marks = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING"}
    out.table(
        ["", "what", "found"],
        [[marks.get((f.ok, f.needed), "optional"), f.name, f.detail] for f in findings],
    )
    out.line("this machine can train" if good else "something needed is missing: see above")
    return OK if good else FAILED


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, needed=True, detail=f"{platform.python_version()} (3.11 or newer)")


def _machine() -> Finding:
    libc = " ".join(platform.libc_ver()) or "libc unknown"
    ok = sys.platform == "linux" and platform.machine() in _MACHINES
    detail = f"{platform.system()} {platform.machine()}, {libc}"
    return Finding("system", ok, needed=True, detail=detail)


def _core() -> Finding:
    try:
        core = import_module("edgeloop._core")
    except ImportError as error:
        return Finding("core", ok=False, needed=True, detail=f"cannot be loaded: {error}")
    forced = os.environ.get("EDGELOOP_ISA")
    detail = f"instruction sets {', '.join(core.isas())}"
    return Finding(
        "core", ok=True, needed=True, detail=detail + (f", forced: {forced}" * bool(forced))
    )


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0))
    return Finding("cores", ok=True, needed=False, detail=f"{count} usable")


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError as error:
        return Finding("memory", ok=False, needed=False, detail=str(error))
    sizes = {line.split(":")[0]: int(line.split()[1]) >> 10 for line in lines}
    detail = f"{sizes.get('MemAvailable', 0)} MiB available of {sizes.get('MemTotal', 0)} MiB"
    return Finding("memory", ok=True, needed=False, detail=detail)


def _library(name: str, *, needed: bool) -> Finding:
    try:
        return Finding(name, find_spec(name) is not None, needed, version(name))
    except PackageNotFoundError:
        use = {"onnx": "needed to compile, not to run", "rich": "for tables and progress"}
        return Finding(name, ok=False, needed=needed, detail=f"not installed; {use.get(name, '')}")


def _sqlite(folder: Path) -> Finding:
    """Commit once for real: the version alone does not tell."""
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            start = time.perf_counter()
            with Store.open(Path(scratch) / "state.db") as store:
                store.put_kv("probe", b"1")
                number = store.sqlite_version
            took = time.perf_counter() - start
    except (StateError, OSError) as error:
        return Finding("state", ok=False, needed=True, detail=str(error))
    detail = f"SQLite {number}, a new state file in {took * 1e3:.0f} ms"
    return Finding("state", ok=True, needed=True, detail=detail)


def _disk(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took = time.perf_counter() - start
        free = shutil.disk_usage(folder).free >> 20
    except OSError as error:
        return Finding("disk", ok=False, needed=True, detail=f"{folder}: {error.strerror}")
    detail = f"fsync {took * 1e3:.1f} ms, {free} MiB free"
    return Finding("disk", ok=free >= 16, needed=True, detail=detail)


def _compiler() -> Finding:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    detail = found or "none; only needed to build edgeloop from source"
    return Finding("compiler", found is not None, needed=False, detail=detail)
