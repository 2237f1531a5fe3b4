"""A word to the service manager: ready, and still alive (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def notify(text: str) -> None:
    """Send a state to the manager, where there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.sendto(text.encode(), address.replace("@", "\0", 1))


@contextmanager
def watched() -> Iterator[None]:
    """Say ready, and, at half the watchdog's time, that the main thread still runs.

    It is the main thread that says so, also while it waits for data: one that hangs in a call that
    never returns says nothing, and the manager starts the service again.
    """
    seconds = int(os.environ.get("WATCHDOG_USEC") or 0) / 2e6
    notify("READY=1")
    mine = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    if not seconds or not mine or not os.environ.get("NOTIFY_SOCKET"):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: notify("WATCHDOG=1"))
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        notify("STOPPING=1")
