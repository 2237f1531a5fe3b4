"""The sides of the benchmark, and how a child process measures one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE / "peers"))
import places  # noqa: E402

NOISY = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "EDGELOOP_ISA")  # must not reach a child


@dataclass(frozen=True)
class Side:
    """One way to do the work. ``environment``: of a peer; "" is edgeloop in this interpreter."""

    name: str
    environment: str
    script: str
    mode: str
    precision: str = "f32"
    task: str = "train"
    without: tuple[str, ...] = ()


PEERS = (
    Side("torch", "torch", "side_torch.py", "eager"),
    Side("torch.compile", "torch", "side_torch.py", "compile", without=("W7",)),
    Side("torch bf16", "torch", "side_torch.py", "bf16", "bf16"),
    Side("ORT training", "ort-training", "side_ort_training.py", "sgd", without=("W7",)),
    Side("JAX", "jax", "side_jax.py", "jit"),
    Side("onnxruntime", "ort", "side_ort.py", "f32", task="predict"),
)


def edgeloop(mode: str, task: str) -> Side:
    return Side(f"edgeloop {mode}", "", "side_edgeloop.py", mode, mode, task)


def run(side: Side, name: str, threads: int, seconds: float, task: str, programs: Path,
        timeout: float = 1800) -> dict:
    """Measure in a fresh process; {"error": ...} when it fails.

    ``task``: train, again or predict, as in measure.py. ``programs``: what compiled.py wrote.
    """
    own = not side.environment
    python = sys.executable if own else places.python(side.environment)
    script = HERE / side.script if own else HERE / "peers" / side.script
    env = {k: v for k, v in os.environ.items() if k not in NOISY}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(places.home() / "inductor")
    folder = programs if own else places.models()
    command = [str(a) for a in (python, script, folder, name, side.mode, threads, seconds, task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env,
                              timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr or done.stdout).strip()[-400:]}
    return json.loads(lines[-1])
