import io
import json
import wave

import numpy as np
import pytest

from edgeloop.data.item import Item, Labels
from edgeloop.data.sources import (
    CsvSource,
    IterableSource,
    LinesSource,
    NpzSource,
    WavSource,
    make_source,
)
from edgeloop.errors import ConfigError, DataError

CLASSES = Labels(["walk", "run"])


def xs(items):
    return [item.x.tolist() if isinstance(item, Item) else str(item) for item in items]


def write_wav(path, value, rate=16000):
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.full(4, value, "<i2").tobytes())


# Labels


@pytest.mark.parametrize(("said", "y"), [("run", 1), (1, 1), ("0", 0), (None, None), ("", None)])
def test_labels(said, y):
    assert CLASSES.parse(said, "here") == y


@pytest.mark.parametrize("said", ["swim", 2, -1, 0.5, [1], float("nan")])
def test_labels_refused(said):
    with pytest.raises(DataError, match=r"here: label .* classes are walk, run"):
        CLASSES.parse(said, "here")


def test_labels_as_values():
    assert Labels(values=[1]).parse("2.5", "here").tolist() == [2.5]
    assert Labels(values=[2, 1]).parse([1, 2], "here").tolist() == [[1], [2]]
    with pytest.raises(DataError, match="here: value is nan"):
        Labels(values=[1]).parse(float("nan"), "here")
    with pytest.raises(DataError, match=r"here: target has shape \[3\]; .* takes \[2\]"):
        Labels(values=[2]).parse([1, 2, 3], "here")


def test_labels_without_names():
    assert Labels(count=3).parse(2, "here") == 2
    with pytest.raises(DataError, match="whole numbers from 0 to 2"):
        Labels(count=3).parse(3, "here")


# Iterables


def test_iterable_takes_arrays_pairs_and_items():
    item = Item(np.ones(2, np.float32), None, "mine")
    source = IterableSource([[1, 2], ([3, 4], "run"), item], CLASSES)
    first, second, third = source.items()
    assert (first.x.tolist(), first.y, first.key) == ([1, 2], None, "iterable:0")
    assert (second.x.dtype, second.y) == (np.float32, 1)
    assert third is item
    assert source.replayable
    assert [i.key for i in source.items(1)] == ["iterable:1", "mine"]


def test_generators_are_live():
    source = IterableSource(iter([[1.0], [2.0]]))
    assert not source.replayable
    assert [i.key for i in source.items(5)] == ["iterable:5", "iterable:6"]


def test_iterable_survives_a_bad_item():
    items = list(IterableSource([[1.0], [float("nan")], ["x"], [2.0]]).items())
    assert [type(i) for i in items] == [Item, DataError, DataError, Item]
    assert "iterable: item 1: at [0] is nan" in str(items[1])


# JSON lines


def lines(*records):
    text = "".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records)
    return list(LinesSource(CLASSES, io.BytesIO(text.encode())).items())


def test_lines():
    a, b = lines({"x": [1, 2], "y": "run", "id": 7, "user": "anna"}, {"x": [[3], [4]]})
    assert (a.x.tolist(), a.y, a.key, a.meta) == ([1, 2], 1, "7", {"user": "anna"})
    assert (b.x.shape, b.y, b.key) == ((2, 1), None, "stdin:2")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json\n", "line 1: not JSON"),
        ("[1, 2]\n", 'not an object with "x"'),
        ('{"y": 1}\n', 'without "x" it needs "y" and "id"'),
        ('{"x": [1, NaN]}\n', r"line 1, x: at \[1\] is nan"),
        ('{"x": [1e60]}\n', r"line 1, x: at \[0\] is 1e\+60"),
        ('{"x": [[1], [2, 3]]}\n', "not an array of numbers"),
        ('{"x": ["a"]}\n', "not an array of numbers"),
        ('{"x": [1], "y": "swim"}\n', "line 1, y: label 'swim'"),
        ("[" * 100_000 + "\n", "line 1: not JSON"),
    ],
)
def test_bad_lines_do_not_end_the_stream(line, message):
    bad, good = lines(line, {"x": [5]})
    assert isinstance(bad, DataError)
    assert good.x.tolist() == [5]
    with pytest.raises(DataError, match=message):
        raise bad


def test_endless_line(monkeypatch):
    monkeypatch.setattr("edgeloop.data.sources.lines.MAX_LINE", 40)
    bad, good = lines('{"x": [' + "1," * 200 + "1]}\n", {"x": [5]})
    assert "longer than 40 bytes" in str(bad)
    assert good.x.tolist() == [5]


# WAV


def test_wav_labels_and_order(tmp_path):
    for i in range(5):
        write_wav(tmp_path / f"run-{i}.wav", i * 1000)
    source = WavSource(tmp_path, order="name", labels=CLASSES)
    items = list(source.items())
    assert [i.key for i in items] == [f"run-{i}.wav" for i in range(5)]
    assert items[2].y == 1
    assert np.allclose(items[2].x, 2000 / 32768)
    shuffled = [i.key for i in WavSource(tmp_path, labels=CLASSES).items()]
    assert sorted(shuffled) == [i.key for i in items] != shuffled
    assert [i.key for i in WavSource(tmp_path, labels=CLASSES).items(2)] == shuffled[2:]
    assert [i.key for i in WavSource(tmp_path, labels=CLASSES, seed=1).items()] != shuffled


def test_wav_labels_from_folders_or_none(tmp_path):
    write_wav(tmp_path / "walk" / "a.wav", 1)
    (item,) = WavSource(tmp_path, label="folder", labels=CLASSES).items()
    assert (item.y, item.key) == (0, "walk/a.wav")
    (item,) = WavSource(tmp_path, label="none", labels=CLASSES).items()
    assert item.y is None


def test_wav_bad_clips_are_errors_of_their_own(tmp_path):
    write_wav(tmp_path / "run-1.wav", 1, rate=8000)
    (tmp_path / "run-2.wav").write_bytes(b"RIFFnonsense")
    write_wav(tmp_path / "swim-3.wav", 1)
    write_wav(tmp_path / "run-4.wav", 1)
    items = list(WavSource(tmp_path, order="name", labels=CLASSES).items())
    assert [type(i) for i in items] == [DataError, DataError, Item, DataError]
    assert "8000 Hz" in str(items[0])
    assert "swim" in str(items[3])


def test_wav_needs_clips(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.wav or \.flac files"):
        WavSource(tmp_path / "absent")
    with pytest.raises(ConfigError, match="label is 'x'"):
        WavSource(tmp_path, label="x")


# NPZ


def test_npz_rows(tmp_path):
    path = tmp_path / "d.npz"
    x = np.arange(12).reshape(4, 3)
    np.savez(path, x=x, y=np.array([0, 1, 0, 1]))
    items = list(NpzSource(path, labels=CLASSES).items())
    assert [i.x.tolist() for i in items] == x.tolist()
    assert [(i.y, i.key) for i in items][:2] == [(0, "d.npz:0"), (1, "d.npz:1")]
    assert [i.key for i in NpzSource(path).items(3)] == ["d.npz:3"]
    np.savez_compressed(path, a=x.astype(np.float64))
    assert [i.y for i in NpzSource(path, x="a").items(1)] == [None] * 3


def test_npz_errors(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.array([[1.0], [np.nan], [3.0]]), y=np.array([0, 1, 9]))
    a, b, c = NpzSource(path, labels=CLASSES).items()
    assert isinstance(a, Item)
    assert "d.npz: x, row 1: at [0] is nan" in str(b)
    assert "d.npz: y, row 2: label 9" in str(c)
    with pytest.raises(DataError, match=r"has no array 'z'; it holds x\.npy, y\.npy"):
        NpzSource(path, x="z")
    np.savez(path, x=np.zeros((3, 1)), y=np.zeros(2))
    with pytest.raises(DataError, match="give each row one label"):
        list(NpzSource(path).items())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        NpzSource(path)


def test_npz_never_unpickles(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"damaged|must be"):
        list(NpzSource(path).items())


def test_npz_damage_inside(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((100, 3)))
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        list(NpzSource(path).items())


# CSV


def csv_file(tmp_path, text):
    path = tmp_path / "d.csv"
    path.write_text(text)
    return path


ROWS = "t,ax,ay,who\n0,1,2,walk\n1,3,4,walk\n2,5,6,run\n3,7,8,run\n4,9,10,run\n"


def test_csv_windows(tmp_path):
    path = csv_file(tmp_path, ROWS)
    source = CsvSource(path, columns=["ax", "ay"], label="who", window=2, labels=CLASSES)
    items = list(source.items())
    assert xs(items) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert [i.y for i in items] == [0, 1]
    assert xs(source.items(1)) == xs(items[1:])
    hopped = CsvSource(path, columns=["ax"], label="who", window=3, hop=1, labels=CLASSES)
    assert xs(hopped.items()) == [[[1], [3], [5]], [[3], [5], [7]], [[5], [7], [9]]]
    assert [i.y for i in hopped.items()] == [0, 1, 1]
    turned = CsvSource(path, columns=["ax", "ay"], window=2, channels_first=True)
    assert xs(turned.items(1)) == [[[5, 7], [6, 8]]]
    sparse = CsvSource(path, columns=["ax"], window=1, hop=2)
    assert xs(sparse.items()) == [[1], [5], [9]]


def test_csv_takes_every_other_column(tmp_path):
    path = csv_file(tmp_path, "a,b,y\n1,2,0\n")
    (item,) = CsvSource(path, label="y", labels=CLASSES).items()
    assert (item.x.tolist(), item.y) == ([1, 2], 0)


def test_csv_bad_rows_name_row_and_column(tmp_path):
    path = csv_file(tmp_path, "a,b\n1,2\n3,x\n5,nan\n7,\n9\n11,12\n")
    items = list(CsvSource(path).items())
    text = [str(i) for i in items if isinstance(i, DataError)]
    assert "row 3, column 'b': 'x' is not a number" in text[0]
    assert "row 4, column 'b': value is nan" in text[1]
    assert "row 5, column 'b'" in text[2]
    assert "row 6, column 'b': None" in text[3]
    assert xs(i for i in items if isinstance(i, Item)) == [[1, 2], [11, 12]]


def test_csv_row_with_too_many_fields_is_named(tmp_path):
    path = csv_file(tmp_path, "a,b\n1,2\n3,4,5\n")
    _good, bad = CsvSource(path).items()
    assert isinstance(bad, DataError)
    assert "row 3 has more fields than the header's 2; repair the row" in str(bad)


def test_csv_window_starts_again_after_a_bad_row(tmp_path):
    path = csv_file(tmp_path, "a\n1\n2\nx\n3\n4\n5\n")
    items = list(CsvSource(path, window=2).items())
    assert [type(i) for i in items] == [Item, DataError, Item]
    assert xs(items)[2] == [[3], [4]]


def test_csv_errors(tmp_path):
    path = csv_file(tmp_path, ROWS)
    with pytest.raises(DataError, match="has no column 'az'; its header line names 't', 'ax'"):
        CsvSource(path, columns=["az"])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        CsvSource(tmp_path / "absent.csv")
    with pytest.raises(ConfigError, match="window is 0"):
        CsvSource(path, window=0)
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"cannot be read as CSV|not CSV"):
        list(CsvSource(path).items())


# From a configuration


def test_make_source(tmp_path):
    csv_file(tmp_path, ROWS)
    table = {"kind": "csv", "path": "d.csv", "columns": ["ax"], "window": 2}
    source = make_source(table, labels=CLASSES, root=tmp_path)
    assert xs(source.items()) == [[[1], [3]], [[5], [7]]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"t: source\.kind: is None; use one of csv, .*none, npz, recording, stdin, wav"),
        ({"kind": "csv"}, r"t: source\.path: is missing"),
        ({"kind": "csv", "path": "a", "colums": []}, r'source\.colums: unknown .*"columns"\?'),
        (
            {"kind": "csv", "path": "a", "window": "2"},
            r"source\.window: is '2'; it must be of type int",
        ),
        ({"kind": "csv", "path": "a", "window": True}, r"source\.window: is True"),
        ({"kind": "stdin", "stream": 1}, r"source\.stream: unknown key"),
    ],
)
def test_make_source_errors(tmp_path, table, message):
    with pytest.raises(ConfigError, match=message):
        make_source(table, labels=CLASSES, root=tmp_path, where="t: source")
