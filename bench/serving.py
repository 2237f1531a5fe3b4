"""How long a prediction over HTTP takes while the loop trains beside it, against when it does not.

    PYTHONPATH=src python bench/serving.py [--pairs 9] [--requests 400] [--share 0.5] [--slice-ms 1]

Two servers of the keyword spotter: one without a loop, and one whose loop trains without end at so
much of a core. They take turns, the other one stopped by a signal meanwhile; a client asks for one
second of raw sound at a time, as fast as it is answered. Printed: p50 and p99 of both, and the
ratio of p99 in each pair. The goal is a median ratio of at most 1.5 at half a core.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "examples/keyword")]
LOOP = """
[model]
program = "kws.elp"
[source]
kind = "npz"
path = "clips.npz"
[trigger]
samples = 24
[train]
epochs = 100000
checkpoint_every = 1000000
early_stopping = {{patience = 100000}}
[gate]
min_samples = 4
share = 0.2
[pace]
cpu_share = {share}
slice_ms = {slice_ms}
[state]
path = "{state}.db"
"""


def prepare(folder: Path, share: float, slice_ms: float) -> None:
    """The example's program, noise with random labels to learn from, and two configurations."""
    import demo

    demo.compile_program(folder)
    rng = np.random.default_rng(0)
    np.savez(folder / "clips.npz", x=rng.normal(0, 0.1, (200, 16000)).astype(np.float32),
             y=rng.integers(0, len(demo.class_names()), 200))
    for state in ("idle", "busy"):
        (folder / f"{state}.toml").write_text(
            LOOP.format(share=share, slice_ms=slice_ms, state=state))


class Server:
    """One server process, stopped unless it is asked."""

    def __init__(self, folder: Path, name: str, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeloop", "serve", f"{name}.toml", "--port", "0", *more],
            cwd=folder, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"})
        assert self.process.stdout is not None
        self.port = 0
        for line in self.process.stdout:
            if line.startswith("serving"):
                self.port = int(line.rstrip().rpartition(":")[2])
                break
        assert self.port, "the server did not start"

    def waits_for(self, begin: str) -> None:
        """Read its lines until one begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(begin):
                return
        sys.exit(f"the server ended before it said {begin!r}")

    def pause(self) -> None:
        """Stop it where it is."""
        self.process.send_signal(signal.SIGSTOP)

    def times(self, requests: int) -> list[float]:
        """Milliseconds of so many predictions, one after another."""
        self.process.send_signal(signal.SIGCONT)
        clip = np.random.default_rng(1).normal(0, 0.1, (1, 16000)).astype(np.float32)
        head = json.dumps({"inputs": [{
            "name": "raw", "shape": [1, 16000], "datatype": "FP32",
            "parameters": {"binary_data_size": clip.nbytes}}]}).encode()
        line, found = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), []
        for i in range(requests + 20):
            began = time.perf_counter()
            line.request("POST", "/v2/models/kws/infer", head + clip.tobytes(),
                         {"Inference-Header-Content-Length": str(len(head))})
            response = line.getresponse()
            response.read()
            assert response.status == 200
            if i >= 20:
                found.append(1e3 * (time.perf_counter() - began))
        line.close()
        self.pause()
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--slice-ms", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, args.share, args.slice_ms)
        idle = Server(folder, "idle", "--no-loop")
        busy = Server(folder, "busy")
        busy.waits_for("epoch")
        idle.pause()
        ratios = []
        for pair in range(args.pairs):
            both = {}
            for which in ("idle", "busy") if pair % 2 else ("busy", "idle"):
                times = (idle if which == "idle" else busy).times(args.requests)
                both[which] = float(np.percentile(times, 50)), float(np.percentile(times, 99))
            ratios.append(both["busy"][1] / both["idle"][1])
            print(f"pair {pair + 1}: " + "  ".join(
                f"{w} p50 {p50:.2f} p99 {p99:.2f} ms" for w, (p50, p99) in sorted(both.items()))
                + f"  ratio {ratios[-1]:.2f}", flush=True)
        median = statistics.median(ratios)
        print(f"p99 while training at {args.share:g} of a core in slices of {args.slice_ms:g} ms: "
              f"{median:.2f} times that of idle (median of {args.pairs}; {min(ratios):.2f} to "
              f"{max(ratios):.2f})")
        for server in (idle, busy):
            server.process.kill()


if __name__ == "__main__":
    main()
