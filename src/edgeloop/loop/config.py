"""loop.toml as dataclasses: every key, its default, its unit and its range."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.data.augment import CHANGES
from edgeloop.data.buffers import POLICIES, STORAGES
from edgeloop.device.meters import METERS
from edgeloop.device.state import METERED
from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Bytes, Joules, Range, Seconds, read, table
from edgeloop.loop.triggers import Condition, Constraints, Samples, condition
from edgeloop.loop.triggers.device import NETWORKS
from edgeloop.store import CODECS


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """[model]: which compiled program learns.

    Attributes
    ----------
    program
        The file that `edgeloop compile` wrote.
    """

    program: Path


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
class BaseConfig:
    """[base]: clips of the task the model was trained for, shipped with it ("kind" as in [source]).

    The gate checks on some of them that nothing was forgotten. The others are rehearsed.

    Attributes
    ----------
    anchor
        Share of them that is never trained on and measured by the gate.
    capacity
        Samples that are held of each part at most, balanced by class.
    """

    anchor: float = field(default=0.5, metadata={"range": Range(0, 1)})
    capacity: int = field(default=256, metadata={"range": Range(1)})
    options: dict[str, Any] = field(default_factory=dict)


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
class TriggerConfig:
    """[trigger]: when an update starts.

    Attributes
    ----------
    samples
        Labelled samples since the last update; the short way to say ``when = {samples = 32}``.
    when
        Conditions instead of `samples`, each a key with its options, and any, all and not of them
        (docs/guide/triggers.md).
    """

    samples: int = field(default=32, metadata={"range": Range(1)})
    when: dict[str, Any] | None = None

    def condition(self, name: str = "config") -> Condition:
        """Return the condition that starts an update; `name` starts the path in errors."""
        if self.when is None:
            return Samples(self.samples)
        return condition(self.when, f"{name}: trigger.when")


@dataclass(frozen=True, kw_only=True)
class ConstraintsConfig:
    """[constraints]: what the device must allow while an update runs; an unknown reading forbids.

    Attributes
    ----------
    requires_charging
        External power is there, or the device has no battery and runs from the mains.
    requires_battery_not_low
        The battery is not low: it is at 15 %, until it is back at 20 %.
    requires_device_idle
        Nobody but the loop needs the device.
    requires_storage_not_low
        The file system of the state file is not low.
    network_type
        Connection that is needed: "not_required", "connected" (any), "unmetered", "not_roaming" or
        "metered".
    max_temp_c
        Degrees Celsius at which work stops; None: it does not look.
    resume_temp_c
        Degrees Celsius at which it goes on after that; None: 5 degrees below `max_temp_c`.
    min_battery_percent
        Charge, in percent, at which work stops; it goes on 5 % above. None: it does not look.
    """

    requires_charging: bool = False
    requires_battery_not_low: bool = False
    requires_device_idle: bool = False
    requires_storage_not_low: bool = False
    network_type: str = field(
        default="not_required", metadata={"choices": ("not_required", *NETWORKS)}
    )
    max_temp_c: float | None = field(default=None, metadata={"range": Range(-50, 200)})
    resume_temp_c: float | None = field(default=None, metadata={"range": Range(-60, 200)})
    min_battery_percent: float | None = field(default=None, metadata={"range": Range(0, 99)})

    def build(self) -> Constraints:
        """Return the constraints; ConfigError when they contradict each other."""
        return Constraints(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """train.early_stopping: stop when the validation loss has come to a plateau.

    Attributes
    ----------
    patience
        Epochs without a gain above `min_delta` after which training stops.
    min_delta
        Least fall of the validation loss that counts.
    smoothing
        Share of the past in the moving average of the loss that is looked at; 0: the loss itself.
        Which epoch was best is always judged by the loss itself.
    """

    patience: int = field(default=3, metadata={"range": Range(1)})
    min_delta: float = field(default=0.0, metadata={"range": Range(0)})
    smoothing: float = field(default=0.0, metadata={"range": Range(0, 0.99)})


@dataclass(frozen=True, kw_only=True)
class OverfittingConfig:
    """train.overfitting: stop when training begins to learn by heart.

    Attributes
    ----------
    patience
        Epochs in a row in which the training loss fell and the validation loss rose.
    gap
        Share by which the validation loss may be above its lowest; none: any.
    """

    patience: int = field(default=3, metadata={"range": Range(1)})
    gap: float | None = field(default=None, metadata={"range": Range(0)})


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """[train.augment]: each training sample is kept in `views`; view 0 is the sample as it came.

    Epoch e trains on view e modulo `views`. The changes act in the order of
    data.augment.CHANGES: shift, crop, crop_pad, flip, quarter_turn, turn_deg, rotate_deg, scale,
    gain_db, jitter, snr_db, drop_channel, drop_token on the raw window, then time_mask and
    freq_mask on the features.

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
class TrainConfig:
    """[train]: how an update trains and when it stops.

    Attributes
    ----------
    method
        What trains, as `edgeloop compile --train` takes it (which reads it from here when given the
        file): "lora:rank=4", "ia3", ... The loop refuses a program that trains something else.
        None: whatever the program trains.
    epochs
        Passes over the new samples at most.
    early_stopping, overfitting
        See below.
    max_steps
        Training steps of an update at most.
    max_flops
        Floating-point operations of an update at most, as the program counts them.
    max_energy
        Energy of an update at most ("50 J"), as the meter of [energy] says. The loop refuses to
        start where nothing can tell.
    target_loss
        Stop as soon as the validation loss is at or below this.
    deadline
        Longest time an update may take, with an estimate for validation and gate (seconds in code,
        "900 ms" in TOML).
    lr
        Learning rate; None keeps the program's.
    rehearsal
        Share of an epoch that is rehearsal (remembered and base samples).
    validation
        Share of the stream set aside for early stopping.
    checkpoint_every
        Steps between checkpoints: at most this many are lost to a power cut.
    checkpoint_seconds
        Time between checkpoints instead, for slow steps or storage that wears; None: by steps.
    target
        "label", or "input" for a model that reproduces its input.
    seed
        With the stream, decides every result.
    features
        How the features below the program's cut (edgeloop compile --cut) are kept during an update:
        "f32", "f16", "int8" or "off". "auto": f32 where the program has a cut and budget.ram
        allows it.
    """

    epochs: int = field(default=20, metadata={"range": Range(1)})
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    overfitting: OverfittingConfig | None = None
    max_steps: int | None = field(default=None, metadata={"range": Range(1)})
    max_flops: float | None = field(default=None, metadata={"range": Range(1)})
    max_energy: Joules | None = None
    target_loss: float | None = None
    deadline: Seconds | None = None
    lr: float | None = field(default=None, metadata={"range": Range(0)})
    rehearsal: float = field(default=0.5, metadata={"range": Range(0, 0.95)})
    validation: float = field(default=0.15, metadata={"range": Range(0, 0.5)})
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    checkpoint_every: int = field(default=32, metadata={"range": Range(1)})
    checkpoint_seconds: Seconds | None = None
    target: str = field(default="label", metadata={"choices": ("label", "input")})
    seed: int = field(default=0, metadata={"range": Range(0)})
    method: str | None = None
    features: str = field(
        default="auto", metadata={"choices": ("auto", "f32", "f16", "int8", "off")}
    )


@dataclass(frozen=True, kw_only=True)
class PaceConfig:
    """[pace]: how fast an update may go. None of it changes what is learnt.

    Attributes
    ----------
    slice_ms
        Milliseconds after which a training step returns control, to rest and to look at the device;
        a step of the program that takes longer is not cut. None: between steps only.
    duty_cycle
        Share of the time that training computes; it rests in between.
    cpu_share
        Processor time of this process over time, while it trains: 0.5 is half of one core, 2 are
        two whole ones. None: no limit.
    nice
        Priority of the thread that runs the loop and of its workers, from 0 to 19, the lowest.
    affinity
        Numbers of the cores that they may use; empty: all.
    throttle_temp_c
        Degrees Celsius from which on the duty cycle is halved each second, down to a 32nd; it comes
        back in the same way 5 degrees below. None: heat does not slow training down.
    """

    slice_ms: float | None = field(default=None, metadata={"range": Range(0.1)})
    duty_cycle: float = field(default=1.0, metadata={"range": Range(0.01, 1)})
    cpu_share: float | None = field(default=None, metadata={"range": Range(0.01, 1024)})
    nice: int = field(default=0, metadata={"range": Range(0, 19)})
    affinity: tuple[int, ...] = ()
    throttle_temp_c: float | None = field(default=None, metadata={"range": Range(0, 200)})


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """[device]: how the loop sees the device.

    Attributes
    ----------
    sysfs, proc
        Folders of the kernel's files; others for tests, or where a container has them elsewhere.
    every
        Time between looks at the sensors.
    idle_below
        Share of all cores that other processes may use while the device counts as idle.
    metered
        Network interfaces whose traffic costs, as patterns of names.
    """

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    every: Seconds = field(default=Seconds(1.0))
    idle_below: float = field(default=0.2, metadata={"range": Range(0, 1)})
    metered: tuple[str, ...] = METERED


@dataclass(frozen=True, kw_only=True)
class EnergyConfig:
    """[energy]: how energy is measured.

    Attributes
    ----------
    meter
        "powercap" (the processor's counters), "ina3221" (a board's sensor), "battery", "model" (by
        `calibration`), "none", or "auto": the best of them that can be read.
    calibration
        File that `edgeloop calibrate` wrote; None: there is none.
    """

    meter: str = field(default="auto", metadata={"choices": METERS})
    calibration: Path | None = None


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """[gate]: what a trained candidate must show before it goes live.

    Attributes
    ----------
    min_samples
        Samples the gate set must hold before an update starts; until then the loop waits.
    capacity
        Samples the gate set holds at most, balanced by class; None: twice `min_samples`, or a share
        of buffer.bytes.
    share
        Share of the stream set aside for the gate, never trained on.
    policy
        Which sample of its class a new one replaces in the gate set: "balanced", so that the set is
        like all that ever came, or "recent", the oldest: what was learnt long ago may be forgotten
        where the stream has changed (not what [base] holds).
    confidence
        The candidate goes live only when it is better at this confidence (paired test).
    max_anchor_loss
        How much worse than the shipped model it may be on the base task: as a difference of
        accuracy (0.02: two points), or of loss relative to the shipped model's.
    """

    min_samples: int = field(default=64, metadata={"range": Range(1)})
    capacity: int | None = field(default=None, metadata={"range": Range(1)})
    policy: str = field(default="balanced", metadata={"choices": ("balanced", "recent")})
    share: float = field(default=0.25, metadata={"range": Range(0, 0.9)})
    confidence: float = field(default=0.95, metadata={"range": Range(0.5, 0.9999)})
    max_anchor_loss: float = field(default=0.02, metadata={"range": Range(0)})

    @property
    def size(self) -> int:
        """Samples the gate set holds at most, where buffer.bytes does not decide."""
        return self.capacity or 2 * self.min_samples


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """[budget]: what the process may take.

    Attributes
    ----------
    ram
        RAM of the whole process ("48 MiB"), as `edgeloop plan loop.toml` itemises it; the loop
        refuses to start when its plan needs more. None: it starts whatever it needs.
    """

    ram: Bytes | None = None


@dataclass(frozen=True, kw_only=True)
class StateConfig:
    """[state]: the SQLite file, and what it keeps.

    The live version, its parent and pinned ones stay whatever the limits are.

    Attributes
    ----------
    path
        The file; a relative path is taken from the configuration's folder.
    keep_versions
        Versions at most.
    quota
        Bytes that the weights of all versions take at most ("1 MiB"). None: no limit.
    adapters
        How the weights of new versions are stored (docs/guide/state.md).
    backup
        Keep a verified copy of the file beside it, made whenever a version goes live.
    """

    path: Path = Path("device.db")
    keep_versions: int = field(default=50, metadata={"range": Range(2)})
    quota: Bytes | None = None
    adapters: str = field(default="f32", metadata={"choices": CODECS})
    backup: bool = True


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """[update]: the update server, for `edgeloop pull` and `push`.

    Attributes
    ----------
    server
        ``https://HOST[:PORT]`` of a hub, or ``mqtts://HOST[:PORT]`` of a broker.
    token_file
        Holds the device's token (or ``USER:PASSWORD`` at a broker); mode 0600.
    ca
        PEM file of the authority behind the server's certificate; None: those of the system.
    bandwidth
        Bytes a second at most, both ways.
    tries
        Failures in a row before giving up, each followed by a longer wait.
    stale_after
        Uptime without a signed answer after which `status` says stale.
    """

    server: str | None = None
    token_file: Path = Path("device.token")
    ca: Path | None = None
    bandwidth: Bytes | None = None
    tries: int = field(default=8, metadata={"range": Range(1)})
    stale_after: Seconds = field(default=Seconds(259200.0))


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """[privacy]: what may be kept of a record.

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
    """

    allow: tuple[str, ...] = ()
    hash_ids: bool = False
    hash_fields: tuple[str, ...] = ()
    key_file: Path = Path("device.key")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole loop.toml. `root` is the folder that relative paths start from."""

    model: ModelConfig
    source: SourceConfig = field(default_factory=SourceConfig)
    window: WindowConfig | None = None
    feedback: FeedbackConfig | None = None
    features: dict[str, Any] | None = None
    base: BaseConfig | None = None
    buffer: BufferConfig = field(default_factory=BufferConfig)
    trigger: TriggerConfig = field(default_factory=TriggerConfig)
    constraints: ConstraintsConfig = field(default_factory=ConstraintsConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    pace: PaceConfig = field(default_factory=PaceConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    state: StateConfig = field(default_factory=StateConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    root: Path = Path()
    name: str = "loop.toml"

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read a TOML file.

        Raises
        ------
        ConfigError
            Unreadable, not TOML, or a key unknown, missing, of the wrong type or out of range.
        """
        path = Path(path)
        return cls.from_dict(read(path), root=path.parent, name=path.name)

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, root: Path, name: str = "config") -> Config:
        """Build from nested dicts, as TOML gives them. `name` starts the path in errors."""
        made = table(cls, data, f"{name}: ", reserved={"root": root, "name": name})
        g, t = made.gate, made.train
        if made.trigger.when is not None and "samples" in data["trigger"]:
            raise ConfigError(
                f"{name}: trigger.samples: has no effect beside trigger.when; put samples into that"
            )
        made.trigger.condition(name)
        try:
            made.constraints.build()
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        if g.share + t.validation >= 1.0:
            raise ConfigError(
                f"{name}: gate.share and train.validation: {g.share} and {t.validation} leave "
                "nothing to train on; their sum must be below 1"
            )
        if g.size < g.min_samples:
            raise ConfigError(
                f"{name}: gate.capacity: is {g.capacity}; it must be at least gate.min_samples "
                f"({g.min_samples})"
            )
        return made

    def path(self, path: Path) -> Path:
        """Resolve a path of the configuration."""
        return self.root / path
