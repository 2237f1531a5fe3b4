"""Chains: steps one after another, shapes checked, differences named."""

from __future__ import annotations

import numpy as np
import pytest
from data.features.oracles import window

from edgeloop.data.features import (
    Chain,
    LogMel,
    Normalise,
    Psd,
    Reshape,
    Transpose,
    differences,
    from_spec,
)
from edgeloop.errors import DataError

VIBRATION = [
    {"kind": "psd", "window": 256, "log": "db"},
    {"kind": "normalise", "mean": -60.0, "std": 20.0},
    {"kind": "transpose", "axes": [1, 0]},
]


def test_it_is_its_steps_one_after_another():
    x = window((1000, 3))
    wanted = x
    for record in VIBRATION:
        wanted = from_spec(record)(wanted)
    chain = from_spec({"steps": VIBRATION})
    assert np.array_equal(chain(x), wanted)
    assert chain.output_shape == (3, 129)
    assert np.array_equal(Chain(steps=[from_spec(r) for r in VIBRATION])(x), wanted)


def test_a_bare_record_of_steps_is_a_chain_and_the_record_is_complete():
    record = from_spec({"steps": VIBRATION}).spec()
    assert record == from_spec({"kind": "chain", "steps": VIBRATION}).spec()
    assert record["kind"] == "chain"
    assert record["steps"] == [from_spec(r).spec() for r in VIBRATION]


def test_shapes_that_are_known_are_checked_at_once():
    chain = from_spec({"steps": [{"kind": "log-mel"}, {"kind": "transpose", "axes": [0, 2, 1]}]})
    assert (chain.input_shape, chain.output_shape) == ((16000,), (1, 10, 49))
    assert chain.samples == 16000
    with pytest.raises(DataError, match=r"steps\[2\] \(transpose\): axes is \[1, 0\]"):
        Chain(steps=[LogMel(), Normalise(), Transpose(axes=[1, 0])])
    with pytest.raises(DataError, match=r"steps\[2\] \(psd\): a window has 4 samples"):
        Chain(steps=[Normalise(), Reshape(shape=[4, 2]), Psd()])


def test_shapes_that_the_window_says_are_checked_then():
    chain = Chain(steps=[Psd(window=256), Transpose(axes=[1, 0])])
    assert chain.output_shape is None
    assert chain.plan((1000, 3)) == (3, 129)
    for _ in range(2):
        with pytest.raises(DataError, match=r"steps\[1\] \(transpose\)"):
            chain(window((1000,)))
        assert np.array_equal(chain(window((1000, 3))), Psd(window=256)(window((1000, 3))).T)


def test_a_plan_that_failed_half_way_is_made_again():
    # The first step takes [100], the second does not: afterwards both take [50] as before.
    chain = from_spec({"steps": [{"kind": "scale"}, {"kind": "reshape", "shape": [5, 10]}]})
    out = chain(window((50,)))
    with pytest.raises(DataError, match="reshape"):
        chain(window((100,)))
    assert np.array_equal(chain(window((50,))), out)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"steps": []}, "steps is empty"),
        ({"steps": {}}, "steps is {}; it must be a list"),
        ({"steps": ["psd"]}, r"steps\[0\] is 'psd'; it must be a record"),
        ({"steps": [{}]}, r"steps\[0\] \(None\): kind is None"),
        ({"steps": [{"kind": "scale"}, {"kind": "chain", "steps": []}]}, r"steps\[1\] is .*chain"),
        ({"steps": [{"steps": []}]}, r"steps\[0\] is .* other than chain"),
        ({"steps": [{"kind": "scale"}, {"kind": "psdd"}]}, r'steps\[1\] .*did you mean "psd"'),
        ({"steps": [{"kind": "psd", "hops": 1}]}, r'steps\[0\] \(psd\).*did you mean "hop"'),
        ({"steps": [{"kind": "psd", "hop": 0}]}, r"steps\[0\] \(psd\): hop is 0"),
        ({"steps": [{"kind": "place"}]}, r"steps\[0\] \(place\): length is missing"),
        ({"kind": "chain"}, "steps is missing"),
        ({"kind": "chain", "stesp": []}, 'did you mean "steps"'),
    ],
)
def test_bad_steps_are_named(record, said):
    with pytest.raises(DataError, match=said):
        from_spec(record)


def test_a_chain_in_a_chain_is_refused_in_code_too():
    with pytest.raises(DataError, match=r"steps\[1\] is a chain"):
        Chain(steps=[Normalise(), Chain(steps=[Normalise()])])


def test_bad_windows_are_named_with_the_step():
    chain = from_spec({"steps": [{"kind": "log-mel"}, {"kind": "scale"}]})
    with pytest.raises(DataError, match=r"steps\[0\] \(log-mel\): samples are int16"):
        chain(np.zeros(16000, np.int16))
    with pytest.raises(DataError, match=r"steps\[0\] \(log-mel\): a clip has shape \[99\]"):
        chain(np.zeros(99, np.float32))


def test_what_overflows_between_steps_is_found_at_the_end():
    chain = from_spec({"steps": [{"kind": "scale", "factor": 1e38}, {"kind": "statistics"}]})
    with pytest.raises(DataError, match="chain: the result is beyond float32"):
        chain(100 * window((50,)))


def test_differences():
    ours = from_spec({"steps": VIBRATION}).spec()
    assert differences(ours, ours) == []
    other = from_spec({"steps": [{**VIBRATION[0], "hop": 64}, *VIBRATION[1:]]}).spec()
    assert differences(ours, other) == ["steps[0] (psd): hop is 128, the program's 64"]
    other = from_spec({"steps": [{"kind": "fft"}, VIBRATION[1]]}).spec()
    assert differences(ours, other) == [
        "steps[0] (psd): kind is 'psd', the program's 'fft'",
        "there are 3 steps, the program's are 2",
    ]
    assert differences(LogMel(mels=9).spec(), LogMel().spec()) == ["mels is 9, the program's 10"]
    assert differences(ours, LogMel().spec()) == ["kind is 'chain', the program's 'log-mel'"]
