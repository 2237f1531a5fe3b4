"""The emitted C of a program, without a board: it compiles for the host and computes the same."""

from __future__ import annotations

import subprocess

import pytest
from tests.firmware.board import ROOT
from tests.program.tiny import tiny_spec

from edgeloop.errors import ProgramError
from edgeloop.program import Program
from edgeloop.program.emit_c import emit


@pytest.fixture
def program():
    return Program.from_spec(tiny_spec())


def compile_app(tmp_path, program, *flags):
    for name, text in emit(program).items():
        (tmp_path / name).write_text(text)
    return subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wcast-qual", "-Werror", *flags,
         f"-I{ROOT / 'core/include'}", "-c", tmp_path / "app.c", "-o", tmp_path / "app.o"],
        capture_output=True, text=True, check=False,
    )


def test_the_emitted_source_compiles_without_warnings(tmp_path, program):
    done = compile_app(tmp_path, program)
    assert done.returncode == 0, done.stderr


def test_another_table_version_is_a_compile_error(tmp_path, program):
    (tmp_path / "other.h").write_text('#include "edgeloop.h"\n#undef EL_TABLE_MAJOR\n'
                                      "#define EL_TABLE_MAJOR 2\n")
    done = compile_app(tmp_path, program, "-include", str(tmp_path / "other.h"))
    assert "this program was generated for table version 1.3" in done.stderr


def test_only_the_kernels_of_the_program_are_named(program):
    source = emit(program)["app.c"]
    assert "el_k_relu_ref" in source
    assert source.count("el_k_") == 2  # declaration and table row


def test_a_prefix_that_is_no_identifier_is_refused(program):
    with pytest.raises(ProgramError, match="not a C identifier"):
        emit(program, "a-b")
