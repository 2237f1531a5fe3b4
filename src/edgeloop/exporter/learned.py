"""A program's trained arrays by layer, in the layout of the framework the model came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeloop.errors import AdapterError
from edgeloop.importer.modules import Module
from edgeloop.ir import Array
from edgeloop.program import Program
from edgeloop.program.peft.export import checked

_NO_PLACE = ("adapter_down", "adapter_up", "prefix_k", "prefix_v", "prefix_gate")


@dataclass(slots=True)
class Learned:
    """What one layer learned; ``parts`` are the arrays by what their names end in."""

    layer: str
    module: Module
    scale: float
    at_input: bool
    parts: dict[str, Array] = field(default_factory=dict)

    @property
    def change(self) -> Array | None:
        """Return the change that LoRA makes to the weight, in PyTorch's layout, float64."""
        if "lora_embedding_A" in self.parts:
            a, b = (self.parts[f"lora_embedding_{x}"].astype(np.float64) for x in "AB")
            return self.scale * (b @ a).T
        factors = self.factors()
        if factors is None:
            return None
        return self.scale * (factors[1] @ factors[0]).reshape(self.module.shape)

    def factors(self) -> tuple[Array, Array] | None:
        """Return LoRA's A [r, inner] and B [out, r], inner in PyTorch's order, float64."""
        if "lora_A" not in self.parts:
            return None
        a, b = (self.parts[f"lora_{x}"].astype(np.float64) for x in "AB")
        return self.torch_order(a).reshape(a.shape[0], -1), b

    def weight(self, base: Array) -> Array:
        """Return the layer's weight with all that changes it; ``base`` in PyTorch's layout."""
        w = base.astype(np.float64)
        whole = self.parts.get("weight")
        if whole is not None:
            w = self.torch_order(whole.astype(np.float64))
        change = self.change
        if change is not None:
            w = w + change / self.module.alpha
        if "lora_magnitude" in self.parts:
            rows = w.reshape(len(w), -1)
            ratio = self.parts["lora_magnitude"] / np.sqrt((rows**2).sum(axis=1))
            w = w * ratio.reshape(-1, *(1,) * (w.ndim - 1))
        for what, a in self.parts.items():
            if what.startswith("weight["):
                start, stop = (int(n) for n in what[7:-1].split(":"))
                w = w.copy()
                w[start:stop] = self.torch_order(a)
        return self._scaled(w)

    def bias(self, base: Array | None) -> Array | None:
        """Return the layer's bias with all that changes it; None where there is none."""
        b = self.parts.get("bias", base)
        for what, a in self.parts.items():
            if what.startswith("bias[") and b is not None:
                start, stop = (int(n) for n in what[5:-1].split(":"))
                b = b.copy()
                b[start:stop] = a
        gate = self.parts.get("ia3")
        return b if gate is None or self.at_input or b is None else b * gate

    def changes_bias(self) -> bool:
        """Tell whether anything learned acts on the bias."""
        outside = "ia3" in self.parts and not self.at_input
        return outside or any(p.startswith("bias") for p in self.parts)

    def torch_order(self, a: Array) -> Array:
        """[n, kh, kw, c] of a convolution as [n, c, kh, kw]; others as they are."""
        window = self.module.shape[2:]
        if self.module.kind not in ("conv1d", "conv2d"):
            return a
        return np.moveaxis(a.reshape(len(a), *window, self.module.shape[1]), -1, 1)

    def _scaled(self, w: Array) -> Array:
        gate = self.parts.get("ia3")
        if gate is None:
            return w
        if self.module.kind == "embedding":
            return w * gate
        if not self.at_input:
            return w * gate.reshape(-1, *(1,) * (w.ndim - 1))
        groups = self.module.groups
        spread = gate.reshape(groups, -1)[np.arange(len(w)) * groups // len(w)]
        return w * spread.reshape(*spread.shape, *(1,) * (w.ndim - 2))


def learned(
    program: Program, adapter: Mapping[str, Array] | None, modules: Mapping[str, Module]
) -> list[Learned]:
    """Return what the adapter changes, layer by layer.

    Raises
    ------
    AdapterError
        The adapter does not fit the program, the model is not the one that the program was
        compiled from, or a layer has no counterpart in ONNX, each by name.
    """
    arrays = checked(program, adapter)
    recorded = program.metadata.get("modules") or {}
    scales, ia3 = program.metadata.get("scales") or {}, program.metadata.get("ia3") or {}
    found: dict[str, Learned] = {}
    for name, a in arrays.items():
        layer, _, what = name.rpartition(".")
        if any(f".{p}" in name for p in _NO_PLACE):
            raise AdapterError(
                f"'{name}': bottleneck adapters and prefixes are nodes of their own, not part of "
                "a weight; export_onnx writes LoRA, DoRA, IA3 and trained weights only"
            )
        module = modules.get(layer)
        if module is None:
            raise AdapterError(
                f"'{name}': the layer is not one dense, convolution, embedding or normalisation "
                "node of the ONNX model, so nothing can be merged there; leave it out of targets"
            )
        if module.described() != recorded.get(layer):
            raise AdapterError(
                f"'{layer}' is {module.described()} in the model and {recorded.get(layer)} in the "
                "program: give the model that the program was compiled from"
            )
        if module.calls > 1:
            raise AdapterError(f"'{layer}': {module.calls} nodes use it, each with what it learned")
        made = found.setdefault(layer, Learned(
            layer, module, float(scales.get(layer, 1.0)), ia3.get(layer) == "input"))
        made.parts[what] = a
    return list(found.values())
