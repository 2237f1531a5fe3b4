"""Whatever JSON a record or a state holds: a pipeline, or a DataError, and nothing else."""

from __future__ import annotations

import contextlib
import inspect

import numpy as np
from data.features.oracles import window
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.data.features import KINDS, from_spec
from edgeloop.errors import DataError

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.text(max_size=3),
    st.sampled_from(["hann", "db", "ln", "running", "window", "grey", "slaney", "end", "rms"]),
    st.sampled_from([10**400, 1e300, 5e-324, 16000]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["kind", "steps", "seen", "mean", "var"]), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def records(draw, kinds=tuple(KINDS)):
    kind = draw(st.sampled_from(kinds))
    if kind == "chain" and draw(st.booleans()):
        inner = records(tuple(k for k in KINDS if k != "chain"))
        return {"kind": kind, "steps": draw(st.lists(inner, max_size=3))}
    keys = list(inspect.signature(KINDS[kind]).parameters) or ["kind"]
    return {"kind": kind, **draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=4))}


@settings(max_examples=400)
@given(records(), st.sampled_from([(), (1,), (64,), (33, 3), (3, 33), (9, 8, 3), (16000,)]))
def test_a_record_makes_a_pipeline_or_a_data_error(record, shape):
    with contextlib.suppress(DataError):
        pipeline = from_spec(record)
        assert from_spec(pipeline.spec()).spec() == pipeline.spec()
        out = pipeline.observe(window(shape))
        assert out.shape == pipeline.output_shape
        assert np.isfinite(out).all()


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["steps", "seen", "mean", "var"]), JSON, max_size=4))
def test_a_state_is_taken_whole_or_refused(state):
    running = {"kind": "normalise", "by": "running"}
    for record in (running, {"steps": [{"kind": "scale"}, running]}):
        pipeline = from_spec(record)
        before = pipeline.state()
        try:
            pipeline.load_state(state)
        except DataError:
            assert pipeline.state() == before
        else:
            assert pipeline.state() == state
