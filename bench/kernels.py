"""The large products alone, as shares of what the core can do; shapes of W4 to W7 among them."""

from __future__ import annotations

import goals
from gemm import dense, measure, over_codes

from edgeloop.ops.kernels import isas

# rows, outputs, inputs
SHAPES = ((256, 256, 256), (512, 512, 512), (788, 768, 192), (1024, 384, 1536), (512, 1024, 256),
          (128, 2048, 2048))


def shares(peaks: dict[str, float], seconds: float = 0.2) -> list[dict]:
    """One line a kernel and shape: its rate over the peak of its kind of numbers."""
    out = []
    for m, n, k in SHAPES:
        calls = [("f32", c) for c in dense(m, n, k)]
        calls += [("int8", c) for c in over_codes(m, n, k) if c[0].startswith("qlinear_i8")]
        for kind, (name, inputs, attrs) in calls:
            rate, *_ = measure(name, inputs, attrs, isas()[-1], seconds)
            out.append({"kernel": name, "shape": f"{m}x{n}x{k}", "share": rate / peaks[kind],
                        "goal": goals.KERNELS[kind] if asked(kind, name, (m, n, k)) else 0.0})
    return out


def asked(kind: str, name: str, shape: tuple[int, int, int]) -> bool:
    """Whether a product is large enough to have a goal; ``dx`` sums over outputs, not inputs."""
    depth = shape[1] if name.endswith("_dx") else shape[2]
    return min(shape) >= 192 if kind == "f32" else depth >= 384


def table(found: list[dict]) -> str:
    """Markdown."""
    lines = ["| product | rows x outputs x inputs | of the peak | goal |", "|---|---|---|---|"]
    for f in found:
        text = "" if not f["goal"] else f">= {f['goal']:.0%} " + (
            "met" if f["share"] >= f["goal"] else "**missed**")
        lines.append(f"| {f['kernel']} | {f['shape']} | {f['share']:.0%} | {text} |")
    return "\n".join(lines)
