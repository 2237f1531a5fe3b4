"""The SQLite connection: opened durable, checked, one transaction at a time, errors in words."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.beside import BACKUP
from edgeloop.errors import DamagedError, StateError
from edgeloop.program.files import sync_folder
from edgeloop.store.lock import ProcessLock
from edgeloop.store.schema import APPLICATION_ID, MIGRATIONS, STATE_FORMAT, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHE = "PRAGMA cache_size=-512"  # KiB; the loop's RAM plan counts on it


class Connection:
    """A state file in use.

    Parameters
    ----------
    path : Path
        Created when absent, unless `readonly`.
    readonly : bool
        Read beside a running writer; takes no lock and changes nothing.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path = path
        self.readonly = readonly
        self.format = STATE_FORMAT  # of the tables as they are
        self._depth = 0
        self._lock: ProcessLock | None = None
        self._db: sqlite3.Connection | None = None
        try:
            with self._in_words("opening"):
                self._find()
                self._db = self._open()
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _find(self) -> None:
        if self.readonly:
            if not self.path.is_file():
                msg = f"state {self.path} does not exist: `edgeloop run` creates it"
                raise StateError(msg)
            return
        if not self.path.parent.is_dir():
            msg = f"state {self.path}: the folder {self.path.parent} does not exist; create it"
            raise StateError(msg)
        self._lock = ProcessLock(self.path)

    def _open(self) -> sqlite3.Connection:
        if not self.readonly:
            self._create()
        uri = self.path.absolute().as_uri()
        # A writer that died on its way to a log left a journal: whoever comes next, a reader too,
        # has to take back what that holds before anything can be read.
        journal = Path(f"{self.path}-journal")
        left = journal.is_file() and journal.stat().st_size > 0
        mode = "ro" if self.readonly and not left else "rw"
        # A read-only folder without a log cannot hold SQLite's shared index: nothing moves there.
        wal = Path(f"{self.path}-wal")
        if self.readonly and not wal.exists() and not os.access(self.path.parent, os.W_OK):
            mode += "&immutable=1"
        return sqlite3.connect(f"{uri}?mode={mode}", uri=True, isolation_level=None, timeout=5.0)

    def _create(self) -> None:
        # Samples are private: the file belongs to its owner alone. An existing file is not
        # touched: closing a descriptor would drop the POSIX locks of other connections.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _prepare(self) -> None:
        # No tables yet: new, or the power failed while it was being made.
        fresh = self.query("SELECT count(*) FROM sqlite_schema")[0][0] == 0
        if fresh and self.readonly:
            msg = f"state {self.path} is empty: `edgeloop run` fills it"
            raise StateError(msg)
        if not fresh:
            self._check_format()
        self.query(_CACHE)
        if self.readonly:
            return
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # every commit waits for its fsync
            "foreign_keys=ON",
            "secure_delete=ON",  # a dropped sample is overwritten, not left in free pages
            "journal_size_limit=1048576",
        ):
            self.query(f"PRAGMA {pragma}")
        if fresh:
            with self.transaction():
                for table in TABLES:
                    self.query(table)
                self.query(f"PRAGMA application_id={APPLICATION_ID}")
                self.query(f"PRAGMA user_version={STATE_FORMAT}")
            sync_folder(self.path)
            return
        if (verdict := self.query("PRAGMA quick_check(1)")[0][0]) != "ok":
            raise sqlite3.DatabaseError(verdict)
        self._migrate()

    def _migrate(self) -> None:
        """Bring an older file to today's format: in one transaction, or not at all."""
        if self.format == STATE_FORMAT:
            return
        with self.transaction():
            for step in range(self.format, STATE_FORMAT):
                for statement in MIGRATIONS[step]:
                    self.query(statement)
            self.query(f"PRAGMA user_version={STATE_FORMAT}")
        self.format = STATE_FORMAT

    def _check_format(self) -> None:
        owner = self.query("PRAGMA application_id")[0][0]
        if owner != APPLICATION_ID:
            msg = f"{self.path} is an SQLite file, but not edgeloop state: choose another path"
            raise StateError(msg)
        found = self.query("PRAGMA user_version")[0][0]
        if found > STATE_FORMAT:
            msg = (
                f"state {self.path} has format {found}; this edgeloop reads up to "
                f"{STATE_FORMAT}: install a newer edgeloop, the file was left as it is"
            )
            raise StateError(msg)
        self.format = found

    def query(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        if self._db is None:
            msg = f"state {self.path} is closed"
            raise StateError(msg)
        with self._in_words("reading" if sql.startswith("SELECT") else "changing"):
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything inside one durable commit; nested blocks join the outermost one."""
        if self.readonly:
            msg = f"state {self.path} was opened read-only: nothing can be changed through it"
            raise StateError(msg)
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        self.query("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self.query("COMMIT")
        except BaseException:
            # After a full disk SQLite may have rolled back by itself.
            if self._db is not None and self._db.in_transaction:
                self._db.rollback()
            raise
        finally:
            self._depth = 0

    def copy_to(self, path: Path) -> None:
        """Write a copy of what is committed, as one file without a log; synced."""
        if self._db is None:
            msg = f"state {self.path} is closed"
            raise StateError(msg)
        with self._in_words("copying"):
            path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            other = sqlite3.connect(path, isolation_level=None)
            try:
                other.execute("PRAGMA synchronous=FULL")
                other.execute(_CACHE)
                self._db.backup(other)
                other.execute("PRAGMA journal_mode=DELETE")
            finally:
                other.close()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._depth > 0

    @contextmanager
    def _in_words(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error, doing) from error
        except UnicodeError as error:  # rotten text, even inside SQLite's own messages
            raise self._explained(sqlite3.DatabaseError("malformed text"), doing) from error
        except OSError as error:
            msg = f"state {self.path}: {doing} failed: {error.strerror}; check path and rights"
            raise StateError(msg) from error

    def _explained(self, error: sqlite3.Error, doing: str) -> StateError:
        text = str(error)
        head = f"state {self.path}: {doing} failed: {text}"
        if "full" in text or "disk I/O" in text:
            return StateError(
                f"{head}; earlier versions and the last checkpoint are intact: free disk space")
        if "readonly" in text or "unable to open" in text:
            return StateError(f"{head}; check the rights of the file and its folder")
        if "locked" in text or "busy" in text:
            return StateError(f"{head}; another process is using it: wait for it or stop it")
        if type(error) is sqlite3.DatabaseError or "malformed" in text:
            copy = Path(f"{self.path}{BACKUP}")
            way = f"`edgeloop import {copy} {self.path}`" if copy.is_file() else "restore a copy"
            return DamagedError(
                f"{head}; the file is damaged: {way}, or move it away to start afresh")
        return StateError(head)

    def close(self) -> None:
        """Close the file and let the next process in; closing twice is fine."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
