"""Tables about what comes in: source, windows, late labels, memories, views, privacy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.data.augment import CHANGES
from edgeloop.data.buffers import POLICIES, STORAGES
from edgeloop.data.privacy import AllowFields, CoarsePlace, CoarseTime, HashIds, Redact
from edgeloop.loop.schema import Bytes, Range, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeloop.data.privacy import Filter


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """[source]: "kind" and its options, kept in `options`, and what holds for every kind.

    Attributes
    ----------
    on_bad
        "stop" ends the run at the first record that cannot be used (the state stays good);
        "skip" counts it and goes on.
    realtime
        True: a thread empties the source into a queue of buffer.capacity items while the loop is
        busy, or with [window] into rings of window.ring samples, and counts what it had to drop.
        False: the source waits.
    speed
        Replays a source whose items have times at so many times true speed: 60 is an hour in a
        minute. None: as fast as it goes.
    """

    on_bad: str = field(default="stop", metadata={"choices": ("stop", "skip")})
    realtime: bool = False
    speed: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """[window]: cut windows out of the blocks of samples that the source gives.

    Without the table the source's items are windows already.

    Attributes
    ----------
    length
        Samples of a window, at `rate`.
    hop
        Samples between the starts of two windows; None: `length`.
    rate
        Samples a second (Hz) of the windows. Streams of other rates are resampled.
    rates
        Nominal samples a second (Hz) of the streams, by name; "*" is every other stream. Those not
        named have `rate`. The ratio to `rate` must be one of whole numbers up to 1000.
    streams
        Names of streams whose channels stand side by side, in this order, aligned by time. Empty:
        the source is one stream.
    channels
        Channels of all streams together, for the plan of RAM; None: one.
    channels_first
        Windows are [channels, length] instead of [length, channels].
    ring
        Samples of each stream that wait at most; when it is full the oldest go and are counted.
    tolerance
        How far time stamps of two blocks may be off against each other, in half sample periods,
        before samples count as missing. Raise it for stamps taken by a busy host.
    drift_ppm
        How far a sensor's clock may run from its nominal rate, in parts per million.
    """

    length: int = field(metadata={"range": Range(1)})
    hop: int | None = field(default=None, metadata={"range": Range(1)})
    rate: float = field(metadata={"range": Range(1e-6)})
    rates: dict[str, Any] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    channels: int | None = field(default=None, metadata={"range": Range(1)})
    channels_first: bool = False
    ring: int = field(default=65536, metadata={"range": Range(1)})
    tolerance: float = field(default=1.0, metadata={"range": Range(0)})
    drift_ppm: float = field(default=200.0, metadata={"range": Range(0, 100000)})


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig:
    """[feedback]: labels that come later than their items; unlabelled items wait for them.

    Attributes
    ----------
    by
        "key": a label names its item's key. "time": it names a moment inside its item.
    wait
        How long an item waits by the stream's own clock; then it goes on unlabelled.
    tolerance
        Time between a moment and an item that does not cover it, at most.
    capacity
        Items that wait at most; the oldest goes on unlabelled for a new one.
    """

    by: str = field(default="key", metadata={"choices": ("key", "time")})
    wait: Seconds = field(default=Seconds(600.0))
    tolerance: Seconds = field(default=Seconds(1.0))
    capacity: int = field(default=256, metadata={"range": Range(1)})


@dataclass(frozen=True, kw_only=True)
class BufferConfig:
    """[buffer]: memories of fixed size, in samples or in bytes.

    Attributes
    ----------
    capacity
        New samples since the last update; beyond that the oldest is dropped and counted. None: 256,
        or a share of `bytes`.
    rehearsal
        Samples of earlier updates, balanced by class. None: 256, or a share of `bytes`.
    validation
        Samples for early stopping, balanced by class. None: 64, or a share of `bytes`.
    bytes
        Size of all sets together ("2 MiB"), instead of counts: 40 % new samples, 40 % rehearsal,
        10 % validation, 10 % gate set, but at least gate.min_samples. A count that is given stands,
        and the other sets divide the rest. None: counts decide.
    storage
        How samples are kept, but those of the gate set: "f32", "f16", or "int8" (127 steps of the
        sample's largest magnitude). Training sees them as kept.
    policy
        Which sample of its class a new one replaces in the rehearsal memory: "balanced", any of
        them alike; "loss", rather one that the live version gets right; "recent", the oldest, there
        and in the validation set: for streams that drift.
    near_duplicate
        A training sample is not kept when its distance to one that is held, of its class, is at
        most this part of its own length. 0: off.
    novelty_threshold
        A sample is novel when it is more than this many typical distances away from what is
        remembered of its class. 0: off, which saves up to 128 bytes a sample to train on.
    persist_every
        Items between writes of the memories to the state file, beside those at every decision;
        0: decisions only when the source can be read again (nothing is lost), else 16.
    """

    capacity: int | None = field(default=None, metadata={"range": Range(1)})
    rehearsal: int | None = field(default=None, metadata={"range": Range(0)})
    validation: int | None = field(default=None, metadata={"range": Range(0)})
    bytes: Bytes | None = None
    storage: str = field(default="f32", metadata={"choices": STORAGES})
    policy: str = field(default="balanced", metadata={"choices": POLICIES})
    near_duplicate: float = field(default=0.0, metadata={"range": Range(0, 1)})
    novelty_threshold: float = field(default=1.5, metadata={"range": Range(0)})
    persist_every: int = field(default=0, metadata={"range": Range(0)})


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """[train.augment]: each training sample is kept in `views`; view 0 is the sample as it came.

    Epoch e trains on view e modulo `views`. The changes act in the order of
    data.augment.CHANGES: shift, crop, crop_pad, flip, quarter_turn, turn_deg, rotate_deg, scale,
    gain_db, jitter, snr_db, drop_channel, drop_token on the raw window, then time_mask and
    freq_mask on the features. Clips of sound are first placed in the length that the features take.

    Attributes
    ----------
    views
        Views kept of each training sample; 1: no augmentation.
    time_axis, channel_axis
        Axes of the raw window: [time, channels] by default; 1 and 0 for channels first.
    shift
        Largest move along time, in samples, either way; zeros come in.
    crop
        Least share of the time that a random stretch keeps, resampled to full length.
    crop_pad
        Least share of the time that a random stretch keeps at its place, zeros around it.
    flip
        Axes of the raw window that are mirrored, each with probability one half.
    quarter_turn
        Turn square images [.., n, n] by 0, 90, 180 or 270 degrees.
    turn_deg
        Turn images [.., height, width] by at most so many degrees, bilinear.
    rotate_deg
        Turn 3-axis channels by at most so many degrees around a random axis in space.
    scale
        Deviation of a factor around 1 for each channel.
    gain_db
        Range of one factor for the window, in decibels.
    jitter
        Standard deviation of noise, in the window's own unit.
    snr_db
        Range of the ratio of signal power to added noise, in decibels.
    drop_channel
        Probability that a channel is zeroed; one always stays.
    drop_token
        [probability, token]: steps of time that become the token (integers) or zeros (floats).
    time_mask, freq_mask
        [masks, width]: stretches of at most `width` frames or bands of the features that become
        their mean.
    """

    views: int = field(default=1, metadata={"range": Range(1)})
    time_axis: int = 0
    channel_axis: int = -1
    shift: int = field(default=0, metadata={"range": Range(0)})
    crop: float | None = field(default=None, metadata={"range": Range(0.01, 1)})
    crop_pad: float | None = field(default=None, metadata={"range": Range(0.01, 1)})
    flip: tuple[int, ...] = ()
    quarter_turn: bool = False
    turn_deg: float | None = field(default=None, metadata={"range": Range(0, 180)})
    rotate_deg: float | None = field(default=None, metadata={"range": Range(0, 180)})
    scale: float | None = field(default=None, metadata={"range": Range(0)})
    gain_db: tuple[float, float] = (0.0, 0.0)
    jitter: float | None = field(default=None, metadata={"range": Range(0)})
    snr_db: tuple[float, float] | None = None
    drop_channel: float | None = field(default=None, metadata={"range": Range(0, 0.99)})
    drop_token: tuple[float, int] | None = None
    time_mask: tuple[int, int] | None = None
    freq_mask: tuple[int, int] | None = None

    def strengths(self) -> dict[str, Any]:
        """Strength of each change by its key, as data.augment.Augment takes them."""
        return {key: getattr(self, key) for key in CHANGES}


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """[privacy]: what may be kept of a record.

    The filters act in this order: allow, hashing, redaction, coarsening.

    Attributes
    ----------
    allow
        Fields besides x and y that filters and events may see.
    hash_ids
        Replace keys (file names, ids) by a keyed hash before anything is stored.
    hash_fields
        Allowed fields to be hashed as well.
    key_file
        The device's own hashing key; made when it does not exist.
    redact
        What is taken out of texts: "email", "phone", "card", "ip", "iban".
    patterns
        Regular expressions of one's own by name; what they find becomes [name].
    coarse_time
        Moments are moved back to the last whole span of this length ("1 h"). With [window] it needs
        hash_ids, since the keys of windows tell their time. None: they stay.
    time_fields
        Allowed fields that hold a moment: seconds, what the end of the name says (_ms, _us, _ns),
        or ISO 8601.
    coarse_place_km
        Places are moved to the middle of a grid's cell of about so many kilometres. None: they
        stay.
    place_fields
        Allowed fields that hold latitude and longitude (degrees), in turn.
    raw
        "never stored" refuses to start where the features leave the window as it is, or what it was
        could be told from them. "allowed": the operator knows.
    errors
        "full" quotes in an error what is wrong in a record; "plain" names the record by its number
        and quotes nothing. None: plain as soon as any filter but `allow` is on.
    """

    allow: tuple[str, ...] = ()
    hash_ids: bool = False
    hash_fields: tuple[str, ...] = ()
    key_file: Path = Path("device.key")
    redact: tuple[str, ...] = ()
    patterns: dict[str, Any] = field(default_factory=dict)
    coarse_time: Seconds | None = None
    time_fields: tuple[str, ...] = ("time", "timestamp", "t", "ts_ns")
    coarse_place_km: float | None = None
    place_fields: tuple[str, ...] = ("lat", "lon", "latitude", "longitude")
    raw: str = field(default="allowed", metadata={"choices": ("allowed", "never stored")})
    errors: str | None = field(default=None, metadata={"choices": ("full", "plain")})

    @property
    def plain(self) -> bool:
        """Whether errors quote nothing of a record."""
        if self.errors is not None:
            return self.errors == "plain"
        return bool(
            self.hash_ids or self.hash_fields or self.redact or self.patterns
            or self.coarse_time or self.coarse_place_km or self.raw != "allowed")

    def filters(self, secret: Callable[[], bytes]) -> list[Filter]:
        """Make the filters, in order; `secret` gives the hashing key where one needs it.

        Raises
        ------
        ConfigError
            A filter cannot be made as asked; the message begins with the key.
        """
        made: list[Filter] = [AllowFields(self.allow)]
        if self.hash_ids or self.hash_fields:
            made.append(HashIds(secret(), self.hash_fields, key=self.hash_ids))
        if self.redact or self.patterns:
            made.append(Redact(
                self.redact, self.patterns, secret=secret(), but=self.hash_fields,
                key=not self.hash_ids))
        if self.coarse_time is not None:
            made.append(CoarseTime(self.coarse_time, self.time_fields))
        if self.coarse_place_km is not None:
            made.append(CoarsePlace(self.coarse_place_km, self.place_fields))
        return made
