"""From blocks of raw samples to windows in real time, and from late labels to labelled items."""

from edgeloop.data.streams.counts import Counted, Marked, counts_of, mark_of, resume, stop
from edgeloop.data.streams.feedback import Matched, Settled
from edgeloop.data.streams.rows import Rows
from edgeloop.data.streams.window import Windowed

__all__ = [
    "Counted",
    "Marked",
    "Matched",
    "Rows",
    "Settled",
    "Windowed",
    "counts_of",
    "mark_of",
    "resume",
    "stop",
]
