"""The parser, the dispatch and the one line an error becomes."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from edgeloop import __version__
from edgeloop.cli.exits import FAILED, INTERRUPTED, exit_code
from edgeloop.cli.output import Output, to_json
from edgeloop.errors import EdgeLoopError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """exit status: 0 done, 1 a figure or check failed, 2 usage or configuration, 3 model or
program, 4 state, 5 data, 6 budget, 7 delta, 8 update server, 130 interrupted"""


# Each command with the module that declares it: only that one is imported, so that a device
# starts quickly.
COMMANDS = {
    "inspect": ("model", "what a model, program, delta package or state file holds"),
    "compile": ("model", "compile the training step of an ONNX model into a program"),
    "fit": ("fit", "which ways to train a model fit so much RAM and flash, compiled for real"),
    "plan": ("running", "RAM of a program, or item by item of the process that runs a loop"),
    "verify": ("verify", "check every byte of a program, or a package as its device would"),
    "profile": ("profile", "where the time of a program's step goes, beside the machine's limit"),
    "calibrate": ("calibrate", "what energy an operation costs here, from a meter's reading"),
    "run": ("running", "learn from the stream that a loop.toml names, until it ends"),
    "record": ("record", "write the stream that a loop.toml names into a file, for a replay"),
    "serve": ("serve", "predictions over HTTP, and the loop beside them in one process"),
    "predict": ("running", "answers of the live version, or of a program as shipped"),
    "status": ("state", "what the device has learned and what it is doing"),
    "events": ("events", "what the loop decided, and why"),
    "versions": ("versions", "all adapter versions"),
    "show": ("versions", "one version: its ancestors, how it is stored, whether it is intact"),
    "promote": ("versions", "make a version live"),
    "rollback": ("versions", "make the live version's parent live again"),
    "pin": ("versions", "keep a version whatever the retention rules say"),
    "label": ("versions", "give a version a name for people"),
    "gc": ("versions", "drop the oldest versions, never the live one, its parent or a pinned one"),
    "diff": ("deltas", "what changed between two versions, tensor by tensor"),
    "pack": ("deltas", "write a version, or a program, as a package, signed or not"),
    "apply": ("deltas", "check a package and take in what it carries"),
    "enroll": ("trust", "pin a fleet's keys on this device and give it a key of its own"),
    "keys": ("trust", "make keys, show them, say which keys a fleet believes"),
    "pull": ("updates", "fetch the newest release from the update server and take it in"),
    "push": ("updates", "send what this device learnt, and how releases did"),
    "hub": ("hub", "the reference update server: releases, rollouts, devices"),
    "export": ("adapters", "write a version for PEFT or ONNX Runtime, or a copy of the state"),
    "import": ("adapters", "put a verified copy of the state in its place"),
    "import-adapter": ("adapters", "check a PEFT adapter and make it the live version"),
    "doctor": ("doctor", "what this machine can do; exit status 1 when a basic is missing"),
    "forget": ("state", "delete samples and all that was made of them, name what learnt from them"),
    "uninstall": ("state", "what remains after `pip uninstall edgeloop`, and its removal"),
}


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
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(arguments).parse_args(arguments)
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


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser, complete for the command that `argv` names."""
    parser = argparse.ArgumentParser(
        prog="edgeloop",
        description="Train a small PEFT module of an ONNX model on the device it runs on.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"edgeloop {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON for machines")
    group = parser.add_subparsers(metavar="COMMAND", required=True)
    parsers = {
        name: group.add_parser(name, help=text, description=text, parents=[common])
        for name, (_, text) in COMMANDS.items()
    }
    chosen = next((word for word in argv if word in COMMANDS), None)
    if chosen is not None:
        import_module(f"edgeloop.cli.{COMMANDS[chosen][0]}").add(parsers.__getitem__)
    return parser
