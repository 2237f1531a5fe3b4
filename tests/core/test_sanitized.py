"""The core under the address and undefined-behaviour sanitizers: hostile step tables, int8 products
of every instruction set, worker threads and the reader of weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.core.seeds import write_seeds
from tests.core.streamed import write_streamed

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    build = ROOT / "build" / "asan"
    subprocess.run(
        [TOOLS / "cmake", "-S", ROOT, "-B", build, "-G", "Ninja",
         f"-DCMAKE_MAKE_PROGRAM={TOOLS / 'ninja'}", "-DEL_SANITIZE=address,undefined",
         "-DEL_TESTS=ON", "-DEL_PYTHON=OFF"],
        check=True, capture_output=True,
    )
    subprocess.run([TOOLS / "cmake", "--build", build], check=True, capture_output=True)
    return build


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Path]:
    return write_seeds(tmp_path_factory.mktemp("seeds"))


def run(program: Path, seeds: list[Path], seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, str(seconds), os.environ.get("FUZZ_SEED", "1"), *seeds],
        capture_output=True, text=True, timeout=600, check=False,
    )


def test_every_flipped_byte_and_random_tables_stay_in_their_memory(built, seeds):
    done = run(built / "fuzz_check", seeds, 3)
    assert done.returncode == 0, done.stderr[-3000:]
    tables, accepted = (int(w) for w in done.stdout.split() if w.isdigit())
    assert 0 < accepted < tables


def test_without_the_checker_the_sanitizers_find_faults(built, seeds):
    done = run(built / "fuzz_unchecked", seeds, 0)
    assert done.returncode != 0
    assert "Sanitizer" in done.stderr or "runtime error" in done.stderr


def test_int8_products_have_the_portable_bits_in_the_memory_planned(built):
    done = subprocess.run([built / "i8_check", os.environ.get("FUZZ_SEED", "1")],
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.startswith("int8 products agree on 0")


@pytest.fixture(scope="module")
def streamed(tmp_path_factory) -> list[str]:
    return write_streamed(tmp_path_factory.mktemp("port") / "a")


def test_workers_and_the_reader_of_weights_stay_in_their_memory(built, streamed):
    done = subprocess.run([built / "port_check", *streamed], capture_output=True, text=True,
                          timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.endswith("runs are equal\n")


def test_a_step_that_does_not_wait_for_its_weights_is_noticed(built, streamed):
    done = subprocess.run([built / "port_check", *streamed, "unordered"], capture_output=True,
                          text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert "other bytes" in done.stderr
