"""Instructions of aarch64 int8 products under qemu-user: counts, not times.

    python bench/insns.py

Builds core/test/i8_check.c for aarch64 and a counting plugin for QEMU; what a call takes is the
difference to the same program that makes the operands alone. Needs gcc-aarch64-linux-gnu and
qemu-user (make setup-system).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edgeloop.ops.kernels import BELOW

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ISAS = ("neon", "neondot", "neoni8mm")
# rows, outputs, inputs
SHAPES = ((64, 192, 192), (64, 192, 768), (128, 256, 1024), (6, 256, 256), (1, 256, 256))


def build(folder: Path) -> list[str]:
    """Return the command that runs the check under the plugin."""
    cmake = [BIN / "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja",
             f"-DCMAKE_MAKE_PROGRAM={BIN / 'ninja'}", "-DEL_TESTS=ON", "-DEL_PYTHON=OFF",
             f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'tools' / 'aarch64.cmake'}",
             "-DCMAKE_EXE_LINKER_FLAGS=-static"]
    subprocess.run(cmake, check=True, capture_output=True)
    subprocess.run([BIN / "cmake", "--build", folder, "--target", "i8_check"], check=True,
                   capture_output=True)
    plugin = folder / "insns.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(ROOT / "bench" / "insns.c"), "-o",
                    str(plugin)], check=True)
    return ["qemu-aarch64", "-cpu", "max", "-plugin", str(plugin), str(folder / "i8_check")]


def count(command: list[str], isa: str, shape: tuple[int, int, int], back: int) -> int:
    """Instructions of one call; the portable kernels' number makes the operands alone."""
    def total(name: str) -> int:
        words = [str(list(BELOW).index(name)), *map(str, shape), str(back)]
        done = subprocess.run([*command, *words], check=True, capture_output=True, text=True)
        return int(done.stderr.split()[-1])

    return total(isa) - total("ref")


def main() -> None:
    """Print a table."""
    print("instructions for 1000 products".ljust(34) + "".join(i.rjust(12) for i in ISAS))
    with tempfile.TemporaryDirectory() as d:
        command = build(Path(d))
        for shape in SHAPES:
            for back, name in enumerate(("qlinear_i8", "qlinear_i8_dx")):
                products = shape[0] * shape[1] * shape[2]
                counts = [1000 * count(command, isa, shape, back) / products for isa in ISAS]
                print(f"{name:16} {'x'.join(map(str, shape)):16} " +
                      "".join(f"{c:12.1f}" for c in counts))


if __name__ == "__main__":
    main()
