"""[train]: how an update trains and when it stops."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeloop.loop.config.stream import AugmentConfig
from edgeloop.loop.schema import Joules, Range, Seconds


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
        Floating-point operations of an update, as the program counts them, after which no further
        training step is taken.
    max_energy
        Energy of an update ("50 J"), as the meter of [energy] says, after which no further step is
        taken. The loop refuses to start where nothing can tell.
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
