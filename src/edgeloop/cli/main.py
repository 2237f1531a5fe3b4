"""The parser, the dispatch and the one line an error becomes."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from edgeloop import __version__
from edgeloop.cli import deltas, doctor, model, running, state
from edgeloop.cli.exits import FAILED, INTERRUPTED, exit_code
from edgeloop.cli.output import Output, to_json
from edgeloop.errors import EdgeLoopError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """exit status: 0 done, 1 a figure or check failed, 2 usage or configuration, 3 model or
program, 4 state, 5 data, 6 budget, 7 delta, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program name; default: those of the process.

    Returns
    -------
    int
        The exit status (docs/guide/cli.md).
    """
    args = build_parser().parse_args(argv)
    out = Output(as_json=args.json)
    try:
        status: int = args.command(args, out)
        sys.stdout.flush()
    except (EdgeLoopError, MemoryError) as error:
        return _report(error, str(error) or "out of memory", out)
    except ImportError as error:
        if error.name not in ("edgeloop._core", "edgeloop"):
            raise
        return _report(error, "the compiled core is missing: install a wheel or `make build`", out)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _report(error, f"{where}{error.strerror or error}", out)
    except KeyboardInterrupt:
        print("edgeloop: interrupted; what was committed is kept", file=sys.stderr)
        return INTERRUPTED
    return status


def _report(error: BaseException, text: str, out: Output) -> int:
    status = exit_code(error)
    line = one_line(text)
    if out.as_json:
        print(to_json({"error": line, "kind": type(error).__name__, "exit": status}), flush=True)
    print(f"edgeloop: error: {line}", file=sys.stderr)
    return status


def one_line(text: str) -> str:
    """Join the lines of a message: a list after a colon stays readable."""
    joined = ""
    for part in filter(None, (" ".join(line.split()) for line in text.splitlines())):
        joined += ("" if not joined else " " if joined[-1] in ":;.," else "; ") + part
    return joined


def build_parser() -> argparse.ArgumentParser:
    """Assemble the parser from the command groups."""
    parser = argparse.ArgumentParser(
        prog="edgeloop",
        description="Train a small PEFT module of an ONNX model on the device it runs on.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"edgeloop {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON for machines")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    for group in (model, running, state, deltas, doctor):
        group.add(add)
    return parser
