"""Ids that cannot be guessed back: a keyed hash under the device's own secret."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from edgeloop.data.item import Item

KEY_BYTES = 32


class HashIds:
    """Replaces ids by HMAC-SHA256 under the device's own secret.

    Equal ids stay equal on this device; without the secret nobody can test a guess against them.

    Parameters
    ----------
    secret
        At least 32 bytes, see :func:`device_key`.
    fields
        Fields of `meta` to replace.
    key
        Replace the item's key (a file name, an id) too.
    """

    def __init__(self, secret: bytes, fields: Collection[str] = (), *, key: bool = True) -> None:
        if len(secret) < KEY_BYTES:
            raise DataError(f"a hashing key has {len(secret)} bytes; use at least {KEY_BYTES}")
        self._secret = secret
        self._fields = frozenset(fields)
        self._key = key

    def digest(self, value: object) -> str:
        """Keyed hash of one id, 32 hex digits."""
        text = str(value).encode("utf-8", "surrogatepass")  # JSON may hold half a character
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]

    def __call__(self, item: Item) -> Item:
        """Return the item with its ids hashed."""
        meta = {k: self.digest(v) if k in self._fields else v for k, v in item.meta.items()}
        return replace(item, key=self.digest(item.key) if self._key else item.key, meta=meta)


def device_key(path: Path) -> bytes:
    """Read the device's hashing key, made (mode 0600) when the file does not exist.

    Raises
    ------
    DataError
        The file cannot be read or made, may be read by others, or is too short.
    """
    try:
        if not path.exists():
            # Written aside and linked: a kill in between leaves no half-written key.
            aside = path.with_name(f"{path.name}.{os.getpid()}")
            aside.unlink(missing_ok=True)  # of a process of that number, long ago
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, os.urandom(KEY_BYTES))
                os.fsync(handle)
            finally:
                os.close(handle)
            with suppress(FileExistsError):  # another process was faster: its key counts
                os.link(aside, path)
            aside.unlink()
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            secret = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot read or make the hashing key ({error})") from error
    if mode & 0o077:
        raise DataError(
            f"{path}: the hashing key may be read by others (mode {mode:04o}): chmod 600 {path}"
        )
    if len(secret) < KEY_BYTES:
        raise DataError(
            f"{path}: the hashing key has {len(secret)} bytes, needs {KEY_BYTES}; restore the file "
            "or remove it to get a new key (ids hashed so far will not match)"
        )
    return secret
