"""The command line: `edgeloop COMMAND ...`."""

from edgeloop.cli.main import main

__all__ = ["main"]
