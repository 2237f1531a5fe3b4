"""Resize, its relatives and ConvTranspose against ONNX Runtime."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.ops.test_converters import check, model

from edgeloop.errors import ModelError, ShapeError
from edgeloop.importer import load_model
from edgeloop.ops import evaluate

F, I64 = np.float32, np.int64
NONE = np.array([], F)


def resize(shape, scales=None, sizes=None, *, roi=None, opset=19, **attrs):
    consts = [NONE if roi is None else np.array(roi, F)]
    order = ["x0", "c0" if roi is not None else "", "c1" if scales is not None else ""]
    consts.append(np.array(scales or [], F))
    if sizes is not None:
        consts.append(np.array(sizes, I64))
        order.append("c2")
    check("Resize", [shape], consts, order=order, opset=opset, **attrs)


HOW = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
SCALES = ([1, 1, 2, 3], [1, 1, 0.5, 0.7], [1, 1, 1.6, 1])


@pytest.mark.parametrize(("how", "scales"), list(itertools.product(HOW, SCALES)))
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(how, scales, rounding):
    resize((2, 3, 5, 7), scales, mode="nearest", coordinate_transformation_mode=how,
           nearest_mode=rounding)


@pytest.mark.parametrize(("how", "scales"), list(itertools.product(HOW, SCALES)))
def test_linear(how, scales):
    resize((2, 3, 5, 7), scales, mode="linear", coordinate_transformation_mode=how)


@pytest.mark.parametrize("more", [{}, {"exclude_outside": 1}, {"cubic_coeff_a": -0.5}])
@pytest.mark.parametrize("scales", [[1, 1, 2, 4], *SCALES[1:]])
@pytest.mark.parametrize("how", HOW[:4])
def test_cubic(how, scales, more):
    resize((2, 3, 5, 7), scales, mode="cubic", coordinate_transformation_mode=how, **more)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialias_when_shrinking(mode):
    resize((1, 2, 12, 15), [1, 1, 0.4, 0.5], mode=mode, antialias=1)


def test_sizes_one_axis_and_signals():
    resize((2, 3, 5, 7), sizes=[2, 3, 10, 4], mode="linear")
    resize((2, 3, 5), sizes=[2, 3, 9], mode="linear")
    resize((4, 6), [2, 1], mode="nearest")
    resize((2, 3, 5, 7), sizes=[8, 9], mode="nearest", axes=[2, 3])


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crop(mode):
    resize((1, 2, 6, 6), sizes=[1, 2, 4, 5], roi=[0, 0, -0.2, 0.3, 1, 1, 0.9, 1.4], mode=mode,
           coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0)


def test_a_wrong_rounding_would_be_seen():
    """Negative control: the modes differ on these sizes."""
    with pytest.raises(AssertionError):
        check_rounded("floor", "ceil")


def check_rounded(*modes):
    made = []
    for mode in modes:
        proto = model("Resize", [(1, 1, 1, 5)], [NONE, np.array([1, 1, 1, 1.6], F)], opset=19,
                      mode="nearest", nearest_mode=mode)
        graph = load_model(proto, batch=None).graph
        made.append([a.tolist() for a in graph.constants.values()])
    assert made[0] == made[1]


def test_no_output_is_an_error():
    with pytest.raises((ModelError, ShapeError), match="would be resized to"):
        resize((1, 1, 2, 2), [1, 1, 0.1, 1], mode="nearest")


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    check("DepthToSpace", [(2, 12, 3, 4)], blocksize=2, mode=mode)


def test_space_to_depth():
    check("SpaceToDepth", [(2, 3, 4, 6)], blocksize=2)


@pytest.mark.parametrize("slope", [[[[0.1]], [[0.4]], [[-0.2]]], [[[0.3]], [[0.3]], [[0.3]]]])
def test_prelu(slope):
    check("PRelu", [(2, 3, 4, 5)], [np.array(slope, F)])
    check("PRelu", [(2, 3, 4, 5), (3, 1, 1)])


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_pad_modes(mode):
    check("Pad", [(2, 3, 5)], [np.array([0, 1, 2, 0, 2, -1], I64)], mode=mode, opset=19)
    check("Pad", [(4,)], [np.array([3, 2], I64)], mode=mode, opset=19)


@pytest.mark.parametrize(("x", "w", "attrs"), [
    ((2, 4, 5, 6), (4, 3, 3, 3), {}),
    ((2, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 3], "pads": [1, 0, 1, 2]}),
    ((1, 4, 5, 6), (4, 3, 2, 4), {"strides": [2, 2], "output_padding": [1, 1], "group": 2}),
    ((1, 4, 5, 6), (4, 1, 3, 3), {"group": 4, "dilations": [2, 1]}),
    ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
    ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [3, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 3, 3), (2, 2, 2, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((2, 3, 7), (3, 2, 4), {"strides": [2], "pads": [1, 1]}),
    ((2, 3, 7), (3, 2, 4), {"strides": [3], "output_padding": [2]}),
])
def test_conv_transpose(x, w, attrs):
    rng = np.random.default_rng(4)
    weight = rng.standard_normal(w).astype(F)
    bias = rng.standard_normal(w[1] * attrs.get("group", 1)).astype(F)
    check("ConvTranspose", [x], [weight], **attrs)
    check("ConvTranspose", [x], [weight, bias], **attrs)


def test_output_padding_beyond_the_stride_is_zero_plus_bias():
    """PyTorch allows it up to the dilation; ONNX Runtime does not run it."""
    rng = np.random.default_rng(4)
    consts = [rng.standard_normal((2, 3, 2, 2)).astype(F), np.array([1, 2, 3], F)]
    x, results = rng.standard_normal((1, 2, 3, 3)).astype(F), []
    for more in ([0, 0], [2, 1]):
        proto = model("ConvTranspose", [x.shape], consts, dilations=[3, 3], output_padding=more)
        graph = load_model(proto, batch=None).graph
        results.append(evaluate(graph, {"x0": x})[graph.outputs[0]])
    plain, longer = results
    assert longer.shape == (1, 3, 8, 7)
    np.testing.assert_array_equal(longer[:, :, :6, :6], plain)
    edge = np.broadcast_to(np.array([1, 2, 3], F)[:, None, None], (3, 2, 7))
    np.testing.assert_array_equal(longer[0, :, 6:], edge)
