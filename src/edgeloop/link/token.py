"""What a device shows to be let in."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 16384  # bytes


def read_token(path: Path) -> str:
    """Text of a file of tokens; ConfigError when others may read it too, or it is too large."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST + 1).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"token {path} cannot be read: {error}; whoever runs the server gives it out"
        raise ConfigError(msg) from error
    if stat.S_IMODE(mode) & 0o077:
        msg = f"token {path} may be read by others: chmod 600 {path}"
        raise ConfigError(msg)
    if len(text) > _LARGEST:
        msg = f"token {path} is larger than {_LARGEST} bytes: that is no token"
        raise ConfigError(msg)
    return text.strip()
