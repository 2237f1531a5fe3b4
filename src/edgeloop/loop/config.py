"""loop.toml as dataclasses: every key, its default, its unit and its range."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.data.augment import CHANGES
from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Bytes, Range, Seconds, read, table
from edgeloop.store import CODECS


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """[model]: which compiled program learns."""

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
        busy, and counts what it had to drop. False: the source waits.
    """

    on_bad: str = field(default="stop", metadata={"choices": ("stop", "skip")})
    realtime: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """[base]: clips of the task the model was trained for, shipped with it ("kind" as in [source]).

    A share of `anchor` of them is never trained on: the gate checks on those that nothing was
    forgotten. The others are rehearsed. Of each part at most `capacity` samples are held, balanced
    by class.
    """

    anchor: float = field(default=0.5, metadata={"range": Range(0, 1)})
    capacity: int = field(default=256, metadata={"range": Range(1)})
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BufferConfig:
    """[buffer]: memories of fixed size, in samples.

    Attributes
    ----------
    capacity
        New samples since the last update; beyond that the oldest is dropped and counted.
    rehearsal
        Samples of earlier updates, balanced by class.
    validation
        Samples for early stopping, balanced by class.
    persist_every
        Items between writes of the memories to the state file, beside those at every decision;
        0: decisions only when the source can be read again (nothing is lost), else 16.
    """

    capacity: int = field(default=256, metadata={"range": Range(1)})
    rehearsal: int = field(default=256, metadata={"range": Range(0)})
    validation: int = field(default=64, metadata={"range": Range(0)})
    persist_every: int = field(default=0, metadata={"range": Range(0)})


@dataclass(frozen=True, kw_only=True)
class TriggerConfig:
    """[trigger]: an update starts after this many labelled samples since the last one."""

    samples: int = field(default=32, metadata={"range": Range(1)})


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """early_stopping: stop after `patience` epochs without a gain above `min_delta`."""

    patience: int = field(default=3, metadata={"range": Range(1)})
    min_delta: float = field(default=0.0, metadata={"range": Range(0)})


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
class GateConfig:
    """[gate]: what a trained candidate must show before it goes live.

    Attributes
    ----------
    min_samples
        Samples the gate set must hold before an update starts; until then the loop waits.
    capacity
        Samples the gate set holds at most, balanced by class; None: twice `min_samples`.
    share
        Share of the stream set aside for the gate, never trained on.
    confidence
        The candidate goes live only when it is better at this confidence (paired test).
    max_anchor_loss
        How much worse than the shipped model it may be on the base task: as a difference of
        accuracy (0.02: two points), or of loss relative to the shipped model's.
    """

    min_samples: int = field(default=64, metadata={"range": Range(1)})
    capacity: int | None = field(default=None, metadata={"range": Range(1)})
    share: float = field(default=0.25, metadata={"range": Range(0, 0.9)})
    confidence: float = field(default=0.95, metadata={"range": Range(0.5, 0.9999)})
    max_anchor_loss: float = field(default=0.02, metadata={"range": Range(0)})

    @property
    def size(self) -> int:
        """Samples the gate set holds at most."""
        return self.capacity or 2 * self.min_samples


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """[budget]: RAM of the whole process; the loop refuses to start when its plan needs more."""

    ram: Bytes | None = None


@dataclass(frozen=True, kw_only=True)
class StateConfig:
    """[state]: the SQLite file, and what it keeps: versions and bytes of their weights at most.

    A relative path is taken from the configuration's folder. The live version, its parent and
    pinned ones stay whatever the limits are. ``adapters``: how the weights of new versions are
    stored (docs/guide/state.md). ``backup``: keep a verified copy of the file beside it, made
    whenever a version goes live.
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
    features: dict[str, Any] | None = None
    base: BaseConfig | None = None
    buffer: BufferConfig = field(default_factory=BufferConfig)
    trigger: TriggerConfig = field(default_factory=TriggerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
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
