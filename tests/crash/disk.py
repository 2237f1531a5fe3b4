"""What a disk may hold when the power fails: a model of files, names and syncs.

A log of tests/store/shim.c is replayed up to an instant. Of what was written to a file since its
last sync each 512-byte sector is there or not. Names are made, moved and deleted in order, as a
journalled file system does it: of those since the folder's last sync some first ones happened. A
sync of a file makes its first name durable too.
"""

from __future__ import annotations

from pathlib import Path

SECTOR = 512


class File:
    """Contents: what is durable, and what was written since."""

    def __init__(self):
        self.durable, self.pending = bytearray(), []

    def sync(self):
        for change in self.pending:
            apply(self.durable, change)
        self.pending.clear()

    def after(self, rng, share):
        """Contents after the power came back."""
        content = bytearray(self.durable)
        for kind, number, data in self.pending:
            if kind == "T":
                if rng.random() < share:
                    apply(content, (kind, number, data))
                continue
            for start in range(0, len(data), SECTOR):
                if rng.random() < share:
                    apply(content, ("W", number + start, data[start : start + SECTOR]))
        return bytes(content)


def apply(content, change):
    kind, number, data = change
    content.extend(bytes(max(0, number - len(content))))
    if kind == "W":
        content[number : number + len(data)] = data
    else:
        del content[number:]


class Disk:
    """Files as a log leaves them, beginning with those of a folder."""

    def __init__(self, before: Path | None = None):
        self.live, self.names, self.moves = {}, {}, []
        for path in () if before is None else before.rglob("*"):
            if path.is_file():
                self.live[str(path)] = self.names[str(path)] = file = File()
                file.durable += path.read_bytes()

    def play(self, records):
        for kind, path, number, data in records:
            if kind in "WT":
                file = self.live.get(path)
                if file is None:
                    file = self.live[path] = File()
                    self.moves.append(("make", path, file))
                file.pending.append((kind, number, data))
            elif kind == "S":
                self.sync(path)
            elif kind == "U" and path in self.live:
                del self.live[path]
                self.moves.append(("drop", path, None))
            elif kind == "R" and data.decode() in self.live:
                self.live[path] = self.live.pop(data.decode())
                self.moves.append(("move", path, data.decode()))

    def sync(self, path):
        file = self.live.get(path)
        if file is not None:
            file.sync()
            for move in [m for m in self.moves if m[0] == "make" and m[2] is file]:
                self.moves.remove(move)
                change_names(self.names, move)
            return
        # A folder: the names in it, and what came before them in the file system's journal.
        last = max((i for i, m in enumerate(self.moves) if str(Path(m[1]).parent) == path),
                   default=-1)
        for move in self.moves[: last + 1]:
            change_names(self.names, move)
        del self.moves[: last + 1]

    def after(self, rng):
        """Files by their paths after the power failed here."""
        names = dict(self.names)
        for move in self.moves[: rng.randint(0, len(self.moves))]:
            change_names(names, move)
        share = rng.choice([0.0, 0.5, 1.0])
        found = {id(f): f.after(rng, share) for f in set(names.values())}
        return {path: found[id(file)] for path, file in names.items()}


def change_names(names, move):
    what, path, other = move
    if what == "make":
        names[path] = other
    elif what == "drop":
        names.pop(path, None)
    elif other in names:
        names[path] = names.pop(other)
