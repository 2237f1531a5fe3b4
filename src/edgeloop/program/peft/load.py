"""Read a PEFT adapter as the arrays of a program's adapter; refuse what would load as nothing."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors

from edgeloop.errors import AdapterError
from edgeloop.program.peft.export import CONFIG, WEIGHTS
from edgeloop.program.peft.prefix import KEY, from_table, is_prefix
from edgeloop.program.peft.slots import PREFIX, RANKED, SCALED, TENSORS, Slot, slots

if TYPE_CHECKING:
    from edgeloop.program.program import Program

Array = npt.NDArray[Any]
_MAX_CONFIG, _MAX_WEIGHTS, _MAX_PATTERN = 1 << 20, 1 << 30, 400
_KINDS = ("LORA", "IA3", "PREFIX_TUNING")
# Initial values that leave the base model as it is; others of PEFT take a part out of its weights.
_PLAIN_INIT = (None, True, False, "gaussian", "orthogonal", "eva")
# Options under which the same tensors mean something else than W + s B A.
_OTHER_FORWARD = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
    "monteclora_config", "use_bdlora", "use_qalora",
)
_FLOATS = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_REMEDY = "pass names={layer of the program: module path in the adapter}, or compile for it"


def import_peft(
    folder: str | os.PathLike[str], program: Program, names: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """Read a PEFT adapter for ``session.load_adapter``.

    Parameters
    ----------
    folder
        Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
    program
        Compiled to train the same layers with the same method and rank; a different scale
        (alpha) is taken into B.
    names
        Module paths of layers by layer name, where they differ: ``{"fc": "classifier.out"}``. Keys
        that are empty or end in a dot stand for all layers that begin so: ``{"": "bert."}``.

    Returns
    -------
    dict
        Every trainable array by name.

    Raises
    ------
    AdapterError
        A file is missing or damaged; a layer is missing, unknown, transposed, of another rank; a
        value is not finite. Nothing is ever left out silently.
    """
    where = Path(folder)
    config = _read_config(where / CONFIG)
    tensors = _read_tensors(where / WEIGHTS)
    if is_prefix(program) or config["peft_type"] == "PREFIX_TUNING":
        return _prefix(where, config, tensors, program)
    found = slots(program, names)
    wanted = {s.key: s for s in found}
    _check_names(where, wanted, tensors)
    ratios = _ratios(config, found, program)
    out = {}
    for key, s in wanted.items():
        a = tensors[key]
        if tuple(a.shape) != s.shape:
            raise AdapterError(_shape_message(where, s, a))
        if not np.isfinite(a).all():
            raise AdapterError(f"{where}: '{key}' has values that are not finite")
        made = s.from_peft(a.astype(np.float32))
        ratio = ratios.get(s.layer, 1.0) if s.what in SCALED else 1.0
        out[s.param] = made if ratio == 1.0 else made * np.float32(ratio)
    return out


def _prefix(
    where: Path, config: Mapping[str, Any], tensors: Mapping[str, Array], program: Program
) -> dict[str, Array]:
    if not is_prefix(program) or config["peft_type"] != "PREFIX_TUNING" or list(tensors) != [KEY]:
        raise AdapterError(
            f"{where}: the adapter is {config['peft_type']} with {len(tensors)} tensors; a plain "
            f"prefix is PREFIX_TUNING with '{KEY}' alone (no prefix_projection), and the program "
            "must train el.Prefix(gated=False) and nothing else"
        )
    table = tensors[KEY].astype(np.float32)
    if not np.isfinite(table).all():
        raise AdapterError(f"{where}: '{KEY}' has values that are not finite")
    return from_table(program, table)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(_bytes(path, _MAX_CONFIG))
    except (ValueError, RecursionError) as e:
        raise AdapterError(f"{path}: is not JSON ({e})") from e
    if not isinstance(config, dict) or config.get("peft_type") not in _KINDS:
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise AdapterError(f"{path}: peft_type is {kind!r}; {', '.join(_KINDS)} can be read")
    return config


def _bytes(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise AdapterError(f"{path}: more than {limit} bytes; this is no adapter")
        return path.read_bytes()
    except OSError as e:
        hint = ""
        if path.name == WEIGHTS and (path.parent / "adapter_model.bin").exists():
            hint = "; adapter_model.bin is a pickle and is not read: save it as safetensors"
        raise AdapterError(f"{path}: cannot be read ({e.strerror}){hint}") from e


def _read_tensors(path: Path) -> dict[str, Array]:
    """Return the tensors by key, without the adapter's name that some files keep in it."""
    try:
        items = safetensors.deserialize(  # type: ignore[no-untyped-call]
            _bytes(path, _MAX_WEIGHTS))
    except safetensors.SafetensorError as e:
        raise AdapterError(f"{path}: is no safetensors file ({e}); copy it again") from e
    out: dict[str, Array] = {}
    for name, t in items:
        key = re.sub(r"\.(lora_\w+|ia3_l)\.default(\.|$)", r".\1\2", name)
        key = re.sub(r"(lora_magnitude_vector)\.weight$", r"\1", key)
        key = re.sub(r"\.modules_to_save(\.default)?\.", ".", key)
        if key in out:
            raise AdapterError(f"{path}: holds '{key}' twice")
        if t["dtype"] == "BF16":
            wide = np.frombuffer(t["data"], "<u2").astype("<u4") << np.uint32(16)
            array = wide.view("<f4")
        elif t["dtype"] in _FLOATS:
            array = np.frombuffer(t["data"], _FLOATS[t["dtype"]])
        else:
            raise AdapterError(f"{path}: '{name}' has type {t['dtype']}; floats can be read")
        out[key] = array.reshape(t["shape"])
    return out


def _check_names(
    where: Path, wanted: Mapping[str, Slot], tensors: Mapping[str, Array]
) -> None:
    """Every tensor has its place and every place its tensor, or AdapterError says which not."""
    bare = [k for k in tensors if not k.startswith(PREFIX)]
    if bare:
        raise AdapterError(
            f"{where}: '{bare[0]}' lacks the prefix '{PREFIX}', so PEFT would load nothing; "
            "save the adapter with PeftModel.save_pretrained"
        )
    copies = [k for k in tensors if k.endswith(".base_layer.weight")]
    if copies:
        raise AdapterError(
            f"{where}: '{copies[0]}' is a weight of the base model, which may differ from this "
            "one's; save the adapter with save_pretrained(..., save_embedding_layers=False)"
        )
    missing = [s for k, s in wanted.items() if k not in tensors]
    unknown = [k for k in tensors if k not in wanted]
    if not missing and not unknown:
        return
    theirs = list(dict.fromkeys(_module(k) for k in unknown))
    lines = [f"{where}: the adapter does not fit the program; {_REMEDY}"]
    prefix = _common_prefix({s.path for s in wanted.values()}, {_module(k) for k in tensors})
    if prefix:
        lines.append(f'  every module there begins with "{prefix}": names={{"": "{prefix}"}}')
    for path, layer in dict.fromkeys((s.path, s.layer) for s in missing):
        near = difflib.get_close_matches(path, theirs, 3, 0.3)
        hint = f"; nearest there: {', '.join(near)}" if near else ""
        lines.append(f"  missing: {path} (layer '{layer}'){hint}")
    lines += [f"  not in the program: {m}" for m in theirs]
    raise AdapterError("\n".join(lines))


def _module(key: str) -> str:
    path = key.removeprefix(PREFIX)
    end = next((e for e in TENSORS.values() if path.endswith(f".{e}")), "")
    return path.removesuffix(f".{end}")


def _common_prefix(ours: set[str], theirs: Iterable[str]) -> str:
    """Return what all of their names have before ours, or ''."""
    theirs = set(theirs)
    first = next(iter(sorted(ours)), "")
    for t in sorted(theirs):
        if first and t.endswith(f".{first}"):
            prefix = t.removesuffix(first)
            if {prefix + o for o in ours} == theirs:
                return prefix
    return ""


def _ratios(
    config: Mapping[str, Any], found: Iterable[Slot], program: Program
) -> dict[str, float]:
    """Return their scale over ours, for each layer with LoRA."""
    lora = [s for s in found if s.what in RANKED]
    kind = "LORA" if lora else "IA3"
    if config["peft_type"] != kind:
        raise AdapterError(f"the adapter is {config['peft_type']}, the program trains {kind}")
    start = config.get("init_lora_weights")
    if lora and start not in _PLAIN_INIT:
        raise AdapterError(
            f"init_lora_weights is {start!r}: PEFT changes the base model's weights for it; save "
            "the adapter with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    strange = [k for k in _OTHER_FORWARD if config.get(k)]
    if lora and strange:
        raise AdapterError(f"the adapter was trained with {strange[0]}, which is not LoRA as here")
    if bool(config.get("use_dora")) != any(s.what == "lora_magnitude" for s in found) and lora:
        raise AdapterError("only one of the adapter and the program uses DoRA; compile for it")
    recorded, ratios = program.metadata.get("scales") or {}, {}
    for s in lora:
        alpha = _pattern(config.get("alpha_pattern"), s.path, config.get("lora_alpha", 8))
        rank = s.ours[0]
        try:
            scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        except TypeError as e:
            raise AdapterError(f"lora_alpha of '{s.path}' is {alpha!r}, not a number") from e
        if not math.isfinite(scale):
            raise AdapterError(f"lora_alpha of '{s.path}' is {alpha!r}, not a finite number")
        ours = recorded.get(s.layer, 0.0)
        if ours == 0.0:
            raise AdapterError(f"the program's scale of '{s.layer}' is 0 or not recorded")
        ratios[s.layer] = 1.0 if math.isclose(scale, ours, rel_tol=1e-6) else scale / ours
    return ratios


def _pattern(patterns: Any, path: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the path or its end, as a regular expression."""
    for pattern, value in (patterns or {}).items():
        if len(pattern) > _MAX_PATTERN or re.search(r"\)[*+?{]", pattern):
            raise AdapterError(f"alpha_pattern '{pattern}' is too involved; write plain paths")
        try:
            if re.match(rf"(.*\.)?({pattern})$", path):
                return value
        except re.error as e:
            raise AdapterError(f"alpha_pattern '{pattern}' is no regular expression: {e}") from e
    return default


def _shape_message(where: Path, s: Slot, a: Array) -> str:
    text = f"{where}: '{s.key}' is {list(a.shape)}, the program needs {list(s.shape)}"
    if tuple(a.shape) == s.shape[::-1] and len(s.shape) == 2:
        return f"{text}: it is transposed"
    if s.what in RANKED + SCALED and a.ndim > 1:
        rank = a.shape[0 if s.what in RANKED else 1]
        return f"{text}; compile with el.LoRA(rank={rank}) for this adapter"
    return text
