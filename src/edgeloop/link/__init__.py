"""The way to the update server and back: slow, interrupted, and believed in nothing."""

from edgeloop.link.http import HttpTransport
from edgeloop.link.pace import Throttle, patiently
from edgeloop.link.pull import Pulled, fetched, pull
from edgeloop.link.push import Pushed, push
from edgeloop.link.token import read_token
from edgeloop.link.transport import Notice, Offer, Transport

__all__ = [
    "HttpTransport",
    "Notice",
    "Offer",
    "Pulled",
    "Pushed",
    "Throttle",
    "Transport",
    "fetched",
    "patiently",
    "pull",
    "push",
    "read_token",
]
