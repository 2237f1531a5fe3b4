"""A stream written down as it comes: before windows and features, after the privacy filters."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.data.item import Feedback, Item
from edgeloop.data.privacy import Filter, apply_filters, plainly, told, without_quotes
from edgeloop.data.recording import Recorder
from edgeloop.data.streams import stop
from edgeloop.errors import ConfigError, DataError
from edgeloop.loop.budget import resident_bytes
from edgeloop.loop.checks import labels_of
from edgeloop.loop.config import Config
from edgeloop.loop.programs import programs_of
from edgeloop.loop.setup import filters_of, raw_feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(slots=True)
class Recorded:
    """What was written down.

    Attributes
    ----------
    items, labels, bad, filtered
        Items, labels that came later, records that could not be used, and records that a privacy
        filter dropped.
    bytes, cut
        Bytes of the whole file, and those of a torn record that were cut off before.
    seconds
        How long it took.
    """

    items: int = 0
    labels: int = 0
    bad: int = 0
    filtered: int = 0
    bytes: int = 0
    cut: int = 0
    seconds: float = 0.0


def record(
    config: Config | str | Path,
    path: str | Path,
    *,
    source: Iterable[Any] | None = None,
    items: int | None = None,
    seconds: float | None = None,
    append: bool = False,
    stamp: bool = False,
    wall: Callable[[], float] = time.time,
    on_open: Callable[[Callable[[], None]], None] | None = None,
) -> Recorded:
    """Record the stream of a loop, which does not run meanwhile, until it ends.

    Names of streams stay whatever the filters say where [window] itself says them.

    Parameters
    ----------
    config
        A configuration, or the path of a loop.toml.
    path
        The file to write.
    source
        Instead of the configured one: any iterable of x, (x, y), Item or Feedback.
    items, seconds
        End after so many items, or so long; a source that waits and knows no end of its own ends
        with its next record.
    append
        Go on behind what the file holds.
    stamp
        Items without a time get that of their arrival by `wall` (Unix seconds).
    on_open
        Called with what ends it, from any thread.

    Raises
    ------
    ConfigError
        The configuration is wrong, its [privacy] forbids a recording, or the file is there already.
    DataError
        A record cannot be used and source.on_bad is "stop"; those before it are written.
    """
    if (items is not None and items < 1) or (seconds is not None and not seconds > 0):
        raise ConfigError(f"record: items is {items}, seconds {seconds}; they must be above 0")
    if not isinstance(config, Config):
        config = Config.load(config)
    plain = config.privacy.plain
    if config.privacy.raw == "never stored":
        raise ConfigError(
            f'{config.name}: privacy.raw: "never stored", and a recording holds what is raw; '
            'record with privacy.raw = "allowed"'
        )
    if config.privacy.coarse_time is not None and config.window is not None:
        raise ConfigError(
            f"{config.name}: privacy.coarse_time: windows cannot be cut again from blocks with "
            "coarse times; record without it, or without [window]"
        )
    program = programs_of(config, resident_bytes())[0]
    feed = raw_feed(config, labels_of(config, program), source)
    filters, done, over = filters_of(config), Recorded(), threading.Event()
    streams = () if config.window is None else (*config.window.streams, *config.window.rates)
    name, _ = told(filters, feed.name.rpartition("/")[2]) or ("", None)

    def end() -> None:
        over.set()
        stop(feed)

    began = time.monotonic()
    timer = threading.Timer(seconds or 0.0, end)
    timer.daemon = True
    with Recorder(Path(path), name, append=append) as file:
        done.cut = file.cut
        if on_open is not None:
            on_open(end)
        if seconds is not None:
            timer.start()
        try:
            number = 0
            for came in plainly(feed.name, feed.items()) if plain else feed.items():
                if came is None:
                    continue
                number += 1
                try:
                    _write(file, _stamped(came, wall) if stamp else came, filters, streams, done)
                except DataError as error:
                    bad = error
                    if error is not came:
                        bad = (without_quotes(feed.name, number, error) if plain
                               else DataError(f"{feed.name}: record {number}: {error}"))
                    if config.source.on_bad == "stop":
                        raise bad from None
                    file.write(bad)
                    done.bad += 1
                if over.is_set() or done.items == items:
                    break
        finally:
            timer.cancel()
            done.bytes, done.seconds = file.size, time.monotonic() - began
    return done


def _write(
    file: Recorder, came: Item | Feedback | DataError, filters: Sequence[Filter],
    streams: Sequence[str], done: Recorded,
) -> None:
    """Write a record as the filters leave it; DataError where it is bad or becomes it."""
    if isinstance(came, DataError):
        raise came
    kept: Item | Feedback | None
    if isinstance(came, Item):
        kept = apply_filters(filters, came)
        stream = came.meta.get("stream")
        if kept is not None and isinstance(stream, str) and stream in streams:
            kept = replace(kept, meta={**kept.meta, "stream": stream})
    else:
        # The filters know items: its key and moment are to become what those of its item become.
        about = told(filters, came.key or "", came.time)
        kept = None if about is None else replace(
            came, key=None if came.key is None else about[0], time=about[1])
    if kept is None:
        done.filtered += 1
        return
    file.write(kept)
    if isinstance(kept, Item):
        done.items += 1
    else:
        done.labels += 1


def _stamped(
    came: Item | Feedback | DataError, wall: Callable[[], float]
) -> Item | Feedback | DataError:
    """An item with the time of its arrival, where it has none."""
    return replace(came, time=wall()) if isinstance(came, Item) and came.time is None else came
