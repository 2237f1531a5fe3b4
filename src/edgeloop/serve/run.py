"""Predictions and the loop in one process."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeloop import loop
from edgeloop.data.inbox import Inbox
from edgeloop.errors import ConfigError, StateError
from edgeloop.link import read_token
from edgeloop.loop.checks import labels_of
from edgeloop.serve.app import app
from edgeloop.serve.feedback import Desk, Limits
from edgeloop.serve.guard import Guard
from edgeloop.serve.metrics import Metrics
from edgeloop.serve.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeloop.loop import Config, Loop, Report

MAX_HEADERS = 16 << 10  # bytes
SWITCH = 5e-4  # seconds after which the loop's thread gives way to a request
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def serve(
    config: Config,
    *,
    learn: bool = True,
    on_event: Callable[..., None] | None = None,
    on_listen: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal; the loop of the configuration learns meanwhile.

    When the loop's source ends, or the loop fails, predictions go on.

    Parameters
    ----------
    learn
        Run the loop; else predictions alone.
    on_event
        Called as the loop's, in its thread; and as ``on_event("failed", error=...)`` when it ends
        with an error, ``on_event("ended", ...)`` otherwise.
    on_listen
        Called with the server's URL when it listens; port 0 is then a real one.

    Raises
    ------
    ConfigError, ProgramError, StateError
        The configuration, or what it names, cannot be used.
    """
    s, tell = config.serve, on_event or (lambda *_, **__: None)
    predictor = Predictor(
        config.path(config.model.program), config.path(config.state.path), keep=s.keep)
    metrics, inbox = Metrics(), Inbox()
    desk = desk_of(config, predictor, inbox) if learn else None

    def event(kind: str, **detail: Any) -> None:
        metrics.event(kind, **detail)
        if desk is not None:
            if kind in ("promoted", "rejected"):
                desk.update_ended()
            elif kind in ("ended", "failed"):
                desk.closed = f"the loop has {kind}"
        tell(kind, **detail)

    learner = Learning(config, predictor, event, inbox) if learn else None
    server = server_of(config, predictor, metrics, desk)
    server.on_listen = on_listen
    # The server ends in order on a signal and then raises it once more: that would end the process.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
    sys.setswitchinterval(SWITCH)
    if learner is not None:
        learner.start()
    try:
        server.run()
    finally:
        if learner is not None:
            learner.stop()


def desk_of(config: Config, predictor: Predictor, inbox: Inbox) -> Desk | None:
    """Make what takes feedback; None where none is taken."""
    s = config.serve
    if not s.feedback:
        return None
    return Desk(inbox, labels_of(config, predictor.program),
                Limits(s.feedback, s.feedback_per_minute, s.feedback_quota))


def server_of(
    config: Config, predictor: Predictor, metrics: Metrics, desk: Desk | None = None
) -> Server:
    """Make the server that a configuration asks for; it does not listen yet."""
    s = config.serve
    guarded = Guard(
        app(s.name or config.model.program.stem, predictor, metrics, desk),
        hosts=(s.host, *s.hosts), origins=s.origins, max_body=s.max_body, timeout=s.timeout,
        tokens=None if s.token_file is None else tokens_of(config.path(s.token_file)))
    return Server(uvicorn.Config(
        guarded, host=s.host, port=s.port, http=patient(s.timeout), loop="asyncio", ws="none",
        lifespan="off", log_level="warning", access_log=False, server_header=False,
        limit_concurrency=s.connections, h11_max_incomplete_event_size=MAX_HEADERS,
        timeout_graceful_shutdown=3,
        ssl_certfile=None if s.cert is None else str(config.path(s.cert)),
        ssl_keyfile=None if s.cert_key is None else str(config.path(s.cert_key))))


def tokens_of(path: Path) -> dict[str, str]:
    """Read tokens by the name of their sender; a lone token is that of "default".

    Raises
    ------
    ConfigError
        The file cannot be read, may be read by others, or a line is not NAME:TOKEN.
    """
    lines = [line.strip() for line in read_token(path).splitlines() if line.strip()]
    if len(lines) == 1 and ":" not in lines[0]:
        return {"default": lines[0]}
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, colon, token = line.partition(":")
        if not colon or not _NAME.fullmatch(name) or not token or name in found:
            raise ConfigError(
                f"{path}: line {number} is not NAME:TOKEN with a name of its own (letters, digits, "
                ". _ -)")
        found[name] = token
    if not found:
        raise ConfigError(f"{path}: holds no token; write one, or lines NAME:TOKEN")
    return found


class Server(uvicorn.Server):
    """A server that says where it listens."""

    on_listen: Callable[[str], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.on_listen is not None and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            self.on_listen(f"{'https' if self.config.is_ssl else 'http'}://{host}:{port}")


class Learning(threading.Thread):
    """The loop in a thread of its own."""

    def __init__(
        self, config: Config, predictor: Predictor, tell: Callable[..., None],
        inbox: Inbox | None = None,
    ) -> None:
        super().__init__(name="edgeloop-loop", daemon=True)
        self._config, self._predictor, self._tell, self._inbox = config, predictor, tell, inbox
        self._loop: Loop | None = None
        self._halt = threading.Event()

    def run(self) -> None:
        """Learn until the source ends or :meth:`stop`."""
        try:
            report: Report = loop.run(
                self._config, on_event=self._event, on_open=self._opened, inbox=self._inbox)
        except Exception as error:  # noqa: BLE001 - predictions outlive what the loop met
            self._tell("failed", error=f"{type(error).__name__}: {error}")
        else:
            self._tell("ended", reason=report.ended, items=report.items, live=report.live)

    def stop(self) -> None:
        """Suspend what is under way and wait until the state is closed, 10 s at most."""
        self._halt.set()
        if self._loop is not None:
            self._loop.stop()
        self.join(10.0)  # one that waits for a sensor cannot; what it committed is safe

    def _opened(self, running: Loop) -> None:
        self._loop = running
        if self._halt.is_set():
            running.stop()

    def _event(self, kind: str, **detail: Any) -> None:
        if kind in ("promoted", "regressed"):
            with suppress(StateError):  # it looks again by itself, and tells what troubles it
                self._predictor.refresh()
        self._tell(kind, **detail)


def patient(seconds: float) -> type[H11Protocol]:
    """A protocol whose connections end when a request's headers take longer than `seconds`."""

    class Patient(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self._late is None and self._idle():
                self._wait()
            super().data_received(data)
            if not self._idle():
                self._heard()

        def connection_lost(self, exc: Exception | None) -> None:
            self._heard()
            super().connection_lost(exc)

        def _idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            self._late = self.loop.call_later(seconds, self._end)

        def _heard(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _end(self) -> None:
            self._late = None
            if self._idle():
                self.transport.close()

    return Patient
