import json

import numpy as np
from onnx import helper

from edgeloop.importer import summary


def test_summary_of_a_good_model_is_plain_data(build):
    model = build(
        [
            helper.make_node("Conv", ["x", "stem.weight"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["c", "dw.weight"], ["d"], group=4),
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1),
        ],
        [("x", ["N", 1, 6, 6])], [("y", ["N", 3])],
        {
            "stem.weight": np.ones((4, 1, 3, 3), np.float32),
            "dw.weight": np.ones((4, 1, 3, 3), np.float32),
            "head.weight": np.ones((3, 4), np.float32), "head.bias": np.ones(3, np.float32),
        },
    )
    s = summary(model)
    json.dumps(s)
    assert s["error"] is None
    assert s["inputs"] == {"x": ["N", 1, 6, 6]}
    assert s["params"] == 36 + 36 + 15
    assert s["weight_bytes"] == 4 * s["params"]
    assert {x["name"]: x["lora"] for x in s["layers"]} == {
        "stem": "yes", "dw": "off under *", "head": "yes",
    }
    assert {"op": "Gemm", "count": 1, "supported": "yes"} in s["operators"]


def test_summary_of_an_unsupported_model_says_what_is_missing(build):
    sinh = helper.make_node("Sinh", ["x"], ["y"], name="s")
    model = build([sinh], [("x", ["N"])], [("y", ["N"])])
    s = summary(model)
    json.dumps(s)
    assert s["unsupported"] == [
        {"op": "Sinh", "node": "s", "on_gradient_path": False, "detail": ""}
    ]
    assert s["operators"] == [{"op": "Sinh", "count": 1, "supported": "no"}]
    assert "Sinh" in s["error"]


def test_summary_of_a_model_with_unbound_dimensions_says_so(build):
    relu = helper.make_node("Relu", ["x"], ["y"])
    model = build([relu], [("x", ["N", "t"])], [("y", ["N", "t"])])
    assert 'shapes={"t": 16}' in summary(model)["error"]
    assert summary(model, shapes={"t": 4})["error"] is None
