"""What to train and how to update it: plain records that `compile` reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from edgeloop.errors import CompileError


def _check(ok: bool, what: str) -> None:
    if not ok:
        raise CompileError(what)


def _finite(*values: Any) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)


@dataclass(frozen=True, slots=True)
class LoRA:
    """Low-rank adaptation (Hu et al. 2021): y = W x + (alpha / rank) B A x, B zero at the start.

    Parameters
    ----------
    rank
        Rows of A and columns of B.
    alpha
        Scale numerator; None means 2 * rank, so that the scale is 2.
    targets
        A glob, or several, over layer names. ``"*"`` takes every dense and convolution layer
        except depthwise and grouped convolutions, which must be named by a narrower glob.
    """

    rank: int = 4
    alpha: float | None = None
    targets: str | tuple[str, ...] = "*"

    def __post_init__(self) -> None:
        _check(isinstance(self.rank, int) and self.rank >= 1,
               f"LoRA rank is {self.rank}; it must be a whole number, 1 or more")
        _check(self.alpha is None or _finite(self.alpha),
               f"LoRA alpha is {self.alpha}; it must be a finite number")
        if isinstance(self.targets, list):
            object.__setattr__(self, "targets", tuple(self.targets))

    @property
    def scale(self) -> float:
        """Alpha / rank."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class LastLayers:
    """Train weights and biases of the last ``count`` dense or convolution layers."""

    count: int = 1

    def __post_init__(self) -> None:
        _check(isinstance(self.count, int) and self.count >= 1,
               f"LastLayers count is {self.count}; it must be a whole number, 1 or more")


@dataclass(frozen=True, slots=True)
class Bias:
    """Train bias vectors only (BitFit, Ben Zaken et al. 2021); ``targets`` as in LoRA."""

    targets: str | tuple[str, ...] = "*"


@dataclass(frozen=True, slots=True)
class Full:
    """Train every weight and bias, batch norm's scale and shift included (statistics stay)."""

    targets: str | tuple[str, ...] = "*"


Train = LoRA | LastLayers | Bias | Full


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with PyTorch's momentum and (coupled) weight decay."""

    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(_finite(self.lr, self.momentum, self.weight_decay),
               f"{self}: every value must be a finite number")
        _check(self.lr >= 0, f"SGD lr is {self.lr}; it must not be negative")
        _check(0 <= self.momentum < 1, f"SGD momentum is {self.momentum}; it must lie in [0, 1)")

    def scalars(self) -> dict[str, float]:
        """Run-time scalars and their defaults."""
        out = {"lr": self.lr, "weight_decay": self.weight_decay}
        return out | ({"momentum": self.momentum} if self.momentum else {})


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), PyTorch's defaults."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check(_finite(self.lr, *self.betas, self.eps, self.weight_decay) and self.eps >= 0,
               f"{self}: every value must be a finite number, and eps not negative")
        _check(self.lr >= 0, f"AdamW lr is {self.lr}; it must not be negative")
        _check(all(0 <= b < 1 for b in self.betas), f"AdamW betas are {self.betas}; in [0, 1)")

    def scalars(self) -> dict[str, float]:
        """Run-time scalars and their defaults."""
        return {
            "lr": self.lr, "weight_decay": self.weight_decay, "beta1": self.betas[0],
            "beta2": self.betas[1], "eps": self.eps,
        }


Optimizer = SGD | AdamW

_TRAIN: dict[str, type[Any]] = {
    "lora": LoRA, "last": LastLayers, "last_layers": LastLayers, "bias": Bias, "full": Full,
}
_OPTIMIZER: dict[str, type[Any]] = {"sgd": SGD, "adamw": AdamW}


@dataclass(frozen=True, slots=True)
class Spec:
    """One option as text, ``name:key=value,key=value``, as the command line takes it."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Split the text; values become int or float where they read as one."""
        name, _, rest = text.partition(":")
        keys: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, eq, value = part.partition("=")
            _check(bool(eq), f"'{text}': write {name}:key=value, not '{part}'")
            keys[key.strip()] = _number(value.strip())
        return cls(name.strip().lower(), keys)

    def build(self, table: dict[str, type[Any]], what: str) -> Any:
        """Make the record; CompileError names the choices."""
        _check(self.name in table, f"unknown {what} '{self.name}'; one of {', '.join(table)}")
        known = [f.name for f in fields(table[self.name])]
        unknown = [key for key in self.keys if key not in known]
        _check(not unknown, f"{what} '{self.name}' has no option {', '.join(unknown)}; it has "
                            f"{', '.join(known)}")
        try:
            return table[self.name](**self.keys)
        except TypeError as e:
            raise CompileError(f"{what} '{self.name}': {e}") from None


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_train(text: str) -> tuple[Train, ...]:
    """Read ``lora:rank=4,targets=*.pw+last:count=1``."""
    return tuple(Spec.parse(t).build(_TRAIN, "training method") for t in text.split("+"))


def parse_optimizer(text: str) -> Optimizer:
    """Read ``adamw:lr=1e-3``."""
    made: Optimizer = Spec.parse(text).build(_OPTIMIZER, "optimizer")
    return made
