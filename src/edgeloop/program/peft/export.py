"""Write an adapter as PEFT does: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from edgeloop.errors import AdapterError
from edgeloop.program.peft.prefix import KEY, is_prefix, prefix_config, to_table
from edgeloop.program.peft.slots import RANKED, Slot, slots

if TYPE_CHECKING:
    from edgeloop.program.program import Program

Array = npt.NDArray[Any]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def export_adapter(
    program: Program, folder: str | os.PathLike[str], adapter: Mapping[str, Any] | None,
    names: Mapping[str, str] | None,
) -> None:
    """Write an adapter into ``folder``; the same adapter always gives the same bytes.

    Raises
    ------
    AdapterError
        PEFT cannot hold a layer, the arrays do not fit the program, a value is not finite, or the
        folder holds something else.
    """
    arrays = checked(program, adapter)
    if is_prefix(program):
        _save(program, folder, prefix_config(program), {KEY: to_table(program, arrays)})
        return
    found = slots(program, names)
    config = _config(program, found)
    tensors = {s.key: s.to_peft(arrays[s.param]) for s in found}
    if len(tensors) != len(found):
        twice = next(k for k, n in Counter(s.key for s in found).items() if n > 1)
        raise AdapterError(f"two layers would have the key '{twice}'; give them different `names`")
    _save(program, folder, config, tensors)


def _save(
    program: Program, folder: str | os.PathLike[str], config: Mapping[str, Any],
    tensors: dict[str, Array],
) -> None:
    note = {"producer": program.metadata.get("producer", ""), "program": program.hash}
    text = json.dumps(note, sort_keys=True)  # one key: more have no fixed order in the file
    data = safetensors.numpy.save(tensors, metadata={"edgeloop": text})
    _write(Path(folder), {CONFIG: json.dumps(config, indent=2, sort_keys=True) + "\n",
                          WEIGHTS: data})


def checked(program: Program, adapter: Mapping[str, Any] | None) -> dict[str, Array]:
    """Return the arrays of every param, those the program starts with for None."""
    if adapter is None:
        initial = program.initial()
        return {n: initial[n] for n in program.params}
    missing = sorted(set(program.params) - set(adapter))
    extra = sorted(set(adapter) - set(program.params))
    if missing or extra:
        raise AdapterError(
            f"the adapter is not one of this program: missing {missing}, unknown {extra}"
        )
    out = {}
    for name, t in program.params.items():
        a = np.asarray(adapter[name])
        if a.shape != t.shape or a.dtype != np.float32:
            raise AdapterError(
                f"'{name}' of the adapter is {a.dtype}{list(a.shape)}; float32{list(t.shape)} "
                "is needed"
            )
        if not np.isfinite(a).all():
            raise AdapterError(f"'{name}' of the adapter has values that are not finite")
        out[name] = a
    return out


def _config(program: Program, found: Sequence[Slot]) -> dict[str, Any]:
    ranks = {s.path: s.ours[0] for s in found if s.what in RANKED}
    gates = [s for s in found if s.what == "ia3"]
    if ranks and gates:
        raise AdapterError(
            "the program trains both LoRA and IA3; a PEFT adapter holds one of them: "
            "compile with one"
        )
    adapted = {s.path for s in found if s.what.startswith(("lora", "ia3"))}
    whole = list(dict.fromkeys(s.path for s in found if s.what in ("weight", "bias")))
    biased = [p for p in whole if p in adapted]
    if biased:
        raise AdapterError(f"'{biased[0]}' has an adapter and is trained whole; PEFT has no such")
    if not adapted:
        raise AdapterError(
            "the program trains no LoRA or IA3, only whole tensors "
            f"({', '.join(whole)}); a PEFT adapter needs one adapted layer: add el.LoRA(rank=1, "
            "targets='one layer'), or hand over the weights themselves with el.export_onnx"
        )
    paths = _all_paths(program, found)
    config: dict[str, Any] = {
        "base_model_name_or_path": None, "inference_mode": True, "task_type": None,
        "target_modules": _targets(list(adapted), paths),
        "modules_to_save": _to_save(whole, adapted) or None,
    }
    if gates:
        return config | _ia3(program, gates, paths)
    return config | _lora(program, found, ranks)


def _lora(program: Program, found: Sequence[Slot], ranks: Mapping[str, int]) -> dict[str, Any]:
    recorded = program.metadata.get("scales") or {}
    modules = program.metadata.get("modules") or {}
    layers = {s.path: s.layer for s in found if s.what in RANKED}
    lost = [layer for layer in layers.values() if layer not in recorded]
    if lost:
        raise AdapterError(f"the program does not record the scale of '{lost[0]}': compile it anew")
    dora = {s.path for s in found if s.what == "lora_magnitude"}
    if dora and dora != set(layers):
        rest = sorted(set(layers) - dora)
        raise AdapterError(
            f"DoRA on some layers and plain LoRA on others ({', '.join(rest)}); in PEFT it is "
            "all or none"
        )
    rooted = program.metadata.get("rslora") is True
    alphas = {
        p: _whole(recorded[layer] * (math.sqrt(ranks[p]) if rooted else ranks[p]))
        for p, layer in layers.items()
    }
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "use_rslora": rooted,
        "use_dora": bool(dora), "lora_dropout": 0.0, "bias": "none",
        "fan_in_fan_out": any(modules.get(x, {}).get("turned") for x in layers.values()),
        "rank_pattern": {_exact(p): r for p, r in ranks.items() if r != rank},
        "alpha_pattern": {_exact(p): a for p, a in alphas.items() if a != alpha},
    }


def _ia3(program: Program, gates: Sequence[Slot], paths: set[str]) -> dict[str, Any]:
    places, modules = program.metadata.get("ia3") or {}, program.metadata.get("modules") or {}
    inputs = [s.path for s in gates if places.get(s.layer) == "input"]
    return {
        "peft_type": "IA3", "feedforward_modules": _targets(inputs, paths),
        "fan_in_fan_out": any(modules.get(s.layer, {}).get("turned") for s in gates),
    }


def _whole(alpha: float) -> int | float:
    return round(alpha) if abs(alpha - round(alpha)) < 1e-9 * max(1, abs(alpha)) else alpha


def _exact(path: str) -> str:
    """A pattern that matches this path alone: PEFT searches rank and alpha by `re.match`."""
    return f"^{re.escape(path)}"


def _all_paths(program: Program, found: Sequence[Slot]) -> set[str]:
    """Every module path that is known of the model."""
    known = {k for k, m in (program.metadata.get("modules") or {}).items() if m.get("known")}
    moved = {s.layer for s in found}
    return {s.path for s in found} | (known - moved)


def _targets(adapted: list[str], paths: set[str]) -> list[str] | str:
    """Return the paths, or one regular expression where PEFT's match by ending takes others too."""
    adapted.sort()
    if not any(p.endswith(f".{t}") for t in adapted for p in paths):
        return adapted
    return "|".join(re.escape(t) for t in adapted)


def _to_save(whole: list[str], adapted: set[str]) -> list[str]:
    for path in whole:
        other = next((p for p in adapted if p.endswith(path)), None)
        if other is not None:
            raise AdapterError(
                f"PEFT finds modules to save by their ending, and '{path}' is also the end of "
                f"'{other}', which has an adapter; leave one of them out"
            )
    return sorted(whole)


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Put the files in place of a folder's earlier ones: all of them or none."""
    try:
        others = sorted({p.name for p in folder.iterdir()} - set(files)) if folder.exists() else []
        if others:
            raise AdapterError(
                f"{folder} holds other files ({', '.join(others[:3])}); name a new folder"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = folder.with_name(f".{folder.name}.{os.urandom(6).hex()}")
        draft.mkdir()
        try:
            for name, data in files.items():
                with (draft / name).open("wb") as f:
                    f.write(data.encode() if isinstance(data, str) else data)
                    f.flush()
                    os.fsync(f.fileno())
            if folder.exists():
                old = draft.with_name(f"{draft.name}.old")
                folder.replace(old)
                draft.replace(folder)
                shutil.rmtree(old)
            else:
                draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as e:
        raise AdapterError(f"{folder}: cannot write the adapter: {e.strerror}") from e
