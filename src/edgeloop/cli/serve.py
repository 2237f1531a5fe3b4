"""serve: predictions over HTTP, and the loop beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.cli.exits import OK
from edgeloop.cli.notify import watched
from edgeloop.cli.progress import Progress
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("serve")
    parser.add_argument("config", help="the loop.toml: its program, state, source and [serve]")
    parser.add_argument("--host", help="address to listen on, instead of serve.host")
    parser.add_argument("--port", type=int, help="port to listen on, instead of serve.port")
    parser.add_argument("--no-loop", action="store_true", help="predictions alone")
    parser.add_argument("--quiet", action="store_true", help="no events of the loop")
    parser.set_defaults(command=serve)


def serve(args: argparse.Namespace, out: Output) -> int:
    """Serve until SIGTERM or SIGINT; an interrupted update goes on with the next run."""
    from edgeloop.loop import Config

    try:
        from edgeloop.serve.run import serve as run
    except ImportError as error:
        if error.name is None or error.name.startswith("edgeloop"):
            raise
        msg = f"serve: needs {error.name}; pip install 'edgeloop[serve]'"
        raise ConfigError(msg) from error
    config = Config.load(args.config)
    asked = {"host": args.host, "port": args.port}
    asked = {k: v for k, v in asked.items() if v is not None}
    config = replace(config, serve=replace(config.serve, **asked))
    config.serve.check()
    with watched(), Progress(out, quiet=args.quiet) as progress:
        run(config, learn=not args.no_loop, on_event=progress.event, on_listen=lambda url: out.line(
            f"serving {config.serve.name or Path(config.model.program).stem} on {url}"))
    return OK
