"""What the benchmark has to show: every goal of it, in one table.

Times are ratios within one run. ``vs_f32``: to the best f32 peer with as many threads;
``vs_any``: to the best peer in any precision; ``vs_bf16``: to PyTorch's bf16; ``efficiency``: flops
of the step / time / peak of its instruction, measured in the same run; ``scaling``: time with
one thread / time with two. A goal for one thread alone stands in ONE_THREAD.
"""

from __future__ import annotations

# (workload, mode) -> what -> the most (the least for efficiency and scaling)
TRAIN: dict[tuple[str, str], dict[str, float]] = {
    ("W1", "f32"): {"vs_f32": 0.35},
    ("W2", "f32"): {"vs_f32": 0.30},
    ("W3", "f32"): {"vs_f32": 0.50},
    ("W4", "f32"): {"vs_f32": 0.60, "efficiency": 0.75, "scaling": 1.85},
    ("W5", "f32"): {"vs_f32": 0.68, "efficiency": 0.75, "scaling": 1.85},
    ("W6", "f32"): {"vs_f32": 0.70, "efficiency": 0.75, "scaling": 1.85},
    ("W7", "f32"): {"vs_f32": 0.65, "scaling": 1.85},
    ("W4", "int8"): {"vs_any": 0.35, "scaling": 1.85},
    ("W5", "int8"): {"vs_any": 0.35, "scaling": 1.85},
    ("W6", "int8"): {"vs_any": 0.40, "scaling": 1.85},
    ("W7", "int8"): {"vs_any": 0.45, "scaling": 1.85},
    ("W7", "int4"): {"vs_any": 0.60, "scaling": 1.85},
    ("W4", "bf16"): {"vs_bf16": 1 / 1.5, "scaling": 1.85},
    ("W5", "bf16"): {"vs_bf16": 1 / 1.5, "scaling": 1.85},
    ("W6", "bf16"): {"vs_bf16": 1 / 1.5, "scaling": 1.85},
    ("W7", "bf16"): {"vs_bf16": 1 / 1.1, "scaling": 1.85},
}
ONE_THREAD = {("W4", "f32"): {"vs_f32": 0.70}, ("W5", "f32"): {"vs_f32": 0.77}}
PREDICT = {"f32": {"vs_f32": 1.0}, "int8": {"vs_f32": 0.5}}  # to onnxruntime
START = {"first_step_s": 0.2, "peak_rss_mb": 45.0}  # W1 to W3, one thread, f32
LOAD_S = 0.3  # W7's program, whatever its mode
CYCLE_MS = {"keyword": 150.0, "sentences": 1000.0}  # p99, last sample in to new version live
KERNELS = {"f32": 0.90, "int8": 0.75}  # of the peak: every side >= 192; sums of >= 384
AT_LEAST = ("efficiency", "scaling")

# How far a value may lie from PyTorch's: the first loss, the loss of step 25, predictions.
TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "int8": 4e-2, "int4": 4e-2}


def wanted(task: str, name: str, mode: str, threads: int) -> dict[str, float]:
    """The goals of one row."""
    if task == "predict":
        return PREDICT.get(mode, {})
    goals = TRAIN.get((name, mode), {})
    if threads == 1:
        goals = goals | ONE_THREAD.get((name, mode), {})
    return {k: v for k, v in goals.items() if k != "scaling" or threads > 1}


def met(what: str, got: float, goal: float) -> bool:
    """Whether a measured number reaches its goal; one that is missing (NaN) does not."""
    return got >= goal if what in AT_LEAST else got <= goal


def agrees(mode: str, got: float, reference: float) -> bool:
    """Whether two losses, or mean sizes of predictions, are the same but for rounding."""
    return abs(got - reference) <= TOLERANCE[mode] * abs(reference)
