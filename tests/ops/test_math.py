"""The core's own exp, log, tanh, ... against float64 NumPy, by kernel calls, edges included."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeloop.ops import OPS
from edgeloop.ops.kernels import isas, run_kernel
from edgeloop.ops.maps import erf, sigmoid, softplus

CORE = Path(__file__).parents[2] / "core"


def apply(name: str, *arrays: np.ndarray, isa: str = "ref", **attrs: float) -> np.ndarray:
    out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)), np.float32)
    run_kernel(OPS[name], [np.ascontiguousarray(a, np.float32) for a in arrays], [out], attrs, isa)
    return out


def every_float(step: int = 16_381) -> np.ndarray:
    """One in ``step`` of all 2^32 bit patterns: subnormals, infinities and NaNs too."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-45, -1e-45, 1.17549435e-38,
                      3.4028235e38, -3.4028235e38, 88.722839, 88.72284, -87.33655, -103.97208,
                      -103.97209, -104.0, 0.625, 0.62499994, 9.0, 9.1], np.float32)
    return np.concatenate([bits.view(np.float32), edges, np.nextafter(edges, np.float32(0))])


def ulps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Distance in units in the last place of the float32 nearest to ``want`` (float64)."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = want.astype(np.float32)
        unit = np.spacing(np.abs(near)).astype(np.float64)
        d = np.abs(got.astype(np.float64) - want) / unit
    exact = (got == near) | (np.isnan(got) & np.isnan(near))
    return np.where(exact, np.minimum(np.nan_to_num(d), 0.5), np.nan_to_num(d, nan=np.inf))


FUNCTIONS = {
    "exp": (np.exp, 1.2), "log": (np.log, 1.2), "tanh": (np.tanh, 1.3), "sqrt": (np.sqrt, 0.5),
    "sigmoid": (sigmoid, 2.5), "softplus": (softplus, 3.0), "reciprocal": (lambda x: 1 / x, 0.5),
    "erf": (erf, 8.0),
    "elu": (lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), 3.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_accurate_everywhere(name):
    function, bound = FUNCTIONS[name]
    x = every_float()
    if name in ("tanh", "elu", "exp", "sigmoid", "softplus"):  # more where something happens
        x = np.concatenate([x, np.linspace(-110, 110, 100_001, dtype=np.float32)])
    attrs = {"alpha": 1.0} if name == "elu" else {}
    with np.errstate(all="ignore"):
        want = function(x.astype(np.float64))
    error = ulps(apply(name, x, **attrs), want)
    worst = int(np.argmax(error))
    assert error[worst] <= bound, (x[worst], error[worst])


@pytest.mark.parametrize("isa", isas()[1:])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_the_same_bits_on_every_instruction_set(name, isa):
    x = every_float(step=40_009)
    attrs = {"alpha": 1.0} if name == "elu" else {}
    a, b = apply(name, x, **attrs), apply(name, x, isa=isa, **attrs)
    same = (a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b))
    assert same.all(), x[~same][:5]


def test_pow_is_accurate():
    rng = np.random.default_rng(3)
    x = np.exp(rng.uniform(-80, 80, 200_000)).astype(np.float32)
    y = (rng.uniform(-90, 90, x.size) / np.abs(np.log(x))).astype(np.float32)
    with np.errstate(all="ignore"):
        want = x.astype(np.float64) ** y.astype(np.float64)
    assert ulps(apply("pow", x, y), want).max() <= 0.6


def test_pow_follows_c_at_the_edges():
    """Negative base with integer exponent, zeros, infinities and NaN as C and NumPy have it."""
    values = np.array([0.0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 4, 2.5, -2.5, 1e-40, 16777215,
                       16777216, -16777217, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
    x, y = (np.ascontiguousarray(v) for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
        near = want.astype(np.float32)
    got = apply("pow", x, y)
    assert ulps(got, want).max() <= 0.6
    zero = near == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(near[zero]))


def test_a_worse_function_is_caught():
    """Negative control: an error of two units in the last place is seen."""
    x = every_float(step=40_009)
    with np.errstate(all="ignore"):
        want = np.exp(x.astype(np.float64))
        worse = (want * (1 + 2.0**-22)).astype(np.float32)
    assert ulps(worse, want).max() > 1.5


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_square_root_without_the_instruction_is_correctly_rounded(tmp_path):
    source = tmp_path / "root.c"
    source.write_text(
        '#define EL_SOFT_SQRT 1\n#include <stdio.h>\n#include "math.h"\n'
        "int main(void) {\n  for (uint64_t u = 0; u < (1ull << 32); u += 20011) {\n"
        "    float x = el_from_bits((uint32_t)u), a = el_sqrtf(x), b = __builtin_sqrtf(x);\n"
        "    if (el_bits(a) != el_bits(b) && !(a != a && b != b)) {\n"
        '      printf("%08x\\n", (unsigned)u);\n      return 1;\n    }\n  }\n  return 0;\n}\n'
    )
    program = tmp_path / "root"
    # -iquote: the core's math.h must not hide the system's.
    subprocess.run(
        ["cc", "-O1", "-fno-math-errno", "-iquote", CORE / "kernels", source, "-o", program],
        check=True,
    )
    subprocess.run([program], check=True)
