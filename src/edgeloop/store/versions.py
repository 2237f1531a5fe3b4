"""Versions in the state file: what the device learnt, what arrived, and which one is live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgeloop.errors import DamagedError, StateError
from edgeloop.store.codec import adapter_to_bytes, from_json, sha256, to_json
from edgeloop.store.compress import CODECS, decode, encode, like, rounded
from edgeloop.store.diary import Diary
from edgeloop.store.records import BEFORE, LINEAGES, Version
from edgeloop.store.schema import VERSION_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

# Versions in a row that are stored as differences: reading the last one reads them all.
LONGEST_CHAIN = 8
# Never dropped: the live version, its parent, what is pinned, what a running job started from, a
# release that is to be built on (REBASE), the version beside which one is tried (TRIAL), and what
# was live until a release took its place (BEFORE).
_KEPT = (
    "pinned OR id IN (SELECT version FROM live)"
    " OR id IN (SELECT parent FROM version WHERE parent IS NOT NULL"
    "           AND id IN (SELECT version FROM live))"
    " OR id IN (SELECT parent FROM job WHERE parent IS NOT NULL)"
    " OR id IN (SELECT json_extract(CAST(value AS TEXT), '$[0]') FROM kv"
    "           WHERE key IN ('rebase', 'trial', 'before'))"
)

_SELECT = {
    number: "SELECT id, parent, program_hash, version.sha256, metrics, created,"  # noqa: S608
    " id IS (SELECT version FROM live), length(adapter), " + columns + " FROM version "
    for number, columns in VERSION_COLUMNS.items()
}


class Versions(Diary):
    """The part of :class:`edgeloop.store.Store` that knows versions."""

    def commit(
        self,
        adapter: Mapping[str, np.ndarray],
        *,
        program_hash: str,
        parent: int | None,
        metrics: Mapping[str, Any],
        live: bool,
        finish_job: bool = False,
        codec: str = "f32",
        lineage: str = "local",
        label: str | None = None,
        lesson: Iterable[str] = (),
    ) -> Version:
        """Store a new version, in one transaction.

        Parameters
        ----------
        live : bool
            Make it the live version as well.
        finish_job : bool
            Clear the running job in the same transaction.
        codec : str
            How its weights are stored: "f32" (exact), "f16" or "int8" (rounded, see
            :mod:`edgeloop.store.compress`), "xor" (exact, as the difference to the parent, where
            that is smaller). The version is what is read back: round a candidate with
            :func:`edgeloop.store.compress.rounded` before judging it.
        lineage : str
            "local": learnt on this device; "fleet": arrived from elsewhere.
        label : str, optional
            A name for people.
        lesson : iterable of str
            Keys of the samples that it was trained on.

        Raises
        ------
        StateError
            A weight is not finite, `parent` is unknown, or the disk is full: nothing changed.
        """
        if lineage not in LINEAGES:
            msg = f"lineage {lineage!r} is unknown: use one of {', '.join(LINEAGES)}"
            raise StateError(msg)
        if codec not in CODECS:
            msg = f"codec {codec!r} is unknown: use one of {', '.join(CODECS)}"
            raise StateError(msg)
        with self._db.transaction():
            if parent is not None:
                self.version(parent)
            base = self._base(adapter, parent) if codec == "xor" else None
            if codec == "xor" and base is None:
                codec = "f32"
            blob = encode(adapter, codec, None if base is None else self._read(base))
            exact = adapter_to_bytes(rounded(adapter, codec))
            if base is not None and len(blob) >= len(exact):
                codec, base, blob = "f32", None, exact
            row = self._db.query(
                "INSERT INTO version (parent, program_hash, sha256, metrics, created, adapter,"
                " codec, base, stored, lineage, label) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " RETURNING id",
                (parent, program_hash, sha256(exact), to_json(metrics), time.time(), blob,
                 codec, None if base is None else base.id, sha256(blob), lineage, label),
            )
            for key in sorted(set(lesson)):
                self._db.query("INSERT INTO lesson VALUES (?, ?)", (row[0][0], key))
            if live:
                self.promote(row[0][0])
            if finish_job:
                self._db.query("DELETE FROM job")
            return self.version(row[0][0])

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        return [_version(row) for row in self._select("ORDER BY id")]

    def version(self, id: int) -> Version:  # noqa: A002 - the word of the table
        """One version by number; StateError when there is none."""
        rows = self._select("WHERE id = ?", id)
        if not rows:
            msg = f"state {self._db.path} has no version {id}: `edgeloop versions` lists them"
            raise StateError(msg)
        return _version(rows[0])

    def live(self) -> Version | None:
        """Return the version that predictions use; None: the adapter the program shipped with."""
        rows = self._select("WHERE id IN (SELECT version FROM live)")
        return _version(rows[0]) if rows else None

    def _select(self, rest: str, *values: int) -> list[tuple[Any, ...]]:
        return self._db.query(_SELECT[self._db.format] + rest, values)

    def adapter(self, id: int) -> dict[str, np.ndarray]:  # noqa: A002
        """Weights of a version by name, as fresh arrays.

        A damaged live version gives way to its nearest intact ancestor (or to the shipped
        adapter), so that the next start works; the error says so.

        Raises
        ------
        StateError
            No such version, or its bytes do not have the recorded SHA-256.
        """
        version = self.version(id)
        try:
            return self._read(version)
        except DamagedError as error:
            msg = str(error)
        if not version.live:
            raise DamagedError(f"{msg}; the live version is not affected")
        heir = self._intact_ancestor(version)
        name = "the adapter the program shipped with" if heir is None else f"version {heir}"
        if self._db.readonly or self._db.in_transaction:
            raise DamagedError(f"{msg}; {name} is intact: `edgeloop rollback` goes back to it")
        with self._db.transaction():
            self._db.query("DELETE FROM live")
            if heir is not None:
                self.promote(heir)
            self.event("version_lost", {"version": id, "live": heir})
        raise DamagedError(f"{msg}; {name} is live now: start again")

    def _read(self, version: Version) -> dict[str, np.ndarray]:
        """Weights of a version whose bytes, and those of what they differ from, are intact."""
        blob = self._db.query("SELECT adapter FROM version WHERE id = ?", (version.id,))[0][0]
        msg = (f"version {version.id} lost: its bytes in {self._db.path} do not have the recorded "
               "SHA-256")
        if sha256(blob) != version.stored:
            raise DamagedError(msg)
        base = None
        if version.codec == "xor":
            lost = f"version {version.id} lost: it is stored as a difference"
            if version.base is None:
                raise DamagedError(f"{lost} to one that is gone")
            try:
                base = self._read(self.version(version.base))
            except DamagedError as error:
                raise DamagedError(f"{lost}; {error}") from error
        adapter = decode(blob, version.codec, base)
        if version.codec != "f32" and sha256(adapter_to_bytes(adapter)) != version.sha256:
            raise DamagedError(msg)
        return adapter

    def damaged(self) -> list[int]:
        """Numbers of the versions whose weights cannot be read back."""
        return [v.id for v in self.versions() if not self.intact(v)]

    def intact(self, version: Version) -> bool:
        """Whether the weights of a version can be read back."""
        try:
            self._read(version)
        except DamagedError:
            return False
        return True

    def _intact_ancestor(self, version: Version) -> int | None:
        while version.parent is not None:
            version = self.version(version.parent)
            if self.intact(version):
                return version.id
        return None

    def _base(self, adapter: Mapping[str, np.ndarray], parent: int | None) -> Version | None:
        """What a version may be stored as a difference to: its intact parent, or nothing."""
        if parent is None:
            return None
        base = at = self.version(parent)
        length = 1
        while at.base is not None:
            length, at = length + 1, self.version(at.base)
        if length >= LONGEST_CHAIN or not self.intact(base) or not like(adapter, self._read(base)):
            return None
        return base

    def promote(self, id: int) -> None:  # noqa: A002
        """Make a version the live one; DamagedError, and nothing changes, when it is not intact."""
        with self._db.transaction():
            try:
                self._read(self.version(id))
            except DamagedError as error:
                live = self.live()
                stays = "nothing is live" if live is None else f"version {live.id} stays live"
                raise DamagedError(f"{error}; {stays}") from error
            self._db.query("INSERT OR REPLACE INTO live (one, version) VALUES (1, ?)", (id,))

    def rollback(self) -> Version:
        """Move live to its parent and return that; the version left behind is kept.

        Where a release took the place of what was live, be it that one's child or not, it is that
        which is live again.
        """
        with self._db.transaction():
            live = self.live()
            if live is None:
                msg = f"state {self._db.path} has no live version: there is nothing to roll back"
                raise StateError(msg)
            to = live.parent
            for (value,) in self._db.query("SELECT value FROM kv WHERE key = ?", (BEFORE,)):
                before, after = from_json(value.decode())
                if after == live.id:
                    to = before
            if to is None:
                msg = f"version {live.id} in {self._db.path} has no parent to roll back to"
                raise StateError(msg)
            self.promote(to)
            self.event("rollback", {"from": live.id, "to": to})
            return self.version(to)

    def pin(self, id: int, *, pinned: bool = True) -> None:  # noqa: A002
        """Keep a version whatever the retention rules say, or no longer."""
        with self._db.transaction():
            self.version(id)
            self._db.query("UPDATE version SET pinned = ? WHERE id = ?", (int(pinned), id))

    def label(self, id: int, text: str | None) -> None:  # noqa: A002
        """Give a version a name for people, or none."""
        with self._db.transaction():
            self.version(id)
            self._db.query("UPDATE version SET label = ? WHERE id = ?", (text or None, id))

    def gc(self, *, keep: int | None = None, quota: int | None = None) -> list[int]:
        """Drop the oldest versions until the rules hold, in one transaction.

        The live version, its parent, pinned ones and the one that a running job started from are
        never dropped, even where they alone exceed the rules.

        Parameters
        ----------
        keep : int, optional
            Versions that stay at most, the newest ones.
        quota : int, optional
            Bytes that the weights of all versions take at most.

        Returns
        -------
        list of int
            Numbers of what was dropped, oldest first.
        """
        dropped: list[int] = []
        with self._db.transaction():
            may = {r[0] for r in self._db.query(f"SELECT id FROM version WHERE NOT ({_KEPT})")}  # noqa: S608
            if keep is not None:
                newest = [v.id for v in self.versions()][::-1][:keep]
                dropped = [i for i in sorted(may) if i not in newest]
                self._drop(dropped)
            while quota is not None and (may := may - set(dropped)):
                if sum(v.bytes for v in self.versions()) <= quota:
                    break
                oldest = min(may)
                self._drop([oldest])
                dropped.append(oldest)
        return sorted(dropped)

    def _drop(self, ids: Iterable[int]) -> None:
        """Delete versions; what is stored as a difference to them is stored whole first."""
        ids = set(ids)
        for v in self.versions():
            if v.base not in ids or v.id in ids:
                continue
            if self.intact(v):
                blob = adapter_to_bytes(self._read(v))
                self._db.query(
                    "UPDATE version SET adapter = ?, codec = 'f32', stored = ? WHERE id = ?",
                    (blob, sha256(blob), v.id))
            self._db.query("UPDATE version SET base = NULL WHERE id = ?", (v.id,))
        # The newest first: a version may be another one's base.
        for i in sorted(ids, reverse=True):
            self._db.query("DELETE FROM version WHERE id = ?", (i,))


def _version(row: tuple[Any, ...]) -> Version:
    number, parent, program_hash, digest, metrics, created, live, size, *rest = row
    codec, base, stored, lineage, label, pinned = rest
    return Version(
        number, parent, program_hash, digest, from_json(metrics), created, bool(live), size or 0,
        codec, base, stored, lineage, label, bool(pinned),
    )
