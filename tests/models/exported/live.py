"""PyTorch's side of an exported model: the module with the weights of the skeletons, trained.

LoRA is applied where it is defined, on the weight: W + scale B A, by autograd through
``functional_call``. Nothing here is shared with the compiler.
"""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from models.exported import nets, transformers_nets
from models.exported.cases import IGNORE, Case
from models.exported.filling import fill
from models.exported.skeleton import Named, fused_bias, fused_weight
from torch import nn
from torch.func import functional_call

RECURRENT = re.compile(r"(.+?)(?:\.(\d+))?(_reverse)?\.(input|recurrent)")


def build(name: str, attention: str = "eager") -> nn.Module:
    """Return the module in eval mode with seeded weights; batch norms are still there."""
    own = nets.NETS.get(name)
    module = own() if own else transformers_nets.NETS[name](attention)
    state = module.state_dict()
    owned = {k: torch.tensor(fill(k, tuple(v.shape))) for k, v in state.items()
             if v.is_floating_point() and not k.endswith("inv_freq")}
    module.load_state_dict(owned, strict=False)
    return module.eval()


def pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return (convolution, batch norm) names, where one follows the other."""
    found, before = [], ""
    for name, m in module.named_modules():
        if isinstance(m, nn.BatchNorm2d):
            found.append((before, name))
        before = name
    return found


def candidates(module: nn.Module) -> list[tuple[str, Named]]:
    """Return the recipes by which exporters make initializers of this module's tensors."""
    state = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    made: list[tuple[str, Named]] = [("plain", [(k, s)]) for k, s in state.items()]
    for conv, norm in pairs(module):
        keys = [f"{conv}.weight", *(f"{norm}.{k}" for k in
                                    ("weight", "bias", "running_mean", "running_var"))]
        of = [(k, state[k]) for k in keys]
        made += [("fused_weight", of), ("fused_bias", of)]
    for name, m in module.named_modules():
        if isinstance(m, nn.LSTM | nn.GRU):
            made += recurrent(name, m, state)
    return made


def recurrent(name: str, m: nn.Module, state: dict) -> list[tuple[str, Named]]:
    """Return the recipes of a recurrent module: W, R and B of every layer."""
    kind, made = type(m).__name__.lower(), []
    for layer in range(m.num_layers):
        tails = [f"l{layer}", f"l{layer}_reverse"][: 2 if m.bidirectional else 1]
        for what in ("weight_ih", "weight_hh"):
            keys = [f"{name}.{what}_{t}" for t in tails]
            made.append((kind, [(k, state[k]) for k in keys]))
        keys = [f"{name}.{b}_{t}" for t in tails for b in ("bias_ih", "bias_hh")]
        made.append((f"{kind}_bias", [(k, state[k]) for k in keys]))
    return made


def fuse(module: nn.Module) -> nn.Module:
    """Fold batch norms as the exporters do, with the numbers of the skeletons."""
    state = module.state_dict()
    for conv, norm in pairs(module):
        parts = [state[f"{conv}.weight"].numpy(),
                 *(state[f"{norm}.{k}"].numpy()
                   for k in ("weight", "bias", "running_mean", "running_var"))]
        layer = module.get_submodule(conv)
        layer.weight = nn.Parameter(torch.tensor(fused_weight(parts)))
        layer.bias = nn.Parameter(torch.tensor(fused_bias(parts)))
        parent, _, leaf = norm.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Identity())
    return module


class Trained:
    """A module whose named layers carry adapters; ``params`` are what learns."""

    def __init__(self, name: str, case: Case, params: dict[str, np.ndarray]):
        self.case, self.module = case, fuse(build(name)).requires_grad_(False)
        self.params = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
        self.scale = case.options().scale

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the module that differ from its own, as functions of params."""
        out = {}
        for key in self.params:
            if key.endswith(".lora_A"):
                layer = key.removesuffix(".lora_A")
                b = self.params[f"{layer}.lora_B"]
                name, to_torch = place(self.module, layer)
                w = out.get(name, self.module.get_parameter(name))
                delta = self.scale * b @ self.params[key].reshape(b.shape[1], -1)
                out[name] = w + to_torch(delta)
        return out

    def loss(self, xs: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        out = functional_call(
            self.module, self.weights(), tuple(xs.values()), tie_weights=False)
        if self.case.loss == "mse":
            return F.mse_loss(out, y)
        if self.case.next_token:
            return F.cross_entropy(out.flatten(0, 1), y.flatten(), ignore_index=IGNORE)
        return F.cross_entropy(out, y)


def place(module: nn.Module, layer: str):
    """Return the parameter that a layer of the ONNX graph is, and how its delta becomes one."""
    match = RECURRENT.fullmatch(layer)
    if match:  # <module>[.<number>][_reverse].input: gates in ONNX's order
        owner, number, reverse, what = match.groups(default="")
        kind = type(module.get_submodule(owner)).__name__
        order = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}[kind]
        leaf = f"weight_{'ih' if what == 'input' else 'hh'}_l{number or 0}{reverse}"
        return f"{owner}.{leaf}", lambda d: torch.cat([d.chunk(len(order))[i] for i in order])
    m = module.get_submodule(layer)
    w = m.weight
    if isinstance(m, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):  # [o, kh, kw, c]
        return f"{layer}.weight", lambda d: d.reshape(
            w.shape[0], *w.shape[2:], w.shape[1]).movedim(-1, 1)
    if type(m).__name__ == "Conv1D":  # GPT-2's dense layer, [k, n]
        return f"{layer}.weight", lambda d: d.T
    return f"{layer}.weight", lambda d: d


def train(
    name: str, case: Case, params: dict[str, np.ndarray], steps: int = 10
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Return AdamW's losses on one batch, and the gradients of the first step.

    One thread: PyTorch's sums depend on their number, by 1e-4 after ten steps.
    """
    torch.set_num_threads(1)
    t = Trained(name, case, params)
    opt = torch.optim.AdamW(list(t.params.values()), lr=case.lr, weight_decay=0.01)
    xs, y = case.data()
    tensors, target = {k: torch.tensor(v) for k, v in xs.items()}, torch.tensor(y)
    losses, first = [], {}
    for i in range(steps):
        opt.zero_grad()
        loss = t.loss(tensors, target)
        loss.backward()
        first = first or {k: p.grad.numpy().copy() for k, p in t.params.items()}
        if i < steps:
            opt.step()
        losses.append(loss.item())
    return losses, first
