"""A whole loop.toml, and its tables about files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.data.privacy.hashing import KEY_BYTES
from edgeloop.errors import ConfigError
from edgeloop.loop.config.decisions import (
    ConstraintsConfig,
    DeviceConfig,
    EnergyConfig,
    GateConfig,
    PaceConfig,
    TriggerConfig,
)
from edgeloop.loop.config.serving import ServeConfig
from edgeloop.loop.config.stream import (
    BufferConfig,
    FeedbackConfig,
    PrivacyConfig,
    SourceConfig,
    WindowConfig,
)
from edgeloop.loop.config.training import TrainConfig
from edgeloop.loop.schema import Bytes, Range, Seconds, read, table
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
    serve: ServeConfig = field(default_factory=ServeConfig)
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
            made.serve.check()
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        p = made.privacy
        try:
            p.filters(lambda: bytes(KEY_BYTES))  # as a trial
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        if p.coarse_time is not None and made.window is not None and not p.hash_ids:
            raise ConfigError(
                f"{name}: privacy.coarse_time: the keys of windows tell their time; set "
                "privacy.hash_ids = true as well"
            )
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
