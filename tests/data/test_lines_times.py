"""Times and late labels on standard input."""

import io

import pytest

from edgeloop.data.item import Feedback
from edgeloop.data.sources import LinesSource
from edgeloop.errors import DataError


def read(*lines):
    return list(LinesSource(stream=io.BytesIO("\n".join(lines).encode() + b"\n")).items())


def test_seconds_nanoseconds_or_none():
    found = read('{"x": [1], "t": 2.5}', '{"x": [1], "ts_ns": 2500000000}', '{"x": [1], "k": 3}')
    assert [item.time for item in found] == [2.5, 2.5, None]
    assert [dict(item.meta) for item in found] == [{}, {}, {"k": 3}]


def test_a_line_without_samples_is_a_label():
    assert read('{"y": 1, "id": 7}', '{"y": 2, "t": 3}') == [
        Feedback(1, "7", None), Feedback(2, None, 3.0)]


@pytest.mark.parametrize("line", [
    '{"y": 1}', '{"y": null, "id": "a"}', '{"x": [1], "t": "now"}', '{"x": [1], "t": NaN}',
    '{"x": [1], "t": true}', '{"x": [1], "ts_ns": 1' + "0" * 400 + "}", "{}",
    '{"x": [1' + "0" * 400 + "]}", '{"x": [1], "y": 1' + "0" * 400 + "}"])
def test_a_line_that_says_neither_is_one_error(line):
    bad, good = read(line, '{"x": [1]}')
    assert isinstance(bad, DataError)
    assert good.time is None
