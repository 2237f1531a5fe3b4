"""The store: one SQLite file is the whole state of a device."""

from __future__ import annotations

import hmac
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgeloop.errors import StateError
from edgeloop.store.codec import (
    array_from_bytes,
    array_to_bytes,
    from_json,
    label_to_bytes,
    sha256,
    to_json,
)
from edgeloop.store.connection import Connection
from edgeloop.store.records import REPORTS, SETS, Job, Sample
from edgeloop.store.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

_DEVICE = "device_id"
_KEYED_BY = "secret"  # keys what leaves the device in place of a hash of its data
_ITEM = "substr(key, instr(key, ':') + 1)"


class Store(Versions):
    """A device's state: use :meth:`open`.

    Every method is one durable transaction unless called inside :meth:`transaction`; a
    method that raises has changed nothing. Not for use from several threads.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, readonly: bool = False) -> Store:
        """Open, or create, the state file at `path`.

        Parameters
        ----------
        path : path
            The SQLite file; ``-wal``, ``-shm`` and ``.lock`` stand beside it.
        readonly : bool
            Look only: works beside a running writer.

        Raises
        ------
        StateError
            In use by another process, damaged, not ours, of a newer format, or not writable.
        """
        store = cls(Connection(Path(path), readonly=readonly))
        try:
            for key in () if readonly else (_DEVICE, _KEYED_BY):
                if not store._db.query("SELECT 1 FROM kv WHERE key = ?", (key,)):
                    store.put_kv(key, os.urandom(16).hex().encode())
        except BaseException:
            store.close()
            raise
        return store

    @property
    def path(self) -> Path:
        """The state file."""
        return self._db.path

    @property
    def device_id(self) -> str | None:
        """Random name of this device, made with the state file; tells nothing about the machine."""
        value = self.kv(_DEVICE)
        return None if value is None else value.decode("ascii")

    def keyed(self, text: str) -> str | None:
        """HMAC-SHA256 of a text under this device's own secret; None where it has none yet.

        Two devices give the same text other digests, and nobody without the secret can try texts.
        """
        secret = self.kv(_KEYED_BY)
        return None if secret is None else hmac.new(secret, text.encode(), "sha256").hexdigest()

    @property
    def sqlite_version(self) -> str:
        """Version of the SQLite library in use."""
        return str(self._db.query("SELECT sqlite_version()")[0][0])

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> list[str]:
        """Check SQLite's own structure; returns what is wrong, nothing for an intact file."""
        found = [str(row[0]) for row in self._db.query("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def copy_to(self, path: Path) -> None:
        """Write what is committed as one file without a log, synced, in nobody's place yet."""
        self._db.copy_to(path)

    def transaction(self) -> AbstractContextManager[None]:
        """Group several calls into one durable commit: all of them happen, or none."""
        return self._db.transaction()

    # The running job

    def job(self) -> Job | None:
        """Return the job under way, or None; StateError when its bytes are damaged."""
        rows = self._db.query(
            "SELECT program_hash, parent, snapshot, rng, cursor, journal, isa, sha256 FROM job"
        )
        if not rows:
            return None
        *fields, digest = rows[0]
        if _job_digest(*fields) != digest:
            msg = (
                f"the running job in {self.path} is damaged (SHA-256 differs); versions are not "
                "affected: `edgeloop run --discard-job` starts the job afresh"
            )
            raise StateError(msg)
        program_hash, parent, snapshot, rng, cursor, journal, isa = fields
        return Job(program_hash, parent, snapshot, rng, from_json(cursor), from_json(journal), isa)

    def has_job(self) -> bool:
        """Whether a job is under way, damaged or not."""
        return bool(self._db.query("SELECT 1 FROM job"))

    def save_job(self, job: Job) -> None:
        """Checkpoint the job, replacing the last checkpoint."""
        fields = (
            job.program_hash,
            job.parent,
            job.snapshot,
            job.rng,
            to_json(job.cursor),
            to_json(job.journal),
            job.isa,
        )
        with self.transaction():
            self._db.query(
                "INSERT OR REPLACE INTO job (one, program_hash, parent, snapshot, rng, cursor,"
                " journal, isa, sha256) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*fields, _job_digest(*fields)),
            )

    def clear_job(self) -> None:
        """Forget the job under way."""
        with self.transaction():
            self._db.query("DELETE FROM job")

    # Samples

    def put_samples(self, items: Sequence[Sample]) -> None:
        """Keep samples, all or none; a known (set, key) is replaced in its place."""
        with self.transaction():
            for item in items:
                if item.set not in SETS:
                    msg = f"sample set {item.set!r} is unknown: use one of {', '.join(SETS)}"
                    raise StateError(msg)
                x, y, is_int = array_to_bytes(item.x), *label_to_bytes(item.y)
                digest = sha256(item.set, item.key, x, y)
                self._db.query(
                    "INSERT INTO sample (kind, key, x, y, y_is_int, sha256)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET"
                    " x = excluded.x, y = excluded.y, y_is_int = excluded.y_is_int,"
                    " sha256 = excluded.sha256",
                    (item.set, item.key, x, y, is_int, digest),
                )

    def samples(self, set: str) -> list[Sample]:  # noqa: A002
        """Return a set in the order its samples were first put; StateError when one is damaged."""
        rows = self._db.query(
            "SELECT key, x, y, y_is_int, sha256 FROM sample WHERE kind = ? ORDER BY seq", (set,)
        )
        found = []
        for key, x, y, y_is_int, digest in rows:
            if sha256(set, key, x, y) != digest:
                msg = (
                    f"sample {key!r} of set {set!r} in {self.path} is damaged (SHA-256 differs): "
                    f"drop_samples({set!r}, [{key!r}]) removes it"
                )
                raise StateError(msg)
            label = array_from_bytes(y)
            found.append(Sample(set, array_from_bytes(x), int(label) if y_is_int else label, key))
        return found

    def damaged_samples(self) -> list[tuple[str, str]]:
        """Set and key of each sample that is not what was written; holds one at a time."""
        found = []
        for (seq,) in self._db.query("SELECT seq FROM sample ORDER BY seq"):
            (kind, key, x, y, digest), = self._db.query(
                "SELECT kind, key, x, y, sha256 FROM sample WHERE seq = ?", (seq,))
            if sha256(kind, key, x, y) != digest:
                found.append((kind, key))
        return found

    def sample_counts(self) -> dict[str, int]:
        """How many samples each set holds, without reading them."""
        return dict(self._db.query("SELECT kind, count(*) FROM sample GROUP BY kind"))

    def drop_samples(self, set: str, keys: Iterable[str] | None = None) -> None:  # noqa: A002
        """Delete the samples of a set, or only those with the given keys; pages are wiped."""
        with self.transaction():
            if keys is None:
                self._db.query("DELETE FROM sample WHERE kind = ?", (set,))
                return
            for key in keys:
                self._db.query("DELETE FROM sample WHERE kind = ? AND key = ?", (set, key))

    # Where samples came from. In the loop a sample's key is its slot, a colon, and the item's key.

    def arrived(self, keys: Iterable[str], source: str) -> None:
        """Note when, and from where, items of these keys came; the first time counts."""
        with self.transaction():
            for key in keys:
                self._db.query(
                    "INSERT OR IGNORE INTO arrival VALUES (?, ?, ?)", (key, source, time.time()))

    def tidy_arrivals(self) -> None:
        """Drop what is noted of items that no sample and no version knows any more."""
        with self.transaction():
            self._db.query(
                f"DELETE FROM arrival WHERE key NOT IN (SELECT {_ITEM} FROM sample)"  # noqa: S608
                " AND key NOT IN (SELECT key FROM lesson)")

    def from_where(
        self, *, since: float | None = None, source: str | None = None, key: str | None = None
    ) -> list[str]:
        """Keys of the items that are kept, or were trained on, and meet all that is asked.

        Of samples older than format 2 of this file nobody noted when and from where they came:
        they meet any ``since`` and ``source``.
        """
        if self._db.format < 2:
            rows = self._db.query(f"SELECT DISTINCT {_ITEM}, NULL, NULL FROM sample")  # noqa: S608
        else:
            rows = self._db.query(
                f"SELECT item, source, at FROM (SELECT {_ITEM} AS item FROM sample"  # noqa: S608
                " UNION SELECT key FROM lesson) LEFT JOIN arrival ON arrival.key = item")
        return sorted(
            item for item, whence, at in rows
            if (key is None or item == key)
            and (source is None or whence is None or whence == source)
            and (since is None or at is None or at >= since))

    def trained_on(self, keys: Iterable[str]) -> list[int]:
        """Numbers of the versions that were trained on any of these items."""
        if self._db.format < 2:
            return []
        wanted = set(keys)
        return sorted({v for v, key in self._db.query("SELECT version, key FROM lesson")
                       if key in wanted})

    def forget_items(self, keys: Iterable[str]) -> tuple[int, int]:
        """Delete all samples of these items; returns of how many items, and how many samples.

        Which versions were trained on them, when and from where they came stays known, by key.
        """
        counts = []
        with self.transaction():
            for key in keys:
                rows = self._db.query(
                    f"DELETE FROM sample WHERE {_ITEM} = ? RETURNING seq", (key,))  # noqa: S608
                counts.append(len(rows))
            self.tidy_arrivals()
        return sum(n > 0 for n in counts), sum(counts)

    def shrink_log(self) -> None:
        """Move what is committed into the file, and cut the log to nothing."""
        self._db.query("PRAGMA wal_checkpoint(TRUNCATE)")

    # Small things by name

    def put_kv(self, key: str, value: bytes) -> None:
        """Keep a small value by name."""
        with self.transaction():
            self._db.query(
                "INSERT OR REPLACE INTO kv (key, value, sha256) VALUES (?, ?, ?)",
                (key, value, sha256(key, value)),
            )

    def drop_kv(self, key: str) -> None:
        """Delete a value; there need not be one."""
        with self.transaction():
            self._db.query("DELETE FROM kv WHERE key = ?", (key,))

    def kv(self, key: str) -> bytes | None:
        """Return the value kept under `key`, or None; StateError when its bytes are damaged."""
        rows = self._db.query("SELECT value, sha256 FROM kv WHERE key = ?", (key,))
        if not rows:
            return None
        value: bytes = rows[0][0]
        if sha256(key, value) != rows[0][1]:
            msg = f"value {key!r} in {self.path} is damaged (SHA-256 differs): put it again"
            raise StateError(msg)
        return value

    def report(self, sequence: int | None, outcome: str) -> None:
        """Note for the update server how a release did here; the newest 32 lines are kept.

        ``sequence``: number of the release; None: it came by hand, and nobody is to be told.
        """
        if sequence is not None:
            line = [sequence, outcome]
            said = [other for other in self.reports() if other != line]
            self.put_kv(REPORTS, to_json([*said[-31:], line]).encode())

    def reports(self) -> list[list[Any]]:
        """How releases did here, oldest first: [sequence, outcome] each."""
        return list(from_json((self.kv(REPORTS) or b"[]").decode()))

    def kv_names(self) -> list[str]:
        """Return the names of the values."""
        return [row[0] for row in self._db.query("SELECT key FROM kv ORDER BY key")]


def _job_digest(
    program_hash: str, parent: int | None, snapshot: bytes, rng: bytes, *texts: str
) -> str:
    # The parent is left out: pruning may set it to NULL.
    del parent
    return sha256(program_hash, snapshot, rng, *texts)
