"""Build the peers' environments and their models. `make bench-peers`, or

    python build.py [--models] [W1 ...]

``--models``: export with the torch that is there, and build nothing. What is there already stays;
delete a folder under places.home() to make it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

import places

HERE = Path(__file__).parent
WORKLOADS = [f"W{i}" for i in range(1, 8)] + ["W5s"]
NOT_FOR_ORT = ("W7", "W5s")  # too large for its artifacts; not compared


def environment(name: str) -> None:
    folder = places.home() / name
    done = folder / "installed"
    wanted = "\n".join(" ".join(packages) for packages in places.ENVIRONMENTS[name])
    if done.exists() and done.read_text() == wanted:
        return
    print(f"building {folder}", flush=True)
    if not places.python(name).exists():
        venv.create(folder, with_pip=True)
    for packages in places.ENVIRONMENTS[name]:
        subprocess.run([places.python(name), "-m", "pip", "install", "-q",
                        "--disable-pip-version-check", *packages], check=True)
    done.write_text(wanted)


def make(script: str, python: Path, *args: str) -> None:
    """Run one of the scripts here; what it says is shown only when it fails."""
    run = subprocess.run([python, HERE / script, places.models(), *args], capture_output=True,
                         text=True, check=False)
    if run.returncode:
        sys.exit(f"{script} failed:\n{run.stderr[-4000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=WORKLOADS)
    parser.add_argument("--models", action="store_true")
    args = parser.parse_args()
    if not args.models:
        for name in places.ENVIRONMENTS:
            environment(name)
    make("export.py", places.python("torch"), *args.names)
    if not args.models:
        make("ort_artifacts.py", places.python("ort-artifacts"),
             *[n for n in args.names if n not in NOT_FOR_ORT])
    print(f"models of {', '.join(args.names)} are in {places.models()}")


if __name__ == "__main__":
    main()
