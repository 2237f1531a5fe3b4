"""A small real device shared by the suites: model, program, stream and loop.toml in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import edgeloop

# A busy machine is no finding.
settings.register_profile("edgeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeloop")

WIDTH, HIDDEN, CLASSES = 16, 24, ("idle", "drill", "mill", "saw")

LOOP = """
[model]
program = "model.elp"
[source]
kind = "csv"
path = "stream.csv"
label = "label"
[trigger]
samples = 32
[train]
epochs = 8
checkpoint_every = 3
lr = 0.05
[gate]
min_samples = 16
share = 0.2
confidence = 0.6
[state]
path = "device.db"
"""


@dataclass
class Device:
    """A folder in which `edgeloop run loop.toml` learns."""

    folder: Path

    @property
    def state(self):
        return self.folder / "device.db"

    @staticmethod
    def environment():
        """Environment in which a process anywhere imports the edgeloop under test."""
        source = str(Path(edgeloop.__file__).resolve().parents[1])
        return {**os.environ, "PYTHONPATH": source}

    def copy(self, folder):
        """Make another one like this."""
        shutil.copytree(self.folder, folder)
        return Device(folder)

    def command(self, *args, prelude=""):
        """The command line of a process; `prelude` is Python to run before, to break something."""
        if not prelude:
            return [sys.executable, "-m", "edgeloop", *map(str, args)]
        code = f"{prelude}\nimport sys\nfrom edgeloop.cli import main\nsys.exit(main(sys.argv[1:]))"
        return [sys.executable, "-c", code, *map(str, args)]

    def run(self, *args, prelude="", **environment):
        """Run a command to its end, in the folder."""
        return subprocess.run(
            self.command(*args, prelude=prelude),
            cwd=self.folder,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )


def write_model(path):
    """Dense 16-24-4 classifier with fixed random weights, as an exporter would write it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    shapes = {"fc1.weight": (HIDDEN, WIDTH), "fc2.weight": (len(CLASSES), HIDDEN)}
    weights = {n: rng.normal(0, s[1] ** -0.5, s).astype("f4") for n, s in shapes.items()}
    weights |= {"fc1.bias": np.zeros(HIDDEN, "f4"), "fc2.bias": np.zeros(len(CLASSES), "f4")}
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], "fc1", transB=1),
        helper.make_node("Relu", ["h"], ["a"], "act"),
        helper.make_node("Gemm", ["a", "fc2.weight", "fc2.bias"], ["y"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tools",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)


def write_stream(path, rows=260, seed=1):
    """Four noisy clusters, one line a sample."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(len(CLASSES), WIDTH))
    with path.open("w") as file:
        file.write(",".join([*(f"c{i}" for i in range(WIDTH)), "label"]) + "\n")
        for _ in range(rows):
            label = rng.integers(len(CLASSES))
            values = centres[label] + 0.8 * rng.normal(size=WIDTH)
            file.write(",".join(f"{v:.5f}" for v in values) + f",{CLASSES[label]}\n")


@pytest.fixture(scope="session")
def device_template(tmp_path_factory):
    """Compiled once, through the command line."""
    folder = tmp_path_factory.mktemp("device")
    write_model(folder / "model.onnx")
    write_stream(folder / "stream.csv")
    (folder / "loop.toml").write_text(LOOP)
    device = Device(folder)
    done = device.run(
        *("compile", "model.onnx", "-o", "model.elp", "--classes", ",".join(CLASSES)),
        *("--train", "lora:rank=4", "--optimizer", "adamw:lr=0.01"),
    )
    assert done.returncode == 0, done.stderr
    return device


@pytest.fixture
def new_device(device_template, tmp_path):
    """Make devices: new_device(name) -> Device in a fresh copy of the folder."""

    def make(name="device"):
        return device_template.copy(tmp_path / name)

    return make


@pytest.fixture
def device(new_device):
    """One fresh device."""
    return new_device()


@pytest.fixture
def fleet():
    """A fleet's keys and root document."""
    from tests.trust.fleet import Fleet

    return Fleet()


@pytest.fixture
def site(tmp_path, fleet):
    """A fleet's hub in a folder, with certificates; nothing runs yet."""
    from tests.link.parts import Site, certificates

    certificates(tmp_path)
    return Site(tmp_path, fleet)


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """LD_PRELOAD library of tests/store/shim.c: logs writes and syncs, fills the disk, or kills."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "these tests need a C compiler, as edgeloop's build does"
    source = Path(__file__).parent / "store" / "shim.c"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
    return str(library)
