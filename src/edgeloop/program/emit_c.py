"""A program as C source for firmware: const tables, no file system, no names at run time.

``emit`` returns two files. The header refuses another version of the core (#error) and gives
sizes, entries and the places of inputs, outputs, scalars and parameters in their regions. The
source holds table and weights (const, so they stay in flash), first values, and a table of only
those kernels that the program calls, in place of core/src/dispatch.c: with --gc-sections the
others are not linked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from edgeloop import _core
from edgeloop.errors import ProgramError
from edgeloop.program.program import Program
from edgeloop.program.table import MAJOR, MINOR

_REGIONS = ("arena", "params", "state", "io")


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _words(data: bytes) -> str:
    """Bytes (a multiple of 4) as 32-bit hexadecimal words, eight to a line."""
    words = [f"0x{w:08x}u" for w in np.frombuffer(data, "<u4")]
    return "\n".join("  " + ", ".join(words[i : i + 8]) + "," for i in range(0, len(words), 8))


def _array(name: str, data: bytes) -> str:
    if not data:
        return ""
    return (
        f"const uint32_t {name}[{len(data) // 4}] __attribute__((aligned(EL_ALIGN))) = {{\n"
        f"{_words(data)}\n}};\n"
    )


def _image(program: Program, region: str) -> bytes:
    """First values of region "params" or "state", as its bytes."""
    image = bytearray(program.table.sizes[region])
    tensors = program.params if region == "params" else program.states
    initial = program.initial()
    for name, t in tensors.items():
        data = initial[name].tobytes()
        image[t.offset : t.offset + len(data)] = data
    return bytes(image)


def emit(
    program: Program, prefix: str = "app", *, params: bytes | None = None
) -> dict[str, str]:
    """Return {"<prefix>.h": text, "<prefix>.c": text}.

    Parameters
    ----------
    program
        What to emit.
    prefix
        Of every name in the C source.
    params
        First values of the params region (a trained adapter) in place of the program's.

    Raises
    ------
    ProgramError
        ``prefix`` is no C identifier, two names become the same one, or ``params`` has another
        length than the region.
    """
    if not (prefix.isidentifier() and prefix.isascii()):
        raise ProgramError(f"the prefix '{prefix}' is not a C identifier")
    first = _image(program, "params") if params is None else params
    if len(first) != program.table.sizes["params"]:
        raise ProgramError(
            f"{len(first)} bytes of params; the program has {program.table.sizes['params']}"
        )
    return {
        f"{prefix}.h": _header(program, prefix), f"{prefix}.c": _source(program, prefix, first),
    }


def _defines(program: Program, up: str) -> Iterable[tuple[str, int]]:
    sizes = program.table.sizes
    yield f"{up}_RAM_BYTES", program.plan.ram_bytes
    for region, name in (("arena", "ARENA"), ("params", "PARAM"), ("state", "STATE"), ("io", "IO"),
                         ("weights", "WEIGHT")):
        yield f"{up}_{name}_BYTES", sizes[region]
    for e in program.entries.values():
        entry = f"{up}_{_identifier(e.name).upper()}"
        yield entry, e.index
        for n, t in e.inputs.items():
            yield f"{entry}_IN_{_identifier(n).upper()}", t.offset
        for n, t in e.outputs.items():
            yield f"{entry}_OUT_{_identifier(n).upper()}", t.offset
    for n, (t, _) in program.scalars.items():
        yield f"{up}_SCALAR_{_identifier(n).upper()}", t.offset
    for n, t in program.params.items():
        yield f"{up}_PARAM_{_identifier(n).upper()}", t.offset


def _header(program: Program, prefix: str) -> str:
    up = prefix.upper()
    defines: dict[str, int] = {}
    for name, value in _defines(program, up):
        if name in defines:
            raise ProgramError(f"two names of the program become {name} in C; rename one")
        defines[name] = value
    lines = "\n".join(f"#define {n} {v}u" for n, v in defines.items())
    return f"""/* Program {program.hash}. Generated: do not edit. */
#ifndef {up}_H
#define {up}_H

#include "edgeloop.h"

#if EL_TABLE_MAJOR != {MAJOR} || EL_TABLE_MINOR < {MINOR}
#error "this program was generated for table version {MAJOR}.{MINOR}: use a core that fits"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "programs are little-endian"
#endif

/* Bytes of each region, entries, and byte offsets: IN, OUT and SCALAR in io, PARAM in params. */
{lines}

extern const uint8_t {prefix}_table[{len(program.table_bytes)}];

/* Cuts {up}_RAM_BYTES of memory at an EL_ALIGN boundary into regions and sets first values. */
void {prefix}_memory(el_memory *memory, void *ram);

/* Sets the run-time scalars to their defaults; call it before each run, then change any. */
void {prefix}_scalars(const el_memory *memory);

#endif
"""


def _source(program: Program, prefix: str, params: bytes) -> str:
    up = prefix.upper()
    table = ", ".join(map(str, bytes(program.table_bytes)))
    table = "\n".join("  " + line for line in _wrap(table))
    state = _image(program, "state")
    arrays = "\n".join(filter(None, (
        _array("weights", bytes(program.weights_region())),
        _array("first_params", params), _array("first_state", state),
    ))).replace("const uint32_t", "static const uint32_t")
    weights = "(void *)(uintptr_t)weights" if program.table.sizes["weights"] else "NULL"
    memory, at = [], 0
    for region in _REGIONS:
        size = program.table.sizes[region]
        base = f"bytes + {at}" if size else "NULL"
        memory.append(f"  memory->base[EL_{region.upper()}] = {base};")
        at += size
    memory += [
        f"  memcpy(memory->base[EL_{r.upper()}], first_{r}, sizeof first_{r});"
        for r, image in (("params", params), ("state", state)) if image
    ]
    bits = [(t.offset, int(np.float32(v).view(np.uint32))) for t, v in program.scalars.values()]
    scalars = [
        f"  memcpy(io + {at}, &(const uint32_t){{0x{word:08x}u}}, 4);" for at, word in bits
    ] or ["  (void)io;"]
    return f"""/* Program {program.hash}. Generated: do not edit. */
#include "{prefix}.h"

#include <string.h>

const uint8_t {prefix}_table[{len(program.table_bytes)}] = {{
{table}
}};

{arrays}
void {prefix}_memory(el_memory *memory, void *ram) {{
  uint8_t *bytes = ram;
  memset(bytes, 0, {up}_RAM_BYTES);
  memory->base[EL_WEIGHTS] = {weights};
{chr(10).join(memory)}
}}

void {prefix}_scalars(const el_memory *memory) {{
  uint8_t *io = memory->base[EL_IO];
{chr(10).join(scalars)}
}}

{_operators(program)}"""


def _wrap(text: str, width: int = 98) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def _operators(program: Program) -> str:
    """Return the table of the kernels that this program calls, and what looks into it."""
    names = {code: (name, tolerance) for code, name, tolerance in _core.kernels()}
    plans = _core.plans()
    used = sorted({s.opcode for s in program.table.steps})
    externs = "\n".join(f"extern el_kernel el_k_{names[c][0]}_ref;" for c in used)
    plan_externs = "\n".join(
        f"extern el_plan {p};" for p in sorted({plans[names[c][0]] for c in used})
    )
    rows = "\n".join(
        f'  {{"{names[c][0]}", {c}, {plans[names[c][0]]}, {{el_k_{names[c][0]}_ref}}, '
        f"{names[c][1]!r}f}}," for c in used
    )
    return f"""/* Only the kernels that this program calls. */
{externs}
{plan_externs}

static const el_op ops[] = {{
{rows}
}};

const el_op *el_ops(uint32_t *count) {{
  *count = (uint32_t)(sizeof ops / sizeof ops[0]);
  return ops;
}}

const el_op *el_find_op(uint16_t opcode) {{
  for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {{
    if (ops[i].opcode == opcode) return &ops[i];
  }}
  return NULL;
}}

el_isa el_best_isa(el_isa limit) {{
  (void)limit;
  return EL_ISA_REF;
}}

el_kernel *el_variant(const el_op *op, el_isa isa) {{
  (void)isa;
  return op->kernel[EL_ISA_REF];
}}
"""
