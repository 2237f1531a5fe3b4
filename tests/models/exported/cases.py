"""The exported models: inputs, loss, what trains, and which exports of each there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import edgeloop as el

IGNORE = -100
SCRIPT, DYNAMO = "script", "dynamo"
BOTH = (SCRIPT, DYNAMO)
ATTENTION = tuple(f"{e}.{a}" for e in BOTH for a in ("eager", "sdpa"))


@dataclass(frozen=True)
class Input:
    """One model input without its batch; ``below`` > 0 makes it token ids, "mask" padding."""

    name: str
    shape: tuple[int, ...]
    kind: str = "float"
    below: int = 0


@dataclass(frozen=True)
class Case:
    """One model of the tests."""

    inputs: tuple[Input, ...]
    target: tuple[int, ...]
    classes: int
    exports: tuple[str, ...]
    batch: int = 2
    loss: str = "cross_entropy"
    lora: dict = field(default_factory=dict)
    lr: float = 1e-3
    next_token: bool = False
    quick: tuple[str, ...] = ()  # exports that the recorded comparison covers; default all
    free: tuple[str, ...] = ()  # exports with a dynamic sequence

    @property
    def recorded(self) -> tuple[str, ...]:
        return self.quick or self.exports

    def criterion(self) -> str | el.loss.CrossEntropy:
        """The loss as `compile` takes it."""
        return el.loss.CrossEntropy(ignore_index=IGNORE) if self.next_token else self.loss

    def options(self) -> el.LoRA:
        """The adapter that all comparisons train."""
        return el.LoRA(**{"rank": 4, "alpha": 8.0} | self.lora)

    def data(self, kind: str = "") -> tuple[dict[str, np.ndarray], np.ndarray]:
        """One fixed batch for an export: inputs by name, and targets."""
        xs, y = self.everything()
        return {i.name: xs[i.name] for i in self.inputs_of(kind)}, y

    def everything(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the batch with all inputs."""
        rng = np.random.default_rng(5)
        xs = {i.name: self.sample(i, rng) for i in self.inputs}
        if self.next_token:
            ids = next(iter(xs.values()))
            y = np.concatenate([ids[:, 1:], np.full((self.batch, 1), IGNORE)], 1)
            y[0, :3] = IGNORE  # a prompt that is not learned
            y[:, :-1][xs["attention_mask"][:, 1:] == 0] = IGNORE
            return xs, y
        if self.loss == "mse":
            return xs, rng.normal(size=(self.batch, *self.target)).astype(np.float32)
        return xs, rng.integers(0, self.classes, (self.batch, *self.target))

    def inputs_of(self, kind: str) -> tuple[Input, ...]:
        """Inputs of one export: those that end in ``.ids`` have no padding mask."""
        return self.inputs[:1] if kind.endswith(".ids") else self.inputs

    def sample(self, i: Input, rng: np.random.Generator) -> np.ndarray:
        """One input's batch."""
        shape = (self.batch, *i.shape)
        if i.kind == "ids":
            return rng.integers(0, i.below, shape)
        if i.kind == "mask":
            lengths = rng.integers(i.shape[0] // 2, i.shape[0] + 1, (self.batch, 1))
            lengths[0] = i.shape[0]
            return (np.arange(i.shape[0]) < lengths).astype(np.int64)
        return rng.standard_normal(shape).astype(np.float32)


def image(size: int, name: str = "x") -> tuple[Input, ...]:
    return (Input(name, (3, size, size)),)


def tokens(vocabulary: int, length: int = 16) -> tuple[Input, ...]:
    ids = Input("input_ids", (length,), "ids", vocabulary)
    return ids, Input("attention_mask", (length,), "mask")


CASES: dict[str, Case] = {
    "resnet18": Case(image(64), (), 10, BOTH, lr=3e-4),
    "efficientnet_lite0": Case(image(64), (), 10, BOTH),
    "tcn": Case((Input("x", (6, 64)),), (), 6, BOTH, batch=8),
    "cct": Case(image(32), (), 10, BOTH, batch=4),
    "vit_tiny": Case(image(224, "pixel_values"), (), 10, ATTENTION, batch=1,
                     quick=("dynamo.sdpa",)),
    "gru": Case((Input("x", (49, 10)),), (), 12, BOTH, batch=8),
    "lstm": Case((Input("x", (24, 7)),), (6, 7), 0, BOTH, batch=8, loss="mse"),
    "unet": Case(image(32), (32, 32), 5, BOTH),
    "bert": Case(tokens(200), (), 4, ATTENTION, batch=3, quick=("script.eager", "dynamo.sdpa")),
    "gpt2": Case(tokens(100), (16,), 100, (*ATTENTION, "dynamo.sdpa.ids"),
                 batch=3, next_token=True,
                 quick=("script.sdpa", "dynamo.eager", "dynamo.sdpa.ids"),
                 free=("script.sdpa.seq", "dynamo.sdpa.seq")),
    "llama": Case(tokens(100), (16,), 100, (*ATTENTION, "dynamo.sdpa.ids"),
                  batch=3, next_token=True, quick=("script.eager", "dynamo.sdpa")),
}
# Only their size matters.
UNTRAINED = {"vit_small": Case(image(224, "pixel_values"), (), 10, ("dynamo.sdpa",), batch=1)}
EXPORTS = [f"{name}.{e}" for name, case in CASES.items() for e in case.exports]
RECORDED = [f"{name}.{e}" for name, case in CASES.items() for e in case.recorded]
