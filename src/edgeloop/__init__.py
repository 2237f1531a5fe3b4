"""edgeloop: learn on the device. Compile an ONNX model's training step, run it, loop around it.

Names are imported when they are first used, so that a device never loads the compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop import loss
    from edgeloop.compiler import compile  # noqa: A004
    from edgeloop.errors import (
        AdapterError,
        BudgetError,
        CompileError,
        ConfigError,
        DataError,
        DeltaError,
        EdgeLoopError,
        InputError,
        ModelError,
        NonFiniteError,
        ProgramError,
        ShapeError,
        StateError,
        UnsupportedError,
    )
    from edgeloop.exporter import export_onnx, export_onnx_adapter, onnx_inputs
    from edgeloop.methods import (
        IA3,
        Adapter,
        Bias,
        Compose,
        Full,
        Head,
        LastLayers,
        LoRA,
        Prefix,
        Sparse,
    )
    from edgeloop.options import SGD, Adafactor, AdamW, AdamW8bit, Lion
    from edgeloop.program import Plan, Program
    from edgeloop.program.peft import import_peft
    from edgeloop.quantize import Quantize
    from edgeloop.runtime import Session
    from edgeloop.runtime.feature_cache import FeatureCache
    from edgeloop.serve import Predictor

__version__ = "0.1.0"

_HOME = {
    "Program": "program", "Plan": "program", "Session": "runtime", "compile": "compiler",
    "FeatureCache": "runtime.feature_cache", "import_peft": "program.peft",
    "Quantize": "quantize", "Predictor": "serve",
    **dict.fromkeys(("export_onnx", "export_onnx_adapter", "onnx_inputs"), "exporter"),
    **dict.fromkeys(("SGD", "Adafactor", "AdamW", "AdamW8bit", "Lion"), "options"),
    **dict.fromkeys(
        ("LoRA", "IA3", "Adapter", "Prefix", "Sparse", "LastLayers", "Bias", "Full", "Compose",
         "Head"),
        "methods",
    ),
    **dict.fromkeys(
        ("EdgeLoopError", "ModelError", "UnsupportedError", "ShapeError", "CompileError",
         "BudgetError", "ProgramError", "InputError", "NonFiniteError", "DataError",
         "ConfigError", "StateError", "DeltaError", "AdapterError"),
        "errors",
    ),
}

__all__ = [
    "IA3", "SGD", "Adafactor", "AdamW", "AdamW8bit", "Adapter", "AdapterError", "Bias",
    "BudgetError", "CompileError", "Compose", "ConfigError", "DataError", "DeltaError",
    "EdgeLoopError", "FeatureCache", "Full", "Head", "InputError", "LastLayers", "Lion", "LoRA",
    "ModelError", "NonFiniteError", "Plan", "Predictor", "Prefix", "Program", "ProgramError",
    "Quantize", "Session", "ShapeError", "Sparse", "StateError", "UnsupportedError", "compile",
    "export_onnx", "export_onnx_adapter", "import_peft", "load", "loss", "onnx_inputs",
]


def load(path: str, *, verify: bool = False) -> Program:
    """Read a program file; raises ProgramError. The same as ``Program.load``."""
    from edgeloop.program import Program

    return Program.load(path, verify=verify)


def __getattr__(name: str) -> Any:
    if name == "loss":
        return import_module("edgeloop.loss")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'edgeloop' has no attribute '{name}'")
    value = getattr(import_module(f"edgeloop.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
