"""Where each trained tensor of a program lies in a PEFT adapter: its key, its shape, its layout.

PEFT 0.21 (peft/utils/save_and_load.py, tuners/lora/layer.py, tuners/ia3/layer.py): keys are
``base_model.model.<module path>.<tensor>``; convolutions have their channels before the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeloop.errors import AdapterError

if TYPE_CHECKING:
    from edgeloop.program.program import Program

Array = npt.NDArray[Any]
PREFIX = "base_model.model."
# Tensors of a layer: what our name ends in -> what PEFT's key ends in.
TENSORS = {
    "lora_A": "lora_A.weight", "lora_B": "lora_B.weight",
    "lora_embedding_A": "lora_embedding_A", "lora_embedding_B": "lora_embedding_B",
    "lora_magnitude": "lora_magnitude_vector", "ia3": "ia3_l",
    "weight": "weight", "bias": "bias",
}
RANKED = ("lora_A", "lora_embedding_A")  # [rank, ...]
SCALED = ("lora_B", "lora_embedding_B")  # [.., rank], where another scale goes
_NO_PLACE = {
    "adapter_down.weight": "bottleneck adapters", "adapter_down.bias": "bottleneck adapters",
    "adapter_up.weight": "bottleneck adapters", "adapter_up.bias": "bottleneck adapters",
    **dict.fromkeys(
        ("prefix_k", "prefix_v", "prefix_gate"), "gated prefixes, or prefixes beside other methods"
    ),
}
_OTHER_FORMAT = "keep it as session.adapter(), or as a delta package"


@dataclass(frozen=True, slots=True)
class Slot:
    """One trained tensor and its place in a PEFT adapter.

    ``between`` is our array's shape with every axis apart, ``order`` the axes as PEFT has them,
    ``shape`` PEFT's shape.
    """

    param: str
    layer: str
    what: str
    path: str
    ours: tuple[int, ...]
    between: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """PEFT's key."""
        return f"{PREFIX}{self.path}.{TENSORS[self.what]}"

    def to_peft(self, a: Array) -> Array:
        """Our array in PEFT's layout."""
        moved = a.reshape(self.between).transpose(self.order).reshape(self.shape)
        return np.ascontiguousarray(moved)

    def from_peft(self, a: Array) -> Array:
        """PEFT's array in our layout."""
        apart = a.reshape(tuple(self.between[i] for i in self.order))
        return np.ascontiguousarray(apart.transpose(np.argsort(self.order)).reshape(self.ours))


def slots(program: Program, names: Mapping[str, str] | None) -> list[Slot]:
    """Return the place of every trained tensor, in the program's order.

    Raises
    ------
    AdapterError
        The layers that PEFT cannot hold or whose module is unknown, each with the reason.
    """
    found: list[Slot] = []
    refused: dict[str, None] = {}
    for name, t in program.params.items():
        try:
            found.append(_slot(name, t.shape, program.metadata, names or {}))
        except AdapterError as e:
            refused[str(e)] = None
    if refused:
        lines = "\n  ".join(refused)
        raise AdapterError(f"a PEFT adapter cannot hold what this program trains:\n  {lines}")
    return found


def _slot(
    name: str, ours: tuple[int, ...], metadata: Mapping[str, Any], names: Mapping[str, str]
) -> Slot:
    modules = metadata.get("modules") or {}
    for what, method in _NO_PLACE.items():
        if name.endswith(f".{what}"):
            layer = name.removesuffix(f".{what}")
            raise AdapterError(f"'{layer}': PEFT has no place for {method}; {_OTHER_FORMAT}")
    layer, _, what = name.rpartition(".")
    if what not in TENSORS or not layer:
        raise AdapterError(f"'{name}' is no tensor of a module; {_OTHER_FORMAT}")
    if name in (metadata.get("tied") or ()):
        raise AdapterError(
            f"'{layer}' shares its weight with another module, and PEFT would give it to one of "
            "them alone; use el.LoRA there, or el.export_onnx"
        )
    path = _path(layer, modules, names)
    module = modules.get(layer, {})
    kind, shape = module.get("kind", "linear"), tuple(module.get("shape", ()))
    _check_held(layer, what, module)
    if what in ("lora_A", "weight") and kind in ("conv1d", "conv2d"):
        between = (ours[0], *shape[2:], shape[1])
        order = (0, len(shape) - 1, *range(1, len(shape) - 1))
    elif what == "weight" and module.get("turned"):
        between, order = ours, (1, 0)
    else:
        between, order = ours, tuple(range(len(ours)))
    if int(np.prod(between)) != int(np.prod(ours)):
        raise AdapterError(f"'{layer}': {name} {list(ours)} does not fit a {kind} {list(shape)}")
    final = tuple(between[i] for i in order)
    ones = (1,) * (len(shape) - 2) if kind in ("conv1d", "conv2d") else ()
    if what == "lora_B":
        final = (*ours, *ones)
    elif what == "ia3":
        inside = (metadata.get("ia3") or {}).get(layer) == "input"
        final = (1, *ours, *ones) if inside or ones else (*ours, 1)
    elif what == "lora_magnitude" and ones:
        final = (1, *ours, *ones)
    return Slot(name, layer, what, path, ours, between, order, final)


def _check_held(layer: str, what: str, module: Mapping[str, Any]) -> None:
    if module.get("groups", 1) > 1 and what.startswith("lora"):
        raise AdapterError(
            f"'{layer}' is a grouped convolution: its LoRA is a full-rank change of few weights "
            "that PEFT's LoRA cannot express; choose targets without it, or el.LastLayers or "
            "el.Full for it"
        )
    if module.get("dilated") and what.startswith("lora"):
        raise AdapterError(
            f"'{layer}' is a dilated convolution, and PEFT's LoRA runs without the dilation; "
            "choose targets without it"
        )
    if what == "ia3" and module.get("kind") == "conv1d":
        raise AdapterError(f"'{layer}' is a 1-D convolution, which PEFT's IA3 does not know")
    if what == "ia3" and module.get("kind") == "embedding":
        raise AdapterError(f"'{layer}' is an embedding, which PEFT's IA3 does not know")
    if module.get("folded"):
        raise AdapterError(
            f"'{layer}': the exporter multiplied a batch norm into its weight, so what was "
            "learned does not fit the module in PyTorch; export the ONNX with "
            "dynamo=True, optimize=False, or with dynamo=False, do_constant_folding=False"
        )
    if module.get("calls", 1) > 1:
        raise AdapterError(
            f"'{layer}': the model calls this module {module['calls']} times; here each call "
            "learns for itself, in PEFT all share one adapter"
        )


def _path(layer: str, modules: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Path of the layer's module: as ``names`` has it, else the layer's name if that is one."""
    if layer in names:
        return names[layer]
    prefixes = [k for k in names if (k == "" or k.endswith(".")) and layer.startswith(k)]
    if not modules.get(layer, {}).get("known"):
        raise AdapterError(
            f"'{layer}': the ONNX does not say which module this is; "
            f'pass names={{"{layer}": "path.of.the.module"}}'
        )
    best = max(prefixes, key=len, default=None)
    return layer if best is None else names[best] + layer.removeprefix(best)
