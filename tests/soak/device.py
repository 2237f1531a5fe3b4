"""One device of the soak, as a process: `python -m tests.soak.device FOLDER BEGAN SCALE`.

Runs the loop of FOLDER/loop.toml in simulated time until it is stopped or killed, and writes a line
for every few windows: second of the week, windows taken in this life, and KiB of memory: anonymous
now, and resident at its highest. A life begins with the KiB that were planned.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from tests.soak.clock import Clock

from edgeloop import loop

EVERY = 50  # windows between lines


def main(folder: Path, began: float, scale: float) -> None:
    """Run until SIGTERM."""
    clock = Clock(began, scale)
    taken, planned = 0, loop.plan(folder / "loop.toml")
    with (folder / "memory.log").open("a", encoding="ascii") as log:

        def watch(kind: str, **_: object) -> None:
            nonlocal taken
            if kind == "start":
                log.write(f"life {planned.total // 1024}\n")
            if kind != "item":
                return
            taken += 1
            if taken % EVERY == 0:
                now = memory()
                log.write(f"{clock():.0f} {taken} {now['RssAnon']} {now['VmHWM']}\n")
                log.flush()

        loop.run(folder / "loop.toml", on_event=watch, clock=clock, sleep=clock.sleep,
                 wall=lambda: began + clock(), on_open=end_by_signal)


def memory() -> dict[str, int]:
    """Resident memory of this process, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = (line.split() for line in lines if line.startswith(("RssAnon:", "VmHWM:")))
    return {name.rstrip(":"): int(value) for name, value, _ in fields}


def end_by_signal(running: loop.Loop) -> None:
    """Let SIGTERM end the loop in order."""
    signal.signal(
        signal.SIGTERM, lambda *_: threading.Thread(target=running.stop, daemon=True).start())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
