"""Send what this device learnt, and how releases did here: queued first, then sent until held."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgeloop.errors import LinkError
from edgeloop.link.transport import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeloop.link.transport import Transport
    from edgeloop.store import Message, Outbox

REPORT = "report "


class Pushed(NamedTuple):
    """Packages and reports that the server holds now, bytes sent for it, and what it will not have.

    ``refused``: pairs of what a message was about and why the server refused it for good.
    """

    packages: int
    reports: int
    bytes: int
    refused: tuple[tuple[str, str], ...] = ()


def push(
    outbox: Outbox, transport: Transport, *, moved: Callable[[int], None] = lambda _: None
) -> Pushed:
    """Send all that waits, oldest first, each until the server holds all of it.

    Parameters
    ----------
    moved
        Told the bytes of each piece that got through.

    Raises
    ------
    LinkError
        The connection broke, or the server knows this device not: what it does not hold waits on.
    """
    packages = reports = nbytes = 0
    refused: list[tuple[str, str]] = []
    for message in outbox.waiting():
        try:
            if message.about.startswith(REPORT):
                _, sequence, outcome = message.about.split(" ")
                transport.report(int(sequence), outcome)
                reports += 1
            else:
                nbytes += _send(message, transport, moved)
                packages += 1
        except LinkError as error:
            if error.again or error.stranger:
                raise
            refused.append((message.about, str(error)))  # trying again would block all behind it
        outbox.sent(message)
    return Pushed(packages, reports, nbytes, tuple(refused))


def _send(message: Message, transport: Transport, moved: Callable[[int], None]) -> int:
    body, sent = message.body, 0
    start = transport.held(message.sha256, len(body))
    while start < len(body):
        piece = body[start : start + PIECE]
        transport.send(message.sha256, start, piece, len(body))
        moved(len(piece))
        sent += len(piece)
        held = transport.held(message.sha256, len(body))
        if held <= start:
            raise LinkError("the server does not keep what is sent to it", again=True)
        start = held
    return sent
