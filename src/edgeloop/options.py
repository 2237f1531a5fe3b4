"""How to update what trains (plain records), and every option as text."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from edgeloop.errors import CompileError
from edgeloop.methods import (
    IA3,
    Adapter,
    Bias,
    Compose,
    Full,
    Head,
    LastLayers,
    LoRA,
    Method,
    Prefix,
    Sparse,
    Train,
)
from edgeloop.methods import check as _check
from edgeloop.methods import finite as _finite

__all__ = [
    "IA3", "SGD", "Adafactor", "AdamW", "AdamW8bit", "Adapter", "Bias", "Compose", "Full", "Head",
    "LastLayers", "Lion", "LoRA", "Method", "Optimizer", "Prefix", "Sparse", "Spec", "Train",
    "lighter", "narrowed", "parse_head", "parse_optimizer", "parse_train",
]


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


@dataclass(frozen=True, slots=True)
class AdamW8bit(AdamW):
    """AdamW that keeps its moments in 8 bits: about 2.03 bytes a parameter instead of 8.

    Block-wise dynamic quantization as in bitsandbytes (Dettmers et al. 2022), blocks of 256; the
    map is theirs, and a second moment that is not zero never becomes zero.
    """


@dataclass(frozen=True, slots=True)
class Lion:
    """Lion: the sign of an interpolated momentum, 4 bytes of state a parameter (Chen et al. 2023).

    Rates are about a tenth of Adam's, decay ten times as large. ``bits=8`` keeps the momentum as
    AdamW8bit keeps its first moment: 1.02 bytes a parameter.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    bits: int = 32

    def __post_init__(self) -> None:
        _check(_finite(self.lr, *self.betas, self.weight_decay),
               f"{self}: every value must be a finite number")
        _check(self.lr >= 0, f"Lion lr is {self.lr}; it must not be negative")
        _check(all(0 <= b < 1 for b in self.betas), f"Lion betas are {self.betas}; in [0, 1)")
        _check(self.bits in (8, 32), f"Lion bits is {self.bits}; it is 8 or 32")

    def scalars(self) -> dict[str, float]:
        """Run-time scalars and their defaults."""
        return {"lr": self.lr, "weight_decay": self.weight_decay, "beta1": self.betas[0],
                "beta2": self.betas[1]}


@dataclass(frozen=True, slots=True)
class Adafactor:
    """Adafactor (Shazeer and Stern 2018): no momentum, the second moment by rows and columns.

    A matrix [n, k] has 4 (n + k) bytes of state, a vector 4 bytes an element. The values are
    torch.optim.Adafactor's: ``lr`` is the most that the relative step 1 / sqrt(t) may be, and the
    rate of the decoupled decay; a step is as long as the parameter is large, at least ``eps[1]``;
    the root of a second moment is at least ``eps[0]``; ``d`` is the root mean square to which
    updates are clipped. Parameters of more than two axes are matrices of their first axis by the
    others.
    """

    lr: float = 1e-2
    beta2_decay: float = -0.8
    eps: tuple[float, float] = (2.0**-23, 1e-3)
    d: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(_finite(self.lr, self.beta2_decay, *self.eps, self.d, self.weight_decay),
               f"{self}: every value must be a finite number")
        _check(self.lr >= 0, f"Adafactor lr is {self.lr}; it must not be negative")
        _check(self.beta2_decay <= 0,
               f"Adafactor beta2_decay is {self.beta2_decay}; it must not be positive")
        _check(len(self.eps) == 2 and self.eps[0] >= 1e-18 and self.eps[1] >= 0,
               f"Adafactor eps is {self.eps}; two values, the first from 1e-18 on")
        _check(self.d > 0, f"Adafactor d is {self.d}; it must be positive")

    def scalars(self) -> dict[str, float]:
        """Run-time scalars and their defaults; ``d`` is called clip."""
        return {
            "lr": self.lr, "weight_decay": self.weight_decay, "beta2_decay": self.beta2_decay,
            "eps1": self.eps[0], "eps2": self.eps[1], "clip": self.d,
        }


Optimizer = SGD | AdamW | AdamW8bit | Lion | Adafactor


def narrowed(optimizer: Optimizer) -> Optimizer | None:
    """Return the same optimizer with 8-bit state, None where there is none or it has that."""
    if type(optimizer) is AdamW:
        return AdamW8bit(*(getattr(optimizer, f.name) for f in fields(optimizer)))
    if isinstance(optimizer, Lion) and optimizer.bits != 8:
        return replace(optimizer, bits=8)
    return None


def lighter(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """Return other optimizers in Adam's place, the one with the most state first; none for others.

    Lion's momentum in 8 bits, with the rate and decay that its authors advise (a tenth, ten times
    as much); then Adafactor at its own rate.
    """
    if not isinstance(optimizer, AdamW):
        return ()
    return (Lion(lr=optimizer.lr / 10, weight_decay=optimizer.weight_decay * 10, bits=8),
            Adafactor(weight_decay=optimizer.weight_decay))


_TRAIN: dict[str, type[Any]] = {
    "lora": LoRA, "ia3": IA3, "adapter": Adapter, "prefix": Prefix, "sparse": Sparse,
    "last": LastLayers, "last_layers": LastLayers, "bias": Bias, "full": Full,
}
_OPTIMIZER: dict[str, type[Any]] = {
    "sgd": SGD, "adamw": AdamW, "adamw8bit": AdamW8bit, "lion": Lion,
    "adafactor": Adafactor,
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One option as text, ``name:key=value,key=value``, as the command line takes it."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Split the text; values become what they read as (see ``_value``)."""
        name, _, rest = text.partition(":")
        keys: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, eq, value = part.partition("=")
            _check(bool(eq), f"'{text}': write {name}:key=value, not '{part}'")
            keys[key.strip()] = _value(value.strip())
        return cls(name.strip().lower(), keys)

    def build(self, table: dict[str, type[Any]], what: str) -> Any:
        """Make the record; CompileError names the choices."""
        _check(self.name in table, f"unknown {what} '{self.name}'; one of {', '.join(table)}")
        kind = table[self.name]
        if kind is Sparse:
            return Sparse(self.keys)
        known = [f.name for f in fields(kind)]
        unknown = [key for key in self.keys if key not in known]
        _check(not unknown, f"{what} '{self.name}' has no option {', '.join(unknown)}; it has "
                            f"{', '.join(known)}")
        try:
            return kind(**self.keys)
        except TypeError as e:
            raise CompileError(f"{what} '{self.name}': {e}") from None


def _value(text: str) -> Any:
    """Read ``3``, ``0.5``, ``true``, a list ``a;b``, a table ``a:1;b:2``, a range ``0..4``."""
    if ";" in text or ":" in text:
        parts = [p.strip() for p in text.split(";") if p.strip()]
        pairs = [p.rpartition(":") for p in parts]
        if all(colon for _, colon, _ in pairs):
            return {key.strip(): _value(value.strip()) for key, _, value in pairs}
        return tuple(parts)
    low, dots, high = text.partition("..")
    if dots and low.isdigit() and high.isdigit():
        return int(low), int(high)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def parse_train(text: str) -> tuple[Method, ...]:
    """Read ``lora:rank=4,targets=*.pw+last:count=1``."""
    return tuple(Spec.parse(t).build(_TRAIN, "training method") for t in text.split("+"))


def parse_head(text: str) -> Head:
    """Read ``5``, or ``classes=5,init=uniform``."""
    keys = f"classes={text}" if text.strip().isdigit() else text
    made: Head = Spec.parse(f"head:{keys}").build({"head": Head}, "option")
    return made


def parse_optimizer(text: str) -> Optimizer:
    """Read ``adamw:lr=1e-3,betas=0.9;0.99``."""
    spec = Spec.parse(text)
    for key, value in spec.keys.items():
        if isinstance(value, tuple):
            numbers = tuple(_value(v) if isinstance(v, str) else v for v in value)
            _check(_finite(*numbers), f"optimizer '{spec.name}': {key} is a list of numbers, "
                                      f"such as {key}=0.9;0.99")
            spec.keys[key] = numbers
    made: Optimizer = spec.build(_OPTIMIZER, "optimizer")
    return made
