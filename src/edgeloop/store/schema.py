"""The state file's tables and its own format version (docs/spec/state.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID = 0x45444C50  # "EDLP"
STATE_FORMAT = 2

# When and from where a sample came first, and which samples a version was trained on: by key.
_ORIGINS = (
    """CREATE TABLE arrival (
        key TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        at REAL NOT NULL) WITHOUT ROWID, STRICT""",
    """CREATE TABLE lesson (
        version INTEGER NOT NULL REFERENCES version(id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        PRIMARY KEY (version, key)) WITHOUT ROWID, STRICT""",
)
# STRICT lets quick_check notice a value whose type rotted.
TABLES = (
    """CREATE TABLE version (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        parent INTEGER REFERENCES version(id) ON DELETE SET NULL,
        program_hash TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        metrics TEXT NOT NULL,
        created REAL NOT NULL,
        adapter BLOB NOT NULL,
        codec TEXT NOT NULL DEFAULT 'f32',
        base INTEGER REFERENCES version(id),
        stored TEXT,
        lineage TEXT NOT NULL DEFAULT 'local',
        label TEXT,
        pinned INTEGER NOT NULL DEFAULT 0) STRICT""",
    """CREATE TABLE live (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL REFERENCES version(id)) STRICT""",
    """CREATE TABLE job (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        program_hash TEXT NOT NULL,
        parent INTEGER REFERENCES version(id) ON DELETE SET NULL,
        snapshot BLOB NOT NULL,
        rng BLOB NOT NULL,
        cursor TEXT NOT NULL,
        journal TEXT NOT NULL,
        isa TEXT NOT NULL,
        sha256 TEXT NOT NULL) STRICT""",
    """CREATE TABLE sample (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        x BLOB NOT NULL,
        y BLOB NOT NULL,
        y_is_int INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        UNIQUE (kind, key)) STRICT""",
    """CREATE TABLE kv (
        key TEXT PRIMARY KEY,
        value BLOB NOT NULL,
        sha256 TEXT NOT NULL) WITHOUT ROWID, STRICT""",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        created REAL NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL) STRICT""",
    *_ORIGINS,
)

# From each format to the next one: what is new only, so that nothing that was written is touched.
MIGRATIONS = {
    1: (
        "ALTER TABLE version ADD COLUMN codec TEXT NOT NULL DEFAULT 'f32'",
        "ALTER TABLE version ADD COLUMN base INTEGER REFERENCES version(id)",
        "ALTER TABLE version ADD COLUMN stored TEXT",
        "ALTER TABLE version ADD COLUMN lineage TEXT NOT NULL DEFAULT 'local'",
        "ALTER TABLE version ADD COLUMN label TEXT",
        "ALTER TABLE version ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        *_ORIGINS,
    ),
}
# What a reader, who migrates nothing, asks of each format.
VERSION_COLUMNS = {
    1: "'f32', NULL, version.sha256, 'local', NULL, 0",
    2: "codec, base, coalesce(stored, version.sha256), lineage, label, pinned",
}


def is_state_file(path: Path) -> bool:
    """Whether a file carries SQLite's mark and ours, be it damaged further in or not."""
    with path.open("rb") as file:
        head = file.read(72)
    return head[:16] == b"SQLite format 3\0" and head[68:] == APPLICATION_ID.to_bytes(4, "big")
