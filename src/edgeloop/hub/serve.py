"""The hub as a process: HTTP by uvicorn, and a broker beside it where one is named."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from edgeloop.errors import ConfigError
from edgeloop.hub.app import app
from edgeloop.hub.bridge import Bridge
from edgeloop.hub.shelf import Shelf
from edgeloop.link import read_token

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def serve(args: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Serve a hub's folder until SIGTERM or SIGINT."""
    with closing(Shelf(Path(args.folder))) as shelf:
        bridge = None
        if args.mqtt is not None:
            if args.mqtt_token is None:
                msg = "hub serve: a broker asks for a password: --mqtt-token FILE"
                raise ConfigError(msg)
            bridge = Bridge(shelf.folder, args.mqtt, read_token(Path(args.mqtt_token)),
                            ca=Path(args.ca) if args.ca else None)
            bridge.start()
        say(f"hub of fleet {shelf.root.fleet!r} on {args.host}:{args.port}")
        try:
            uvicorn.run(app(shelf), host=args.host, port=args.port, log_level="warning",
                        ssl_certfile=args.cert, ssl_keyfile=args.cert_key, server_header=False,
                        timeout_graceful_shutdown=3)
        finally:
            if bridge is not None:
                bridge.stop()
