"""What a device shows to be let in."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_TOKEN = 4096


def read_token(path: Path) -> str:
    """The device's token; ConfigError when others may read it too."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"token {path} cannot be read: {error}; the hub's operator gave it to this device"
        raise ConfigError(msg) from error
    if stat.S_IMODE(mode) & 0o077:
        msg = f"token {path} may be read by others: chmod 600 {path}"
        raise ConfigError(msg)
    return text
