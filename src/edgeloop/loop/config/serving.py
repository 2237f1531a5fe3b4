"""The table about serving predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Bytes, Range, Seconds

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """[serve]: predictions over HTTP, for `edgeloop serve`.

    Attributes
    ----------
    host
        Address to listen on. Other than the loopback it needs `token_file`, `cert` and `cert_key`.
    port
        Port to listen on.
    name
        Of the model, in paths; None: the program file's, without its ending.
    token_file
        Holds the bearer token that every request must carry, or a line NAME:TOKEN for each sender;
        mode 0600. None: no token.
    cert, cert_key
        PEM files of the server's certificate and its key: HTTPS. None: HTTP.
    hosts
        Further names that clients use for this server (without port), besides the loopback's.
    origins
        Origins of web pages that may ask, besides the server's own.
    max_body
        Size of a request at most.
    timeout
        Time for a request's headers, and again for its body, to arrive.
    connections
        Connections at a time; more are told to come later (503).
    feedback
        Predictions whose raw windows are kept in memory until a label comes for them; 0: no
        feedback is taken. It needs `token_file`.
    feedback_per_minute
        Labels that a sender may give in a minute.
    feedback_quota
        Labels of one sender between the ends of two updates.
    keep
        Versions besides the live one that are kept ready to answer.
    """

    host: str = "127.0.0.1"
    port: int = field(default=8000, metadata={"range": Range(0, 65535)})
    name: str | None = None
    token_file: Path | None = None
    cert: Path | None = None
    cert_key: Path | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: Bytes = field(default=Bytes(4 << 20))
    timeout: Seconds = field(default=Seconds(10.0))
    connections: int = field(default=64, metadata={"range": Range(1)})
    feedback: int = field(default=0, metadata={"range": Range(0)})
    feedback_per_minute: float = field(default=30.0, metadata={"range": Range(0.01)})
    feedback_quota: int = field(default=64, metadata={"range": Range(1)})
    keep: int = field(default=2, metadata={"range": Range(0, 64)})

    def check(self) -> None:
        """Raise ConfigError where a key needs another; the message begins with it."""
        if (self.cert is None) != (self.cert_key is None):
            raise ConfigError("serve.cert and serve.cert_key: set both, or neither")
        if self.feedback and self.token_file is None:
            raise ConfigError("serve.feedback: needs serve.token_file, so that senders are known")
        if self.host not in LOOPBACK and (self.cert is None or self.token_file is None):
            raise ConfigError(
                f"serve.host: {self.host} can be reached from other machines; set "
                "serve.token_file, serve.cert and serve.cert_key, or listen on 127.0.0.1")
