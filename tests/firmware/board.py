"""Build a program into firmware, run it in QEMU, and read back what it printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeloop.program import Program
from edgeloop.program.emit_c import emit

ROOT = Path(__file__).parents[2]
CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
FLAGS = (
    "-std=c11", "-O2", "-ffp-contract=off", "-fno-math-errno", "-ffreestanding",
    "-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow",
    "-Wconversion", "-Wundef", "-Wstrict-prototypes", "-Wvla", "-Wdouble-promotion",
    "-Wcast-qual", "-Werror",
)
needs_qemu = pytest.mark.skipif(
    os.environ.get("CI") != "true"
    and not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="needs arm-none-eabi-gcc and qemu-system-arm: make setup-system",
)


@dataclass
class Run:
    status: int
    losses: np.ndarray
    params: bytes
    stack: int
    sizes: dict[str, int]  # text, data, bss


def samples_header(program: Program, batches: list[dict[str, np.ndarray]]) -> str:
    """The inputs of the train entry for each batch, by name and dense, as a C header."""
    tensors = program.entries["train"].inputs
    parts = [f"  {{{t.offset}u, {t.size * 4}u}}," for t in tensors.values()]
    data = b"".join(np.ascontiguousarray(b[n]).tobytes() for b in batches for n in tensors)
    words = np.frombuffer(data, "<u4")
    return "\n".join((
        f"#define SAMPLE_STEPS {len(batches)}u",
        f"#define SAMPLE_BYTES {len(data) // len(batches)}u",
        "static const struct { uint32_t offset, bytes; } sample_parts[] = {", *parts, "};",
        "static const uint32_t samples[] = {", ", ".join(f"0x{w:08x}u" for w in words), "};", "",
    ))


def sources() -> list[Path]:
    """The portable core as firmware needs it: dispatch.c is replaced by the program's own."""
    core = [p for p in sorted((ROOT / "core/src").glob("*.c")) if p.name != "dispatch.c"]
    kernels = [p for p in sorted((ROOT / "core/kernels").glob("*.c"))
               if not p.stem.endswith(("_vec", "_dot", "_bf16"))]
    return core + kernels


def compile_objects(directory: Path, files: list[Path], *extra: str) -> list[Path]:
    objects = []
    for path in files:
        objects.append(directory / f"{path.stem}.o")
        subprocess.run(
            ["arm-none-eabi-gcc", *CPU, *FLAGS, *extra, f"-I{directory}",
             *(f"-I{ROOT / d}" for d in ("core/include", "core/kernels", "core/src", "firmware")),
             "-c", path, "-o", objects[-1]],
            check=True,
        )
    return objects


def train(
    directory: Path, program: Program, batches: list[dict[str, np.ndarray]],
    params: bytes | None = None,
) -> Run:
    """Build, run and parse; ``batches`` are complete io inputs of the train entry.

    ``params`` are first values of that region in place of the program's.
    """
    for name, text in emit(program, params=params).items():
        (directory / name).write_text(text)
    (directory / "samples.h").write_text(samples_header(program, batches))
    files = [*sources(), directory / "app.c",
             *(ROOT / "firmware" / f"{n}.c" for n in ("startup", "semihost", "train"))]
    objects = compile_objects(directory, files)
    image = directory / "train.elf"
    subprocess.run(
        ["arm-none-eabi-gcc", *CPU, *objects, "-nostartfiles", "--specs=nano.specs",
         "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments", "-T",
         ROOT / "firmware/mps2-an386.ld", "-o", image],
        check=True,
    )
    done = subprocess.run(
        ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial",
         "null", "-semihosting-config", "enable=on,target=native", "-kernel", image],
        capture_output=True, text=True, timeout=120, check=False,
    )

    def printed(what: str) -> list[int]:
        found = re.findall(rf"^{what} ([0-9a-f]{{8}})$", done.stderr, re.MULTILINE)
        return [int(word, 16) for word in found]

    size = subprocess.run(["arm-none-eabi-size", image], check=True, capture_output=True, text=True)
    numbers = [int(w) for w in size.stdout.splitlines()[1].split()[:3]]
    return Run(
        done.returncode, np.array(printed("loss"), "<u4").view("<f4"),
        np.array(printed("param"), "<u4").tobytes(), (printed("stack") or [0])[0],
        dict(zip(("text", "data", "bss"), numbers, strict=True)),
    )
