"""What learns: one record for each PEFT method, and how several of them are put together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from edgeloop.errors import CompileError

Globs = str | tuple[str, ...]


def check(ok: bool, what: str) -> None:
    """Raise CompileError unless ``ok``."""
    if not ok:
        raise CompileError(what)


def finite(*values: Any) -> bool:
    """Tell whether all of these are finite numbers."""
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _globs(record: Any, name: str) -> None:
    """Keep a list of globs as a tuple; refuse what is neither text nor a list of texts."""
    value = getattr(record, name)
    if isinstance(value, list):
        value = tuple(value)
        object.__setattr__(record, name, value)
    texts = (value,) if isinstance(value, str) else value
    check(value is None or (isinstance(texts, tuple) and all(isinstance(t, str) for t in texts)),
          f"{type(record).__name__} {name} is {value!r}; write a glob or a list of globs")


@dataclass(frozen=True, slots=True)
class LoRA:
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): y = W x + s B A x, B zero at first.

    Parameters
    ----------
    rank
        Rows of A and columns of B. "auto": the largest multiple of the target's vector width whose
        plan fits the budget (the width itself without a budget); the program says why.
    alpha
        Scale numerator, s = alpha / rank; None means 2 * rank.
    rslora
        s = alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732).
    dora
        Weight-decomposed (Liu et al. 2024, arXiv 2402.09353): every row of W + s B A is brought to
        a trained length ``lora_magnitude`` [out]; its own length counts as constant in backward.
    dropout
        Share of the adapter's inputs that training drops; evaluation and prediction drop none.
    targets
        A glob, or several, over layer names. ``"*"`` takes every dense, convolution and recurrent
        layer; embeddings, depthwise and grouped convolutions must be named by a narrower glob.
    ranks
        Rank by glob, the first one that matches counts; other layers have ``rank``.
    reason
        Why "auto" chose this rank; the compiler fills it in.
    """

    rank: int | str = 4
    alpha: float | None = None
    targets: Globs = "*"
    rslora: bool = False
    dora: bool = False
    dropout: float = 0.0
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)
    reason: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        check(self.rank == "auto" or _whole(self.rank),
              f"LoRA rank is {self.rank}; it must be a whole number, 1 or more, or 'auto'")
        check(self.alpha is None or finite(self.alpha),
              f"LoRA alpha is {self.alpha}; it must be a finite number")
        check(finite(self.dropout) and 0 <= self.dropout < 1,
              f"LoRA dropout is {self.dropout}; it must lie in [0, 1)")
        check(isinstance(self.ranks, Mapping) and all(_whole(r) for r in self.ranks.values()),
              f"LoRA ranks is {self.ranks!r}; write {{glob: rank}} with whole numbers, 1 or more")
        _globs(self, "targets")

    def rank_of(self, layer: str) -> int:
        """Rank of a layer by its name."""
        rank = next((r for p, r in self.ranks.items() if fnmatchcase(layer, p)), self.rank)
        check(isinstance(rank, int), "internal error: rank 'auto' was not resolved")
        return int(rank)

    @property
    def scale(self) -> float:
        """Return s for ``rank``."""
        return self.scale_of(int(self.rank))

    def scale_of(self, rank: int) -> float:
        """Return s for a rank."""
        alpha = 2.0 * rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(rank) if self.rslora else rank)


@dataclass(frozen=True, slots=True)
class IA3:
    """Learned rescaling (Liu et al. 2022, arXiv 2205.05638), ones at the start; as in PEFT.

    Parameters
    ----------
    targets
        Layers whose output is scaled, y * l with l [out]. None: the layers that make the keys and
        values of every recognised attention.
    feedforward
        Layers whose input is scaled, layer(x * l) with l [in]. None: the last dense layer of every
        feed-forward branch where ``targets`` is None too, else no layer.
    """

    targets: Globs | None = None
    feedforward: Globs | None = None

    def __post_init__(self) -> None:
        _globs(self, "targets")
        _globs(self, "feedforward")


@dataclass(frozen=True, slots=True)
class Adapter:
    """Bottleneck adapters h + up(act(down(h))); up is zero at the start.

    Parameters
    ----------
    bottleneck
        Width between down [bottleneck, width] and up [width, bottleneck].
    position
        "houlsby" (Houlsby et al. 2019, arXiv 1902.00751): at the end of every residual branch,
        before the sum. "pfeiffer" (Pfeiffer et al. 2020, arXiv 2005.00247): only of branches
        without attention. Globs: after every layer that they name, in any model.
    activation
        "relu" or "gelu".
    """

    bottleneck: int = 16
    position: Globs = "houlsby"
    activation: str = "relu"

    def __post_init__(self) -> None:
        check(_whole(self.bottleneck),
              f"Adapter bottleneck is {self.bottleneck}; it must be a whole number, 1 or more")
        check(self.activation in ("relu", "gelu"),
              f"Adapter activation is {self.activation!r}; use 'relu' or 'gelu'")
        _globs(self, "position")


@dataclass(frozen=True, slots=True)
class Prefix:
    """Trained keys and values before those of every attention.

    Parameters
    ----------
    length
        Number of virtual tokens.
    gated
        True: o + tanh(gate) * attention(q, prefix), the gate of each head zero at the start
        (LLaMA-Adapter, Zhang et al. 2023, arXiv 2303.16199). False: prefix tuning as it is (Li and
        Liang 2021, arXiv 2101.00190) and as PEFT has it; the prefix takes part of the attention
        from the first step on, so that **it is not a no-op at the start**.
    targets
        A glob, or several, over the names of attention nodes.
    """

    length: int = 8
    gated: bool = True
    targets: Globs = "*"

    def __post_init__(self) -> None:
        check(_whole(self.length),
              f"Prefix length is {self.length}; it must be a whole number, 1 or more")
        _globs(self, "targets")


@dataclass(frozen=True, slots=True)
class Sparse:
    """Sparse update (Lin et al. 2022, arXiv 2206.15472): named tensors or ranges of channels.

    Parameters
    ----------
    tensors
        By layer or tensor name (``<layer>``, ``<layer>.weight``, ``<layer>.bias``) or glob over
        them: "all", or a range (start, stop) of output channels, of which alone a gradient is made.
    """

    tensors: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check(isinstance(self.tensors, Mapping) and bool(self.tensors),
              "Sparse needs tensors: {name or glob: 'all' or (start, stop)}")
        for name, what in self.tensors.items():
            span = isinstance(what, list | tuple) and len(what) == 2
            check(what == "all" or (span and _whole(what[0], 0) and _whole(what[1], what[0] + 1)),
                  f"Sparse '{name}' is {what!r}; write 'all' or a range (start, stop)")


@dataclass(frozen=True, slots=True)
class LastLayers:
    """Train weights and biases of the last ``count`` layers."""

    count: int = 1

    def __post_init__(self) -> None:
        check(_whole(self.count),
              f"LastLayers count is {self.count}; it must be a whole number, 1 or more")


@dataclass(frozen=True, slots=True)
class Bias:
    """Train bias vectors only (BitFit, Ben Zaken et al. 2021, arXiv 2106.10199).

    ``targets`` as in LoRA; ``"*"`` takes the shifts of normalisations as well.
    """

    targets: Globs = "*"

    def __post_init__(self) -> None:
        _globs(self, "targets")


@dataclass(frozen=True, slots=True)
class Full:
    """Train every weight and bias of layers, scales and shifts of normalisations.

    Statistics of batch norms stay, and so do stored tensors that no layer reads as its weight, such
    as position embeddings.
    """

    targets: Globs = "*"

    def __post_init__(self) -> None:
        _globs(self, "targets")


Method = LoRA | IA3 | Adapter | Prefix | Sparse | LastLayers | Bias | Full


@dataclass(frozen=True, init=False)
class Compose:
    """Several methods together; the same as a list of them, and may be nested.

    A tensor that Full, LastLayers, Sparse or a new head trains stays theirs: its layer gets no
    LoRA. Of several LoRAs, IA3s or Adapters that name one place, the first takes it. IA3 scales
    what the layer gives together with its LoRA. Two Prefixes on one attention, and two different
    claims on one tensor, are refused.
    """

    methods: tuple[Method | Compose, ...]

    def __init__(self, *methods: Method | Compose) -> None:
        object.__setattr__(self, "methods", methods)


Train = Method | Compose


@dataclass(frozen=True, slots=True)
class Head:
    """A new classification layer in place of the model's last one; it trains, beside any method.

    It has a bias where the old one has one.

    Parameters
    ----------
    classes
        Its outputs.
    init
        "zeros" (every class equally likely at first) or "uniform" (as PyTorch's Linear).
    layer
        The layer to replace; None: the dense layer that makes the model's first output.
    """

    classes: int
    init: str = "zeros"
    layer: str | None = None

    def __post_init__(self) -> None:
        check(_whole(self.classes),
              f"Head classes is {self.classes}; it must be a whole number, 1 or more")
        check(self.init in ("zeros", "uniform"),
              f"Head init is {self.init!r}; use 'zeros' or 'uniform'")


def flatten(train: Train | Iterable[Train] | None) -> tuple[Method, ...]:
    """Return the methods in order, lists and Compose opened; LoRA() for None.

    Raises
    ------
    CompileError
        Something is not a method.
    """
    if train is None:
        return (LoRA(),)
    if isinstance(train, Compose):
        train = train.methods
    if isinstance(train, list | tuple):
        return tuple(m for part in train for m in flatten(_refused(part)))
    _refused(train)
    return (train,)  # type: ignore[return-value]


def _refused(method: Any) -> Any:
    known = isinstance(method, Method | Compose | list | tuple)
    check(known, f"train={method!r}: use el.LoRA(...), el.IA3(...), el.Adapter(...), "
                 "el.Prefix(...), el.Sparse(...), el.Bias(...), el.LastLayers(...), el.Full(...), "
                 "el.Compose(...) or a list of them")
    return method
