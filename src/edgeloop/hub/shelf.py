"""What the hub keeps: root documents, packages, devices, uploads; one folder, one SQLite file.

The hub can hand out only what release keys signed elsewhere; it holds none of these. Its own key
answers nonces. Who breaks into it can hold releases back, and read what devices sent.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeloop.delta import DELTA, PROGRAM, unpack
from edgeloop.delta.manifest import NOTHING
from edgeloop.delta.package import open_envelope, read_manifest
from edgeloop.delta.programs import envelope_of, is_program, read_program_manifest
from edgeloop.errors import ConfigError, DeltaError, HubError, TrustError
from edgeloop.link.transport import LARGEST_PACKAGE, Notice, Offer
from edgeloop.program.files import Replacement
from edgeloop.trust import Root, key_id, load_signer
from edgeloop.trust.trust import answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeloop.delta import Manifest
    from edgeloop.trust import Signer

_FORMAT = 1
_TABLES = (
    "CREATE TABLE root (version INTEGER PRIMARY KEY, document BLOB NOT NULL) STRICT",
    """CREATE TABLE release (
        sequence INTEGER NOT NULL,
        audience TEXT NOT NULL,
        digest TEXT NOT NULL,
        result TEXT NOT NULL,
        percent REAL NOT NULL,
        halted TEXT,
        created REAL NOT NULL,
        PRIMARY KEY (sequence)) STRICT""",
    """CREATE TABLE package (
        sha256 TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL REFERENCES release(sequence) ON DELETE CASCADE,
        bytes INTEGER NOT NULL,
        kind TEXT NOT NULL,
        parent TEXT) STRICT""",
    """CREATE TABLE device (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        public TEXT NOT NULL,
        token TEXT NOT NULL,
        seen REAL) STRICT""",
    """CREATE TABLE upload (
        sha256 TEXT NOT NULL,
        device TEXT NOT NULL REFERENCES device(id) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (device, sequence)) STRICT""",
    """CREATE TABLE report (
        device TEXT NOT NULL REFERENCES device(id) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (device, sequence)) STRICT""",
)
_MOST = 1 << 53  # no number that devices name is larger
OUTCOMES = ("taken", "refused", "regressed")


class Halt(NamedTuple):
    """When a rollout stops by itself: bad reports, and their share of all reports, at least."""

    reports: int = 3
    share: float = 0.2


class Shelf:
    """A hub's folder. Methods are transactions; safe to use from one thread."""

    def __init__(self, folder: Path, *, halt: Halt = Halt()) -> None:  # noqa: B008 - immutable
        self.folder = folder
        self._halt = halt
        path = folder / "hub.db"
        if not path.is_file():
            raise ConfigError(f"{folder} is no hub: `edgeloop hub init` makes one")
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0,
                                   check_same_thread=False)
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found != _FORMAT:
            raise ConfigError(f"{path} has format {found}, this edgeloop reads {_FORMAT}")
        self.signer: Signer = load_signer(folder / "fresh.key")

    @classmethod
    def create(cls, folder: Path, root: bytes, fresh_key: Path) -> Shelf:
        """Make a hub of a fleet; its key must be one that the root document lists as "fresh"."""
        document = Root.first(root)
        if key_id(load_signer(fresh_key).public) not in document.keys["fresh"]:
            raise TrustError(
                f"key {fresh_key} is not among the fresh keys of fleet {document.fleet!r}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "hub.db"
        if path.exists():
            raise ConfigError(f"{folder} is a hub already")
        for name in ("packages", "uploads"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        key = folder / "fresh.key"
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(fresh_key.read_bytes())
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN")
        for table in _TABLES:
            db.execute(table)
        db.execute("INSERT INTO root VALUES (?, ?)", (document.version, root))
        db.execute(f"PRAGMA user_version={_FORMAT}")
        db.execute("COMMIT")
        db.close()
        return cls(folder)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise

    # Root documents

    @property
    def root(self) -> Root:
        """The newest root document, believed because each one signs the next."""
        return self._last()[0]

    def _last(self) -> tuple[Root, bytes]:
        rows = self._db.execute("SELECT document FROM root ORDER BY version").fetchall()
        found = Root.first(rows[0][0])
        for (document,) in rows[1:]:
            found = found.next(document)
        return found, rows[-1][0]

    def root_document(self, version: int) -> bytes | None:
        """A root document by its version."""
        if not 0 < version < _MOST:
            return None
        rows = self._db.execute("SELECT document FROM root WHERE version = ?", (version,))
        found: tuple[bytes] | None = rows.fetchone()
        return found[0] if found else None

    def add_root(self, document: bytes) -> int:
        """Take the next root document; returns its version."""
        with self._transaction():
            after = self.root.next(document)
            self._db.execute("INSERT INTO root VALUES (?, ?)", (after.version, document))
        return after.version

    # Releases

    def publish(self, path: Path, *, percent: float | None = None) -> Manifest:
        """Take a package whose release this fleet's keys signed; all packages of it lead to one.

        `percent`: to how many devices the release goes; None: to all where it is new, else as it
        was.

        Raises
        ------
        DeltaError
            Not signed as it must be, or another content than the release has here.
        """
        root = self.root
        manifest, kind = self._read(path, root)
        release = manifest.release(kind)
        if release is None:
            raise DeltaError(f"{path} is no release: pack it with --key, --sequence, --audience")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._transaction():
            rows = self._db.execute(
                "SELECT digest FROM release WHERE sequence = ?", (release.sequence,)).fetchall()
            if rows and rows[0][0] != release.digest:
                raise DeltaError(
                    f"release {release.sequence} is here already with another content: "
                    "number the new one higher")
            (newest,) = self._db.execute(
                "SELECT coalesce(max(sequence), 0) FROM release").fetchone()
            if not rows and release.sequence <= newest:
                raise DeltaError(
                    f"release {release.sequence} is not newer than {newest}, which is here")
            self._db.execute(
                "INSERT OR IGNORE INTO release VALUES (?, ?, ?, ?, ?, NULL, ?)",
                (release.sequence, release.audience, release.digest, release.result,
                 100.0 if percent is None else percent, time.time()))
            if percent is not None:
                self._db.execute("UPDATE release SET percent = ? WHERE sequence = ?",
                                 (percent, release.sequence))
            self._db.execute(
                "INSERT OR REPLACE INTO package VALUES (?, ?, ?, ?, ?)",
                (digest, release.sequence, path.stat().st_size, _kind(manifest, kind),
                 manifest.parent))
            self._copy(path, self.package_path(digest))
        return manifest

    def _read(self, path: Path, root: Root) -> tuple[Manifest, str]:
        if is_program(path):
            kind, manifest = PROGRAM, read_program_manifest(path, None)[0]
            envelope = envelope_of(path)
        else:
            if path.stat().st_size > LARGEST_PACKAGE:
                raise DeltaError(f"{path} is larger than {LARGEST_PACKAGE} bytes")
            opened = unpack(path.read_bytes())
            kind, manifest, envelope = DELTA, opened.manifest, opened.envelope
        root.demand("release", kind, envelope)
        return manifest, kind

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with source.open("rb") as file, Replacement(target, 0o600) as out:
            while chunk := file.read(1 << 20):
                out.write(chunk)

    def package_path(self, sha256: str) -> Path:
        """Where a package stands."""
        return self.folder / "packages" / sha256

    def rollout(self, sequence: int, *, percent: float | None = None,
                halted: str | None = None, resume: bool = False) -> None:
        """Give a release to more devices or fewer, stop it, or let it go on."""
        if percent is not None and not 0.0 <= percent <= 100.0:
            raise ConfigError(f"a share of {percent} %: from 0 to 100")
        with self._transaction():
            if not self._db.execute(
                    "SELECT 1 FROM release WHERE sequence = ?", (sequence,)).fetchall():
                raise ConfigError(f"there is no release {sequence} here")
            if percent is not None:
                self._db.execute("UPDATE release SET percent = ? WHERE sequence = ?",
                                 (percent, sequence))
            if halted is not None or resume:
                self._db.execute("UPDATE release SET halted = ? WHERE sequence = ?",
                                 (halted, sequence))
            if resume:  # what was said of it so far has been judged by people
                self._db.execute("DELETE FROM report WHERE sequence = ? AND outcome != 'taken'",
                                 (sequence,))

    def releases(self) -> list[dict[str, Any]]:
        """All releases, newest first, with what devices said of them."""
        rows = self._db.execute(
            "SELECT sequence, audience, percent, halted, created FROM release"
            " ORDER BY sequence DESC").fetchall()
        return [
            {"sequence": n, "audience": whom, "percent": percent, "halted": halted, "created": at,
             "reports": dict(self._db.execute(
                 "SELECT outcome, count(*) FROM report WHERE sequence = ? GROUP BY outcome", (n,)))}
            for n, whom, percent, halted, at in rows
        ]

    # Devices

    def add_device(self, name: str, public: bytes) -> str:
        """Let a device in; returns its token, which is stored as a hash only."""
        token = secrets.token_urlsafe(32)
        with self._transaction():
            taken = self._db.execute(
                "SELECT 1 FROM device WHERE name = ? AND id != ?", (name, key_id(public)))
            if taken.fetchall():
                raise ConfigError(
                    f"device {name!r} has another key here: --drop it first, or choose a name")
            self._db.execute(
                "INSERT INTO device VALUES (?, ?, ?, ?, NULL) ON CONFLICT (id) DO UPDATE SET"
                " name = excluded.name, token = excluded.token",
                (key_id(public), name, public.hex(), _hashed(token)))
        return token

    def drop_device(self, name: str) -> None:
        """Let a device in no more; what it sent stays."""
        with self._transaction():
            gone = f"{name} (dropped {time.strftime('%Y-%m-%d %H:%M:%S')}, {secrets.token_hex(2)})"
            if not self._db.execute("UPDATE device SET token = '', name = ? WHERE name = ?",
                                    (gone, name)).rowcount:
                raise ConfigError(f"there is no device {name!r} here")

    def device_of(self, token: str) -> str | None:
        """Key id of the device whose token this is."""
        hashed = _hashed(token)
        for device, known in self._db.execute("SELECT id, token FROM device").fetchall():
            if hmac.compare_digest(known, hashed):
                self._db.execute("UPDATE device SET seen = ? WHERE id = ?", (time.time(), device))
                return str(device)
        return None

    def devices(self) -> list[dict[str, Any]]:
        """All devices, with how many uploads each made."""
        rows = self._db.execute(
            "SELECT id, name, seen, (SELECT count(*) FROM upload WHERE device = id) FROM device"
            " ORDER BY name").fetchall()
        return [{"id": i, "name": name, "seen": seen, "uploads": n} for i, name, seen, n in rows]

    # What devices ask

    def notice(self, device: str) -> Notice | None:
        """The newest release that this device is to have now."""
        rows = self._db.execute(
            "SELECT sequence, audience, result, percent, halted FROM release"
            " ORDER BY sequence DESC").fetchall()
        for sequence, audience, result, percent, halted in rows:
            for_it = audience in (f"fleet:{self.root.fleet}", f"device:{device}")
            if for_it and halted is None and share(device, sequence) < percent:
                offers = self._db.execute(
                    "SELECT sha256, bytes, kind, parent FROM package WHERE sequence = ?",
                    (sequence,)).fetchall()
                return Notice(sequence, result, tuple(Offer(*o) for o in offers))
        return None

    def answer(self, device: str, nonce: str) -> bytes:
        """Sign what is newest here for such devices, rolled out to it already or not."""
        root = self.root
        (newest,) = self._db.execute(
            "SELECT coalesce(max(sequence), 0) FROM release WHERE halted IS NULL"
            " AND audience IN (?, ?)", (f"fleet:{root.fleet}", f"device:{device}")).fetchone()
        return answer(
            self.signer, nonce=nonce, device=device, fleet=root.fleet, root=root.version,
            sequence=newest, now=time.time())

    def report(self, device: str, sequence: int, outcome: str) -> bool:
        """Note how a release did on a device; True when that stopped its rollout."""
        if outcome not in OUTCOMES:
            raise HubError(f"outcome {outcome[:40]!r} is none of {', '.join(OUTCOMES)}", status=400)
        if not 0 < sequence < _MOST:
            raise HubError(f"there is no release {sequence} here", status=404)
        with self._transaction():
            if not self._db.execute(
                    "SELECT 1 FROM release WHERE sequence = ?", (sequence,)).fetchall():
                raise HubError(f"there is no release {sequence} here", status=404)
            self._db.execute("INSERT OR REPLACE INTO report VALUES (?, ?, ?, ?)",
                             (device, sequence, outcome, time.time()))
            counts = dict(self._db.execute(
                "SELECT outcome = 'taken', count(*) FROM report WHERE sequence = ?"
                " GROUP BY outcome = 'taken'", (sequence,)).fetchall())
            bad, every = counts.get(0, 0), sum(counts.values())
            stops: bool = bad >= self._halt.reports and bad >= self._halt.share * every
            if stops:
                self._db.execute(
                    "UPDATE release SET halted = ? WHERE sequence = ? AND halted IS NULL",
                    (f"{bad} of {every} devices reported it as bad", sequence))
        return stops

    # What devices send

    def held(self, device: str, sha256: str, size: int) -> int:
        """Bytes of an upload that are here."""
        self._fits(size)
        if self._upload_path(sha256).exists():
            return size
        part = self._part(device, sha256)
        here = part.stat().st_size if part.exists() else 0
        if here >= size:  # all had come when the hub was killed, and nobody had judged it yet
            self._finish(device, sha256)
        return here

    def send(self, device: str, sha256: str, start: int, piece: bytes, size: int) -> int:
        """Take the next bytes of an upload; when all are here, judge and keep it.

        Raises
        ------
        HubError
            409: not the next bytes; 4xx: what it is, is not what this device may send.
        """
        here = self.held(device, sha256, size)
        if here == size:
            return size  # a retry of what was taken
        if start != here or here + len(piece) > size:
            raise HubError(f"{here} of {size} bytes are here", status=409)
        part = self._part(device, sha256)
        with part.open("ab") as file:
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        here += len(piece)
        if here == size:
            self._finish(device, sha256)
        return here

    def _finish(self, device: str, sha256: str) -> None:
        """Judge an upload that is all here, and keep it; one that is refused is deleted."""
        part = self._part(device, sha256)
        try:
            self._keep(device, sha256, part.read_bytes())
        except HubError:
            part.unlink()
            raise
        part.replace(self._upload_path(sha256))

    def _keep(self, device: str, sha256: str, package: bytes) -> None:
        if hashlib.sha256(package).hexdigest() != sha256:
            raise HubError("what came does not have the stated SHA-256", status=400)
        public = bytes.fromhex(self._db.execute(
            "SELECT public FROM device WHERE id = ?", (device,)).fetchone()[0])
        try:
            envelope, payload = open_envelope(package)
            if not envelope.signers(DELTA, {device: public}):
                raise HubError("it is not signed by the device that sends it", status=403)
            manifest = read_manifest(envelope, payload).manifest
        except DeltaError as error:
            raise HubError(str(error), status=400) from error
        if manifest.device != device or manifest.sequence is None:
            raise HubError("it does not say that this device sends it", status=403)
        with self._transaction():
            known = self._db.execute(
                "SELECT sha256 FROM upload WHERE device = ? AND sequence = ?",
                (device, manifest.sequence)).fetchall()
            if known and known[0][0] != sha256:
                raise HubError(
                    f"upload {manifest.sequence} of this device was another one: is there a copy "
                    "of the device?", status=403)
            self._db.execute("INSERT OR IGNORE INTO upload VALUES (?, ?, ?, ?)",
                             (sha256, device, manifest.sequence, time.time()))

    def uploads(self) -> list[dict[str, Any]]:
        """What devices sent, newest last."""
        rows = self._db.execute(
            "SELECT sha256, name, sequence, at FROM upload JOIN device ON device.id = device"
            " ORDER BY at, sequence").fetchall()
        return [{"sha256": s, "device": name, "sequence": n, "at": at,
                 "file": str(self._upload_path(s))} for s, name, n, at in rows]

    def _fits(self, size: int) -> None:
        if not 0 < size <= LARGEST_PACKAGE:
            raise HubError(f"an upload has at most {LARGEST_PACKAGE} bytes", status=413)

    def _upload_path(self, sha256: str) -> Path:
        return self.folder / "uploads" / sha256

    def _part(self, device: str, sha256: str) -> Path:
        return self.folder / "uploads" / f"{device}.{sha256}.part"


def share(device: str, sequence: int) -> float:
    """Where a device stands in the rollout of a release: evenly spread over 0 to 100."""
    digest = hashlib.sha256(f"{sequence}:{device}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100.0


def _hashed(token: str) -> str:
    # A token has 256 random bits: nobody can try them, so that a plain hash will do.
    return hashlib.sha256(token.encode()).hexdigest()


def _kind(manifest: Manifest, kind: str) -> str:
    if kind == PROGRAM:
        return "program"
    if manifest.codec == NOTHING:
        return "back"
    return "full" if manifest.parent is None else "delta"
