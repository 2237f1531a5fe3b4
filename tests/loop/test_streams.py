"""Raw recordings and late labels through the loop and through predict: [window], [feedback]."""

import json

import numpy as np
import pytest
from tests.loop.test_setup import edit

from edgeloop import loop
from edgeloop.cli import main
from edgeloop.data.item import Feedback, Item, Labels
from edgeloop.data.streams import Windowed
from edgeloop.errors import ConfigError, DataError
from edgeloop.loop import setup
from edgeloop.loop.report import Report
from edgeloop.store import Store

WIDTH, EACH = 16, 5  # samples of a window, windows of one label in a block
WINDOW = f"\n[window]\nlength = {WIDTH}\nrate = 16.0\n"


def recording(blocks=60, seed=1):
    """Blocks [blocks, 80] of one signal whose stretches of 16 samples are of one class, and it."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(4, WIDTH))
    y = rng.integers(4, size=blocks)
    x = centres[np.repeat(y, EACH)] + 0.8 * rng.normal(size=(blocks * EACH, WIDTH))
    return x.astype(np.float32).reshape(blocks, -1), y


@pytest.fixture
def here(device, monkeypatch):
    """A device whose source is a recording."""
    monkeypatch.chdir(device.folder)
    x, y = recording()
    np.savez(device.folder / "raw.npz", x=x, y=y)
    edit(device.folder, 'kind = "csv"\npath = "stream.csv"\nlabel = "label"',
         'kind = "npz"\npath = "raw.npz"' + WINDOW)
    return device.folder


def ended(folder):
    with Store.open(folder / "device.db", readonly=True) as store:
        return [(v.id, v.sha256, v.live) for v in store.versions()], store.kv("loop")


def test_learns_from_a_raw_recording(here, capsys):
    report = loop.run(here / "loop.toml")
    assert report.items == report.accepted == 300
    assert report.promoted >= 1
    assert (report.gaps, report.missing, report.overruns, report.unmatched) == (0, 0, 0, 0)
    x, y = recording(20, seed=9)
    np.savez(here / "other.npz", x=x, y=y)
    assert main(["predict", "loop.toml", "other.npz", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers["predictions"]) == 100
    assert answers["accuracy"] > 0.8


def test_a_run_in_pieces_ends_with_the_same_bits(here):
    whole = here.parent / "whole"
    whole.mkdir()
    for name in ("loop.toml", "model.elp", "raw.npz"):
        (whole / name).write_bytes((here / name).read_bytes())
    loop.run(whole / "loop.toml")
    for until in (7, 93, 94, 230):
        assert loop.run(here / "loop.toml", until=until).items == until
    loop.run(here / "loop.toml")
    assert ended(here) == ended(whole)


def late_labels(blocks=30, lose=()):
    """Blocks without a label, each followed by labels for moments in the middle of its windows."""
    x, y = recording(blocks)
    for i, (samples, label) in enumerate(zip(x, y, strict=True)):
        begin = 1.7e9 + i * EACH
        if i not in lose:
            yield Item(samples, None, f"b{i}", {}, begin)
        for k in range(EACH):
            yield Feedback(int(label), time=begin + k + 0.5)


def test_labels_that_come_later_are_learnt_from(here):
    path = edit(here, "[trigger]", '[feedback]\nby = "time"\ntolerance = "100 ms"\n[trigger]')
    report = loop.run(path, source=late_labels(lose=(12,)))
    assert report.accepted == 29 * EACH
    assert report.unlabelled == 0
    assert (report.gaps, report.missing, report.unmatched) == (1, 80, EACH)
    assert report.promoted >= 1


def test_in_real_time(here):
    edit(here, "[trigger]", '[feedback]\nby = "time"\n[trigger]')
    path = edit(here, 'kind = "npz"', 'kind = "npz"\nrealtime = true')
    report = loop.run(path, source=late_labels())
    assert report.items == 30 * EACH
    assert report.overruns == 0
    assert report.accepted + report.unlabelled == 30 * EACH
    assert report.gaps == 0


def test_a_late_label_without_feedback_says_what_to_do(here):
    with pytest.raises(DataError, match=r"add a \[feedback\] table"):
        loop.run(here / "loop.toml", source=late_labels())
    path = edit(here, 'kind = "npz"', 'kind = "npz"\non_bad = "skip"')
    report = loop.run(path, source=late_labels())
    assert report.bad == 30 * EACH


@pytest.mark.parametrize("on_bad", ["skip", "stop"])
def test_a_recording_that_is_damaged_in_the_middle(here, on_bad):
    sf = pytest.importorskip("soundfile")
    path = here / "raw.flac"
    x, _ = recording(200)
    sf.write(path, np.clip(x.ravel() / 8, -1, 1), 16, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    toml = edit(here, 'kind = "npz"\npath = "raw.npz"', 'kind = "wav"\npath = "raw.flac"\n'
                f'sample_rate = 16\nblock = 1600\non_bad = "{on_bad}"')
    if on_bad == "stop":
        for _ in range(2):  # again: the record that is bad is met again
            with pytest.raises(DataError, match=r"raw\.flac: damaged.* sample \d+ \(\d+\.\d+ s"):
                loop.run(toml)
        return
    report = loop.run(toml)
    assert report.bad == 1
    assert 0 < report.unlabelled < 1000
    assert report.unlabelled % 100 == 0  # whole blocks
    assert loop.run(toml).items == report.items  # nothing comes after it


def test_the_summary_says_what_was_lost(here, capsys):
    x, y = recording(4)
    lines = [json.dumps({"x": a.tolist(), "y": int(b)}) for a, b in zip(x, y, strict=True)]
    lines[2] = "torn"
    (here / "in.jsonl").write_text("\n".join(lines) + "\n")
    path = edit(here, 'kind = "npz"\npath = "raw.npz"', 'kind = "stdin"\non_bad = "skip"')
    with (here / "in.jsonl").open("rb") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", type("In", (), {"buffer": stream}))
        assert main(["run", str(path), "--quiet"]) == 0
    assert "lost: 1 gaps" in capsys.readouterr().out


def test_two_runs_of_one_process_add_up():
    first = Report(gaps=1, missing=2, unmatched=3, overruns=4)
    both = Report(gaps=10, missing=20, unmatched=30, overruns=40).after(first)
    assert (both.gaps, both.missing, both.unmatched, both.overruns) == (11, 22, 33, 44)


def test_rows_of_a_csv_are_samples(here):
    data = "\n".join(["a,b,label", *(f"{i},{-i},{'drill' if i > 4 else 'idle'}" for i in range(9))])
    (here / "raw.csv").write_text(data + "\n")
    for rows in (1, 3):
        config = loop.Config.from_dict({
            "model": {"program": "p"},
            "source": {"kind": "csv", "path": "raw.csv", "label": "label", "window": rows},
            "window": {"length": 4, "hop": 2, "rate": 10.0},
        }, root=here)
        items = setup.make_items(config, Labels(["idle", "drill"]), None).items()
        got = [(item.x.tolist(), item.y) for item in items]
        assert [x[0] for x, _ in got] == [[0, 0], [2, -2], [4, -4]]
        if rows == 1:
            assert [y for _, y in got] == [0, 0, 1]


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"length": 0, "rate": 1.0}, "loop.toml: window.length: is 0; it must be at least 1"),
        ({"length": 4}, "loop.toml: window.rate: is missing"),
        ({"length": 4, "rate": 0}, "loop.toml: window.rate: is 0; it must be at least"),
        ({"length": 4, "rate": 1.0, "hops": 2}, 'window.hops: unknown key, did you mean "hop"'),
        ({"length": 4, "rate": 1.0, "rates": {"a": "x"}}, "loop.toml: window.rates.a: is 'x'"),
        ({"length": 4, "rate": 1.0, "streams": ["a", "a"]}, "loop.toml: window.streams"),
        ({"length": 4, "rate": 7.0, "rates": {"*": 7.0001}}, r"window.rates.*: 7.0001 Hz to 7 Hz"),
    ],
)
def test_window_is_checked(window, message):
    with pytest.raises(ConfigError) as caught:
        setup.make_items(
            loop.Config.from_dict(
                {"model": {"program": "p"}, "window": window}, root=None, name="loop.toml"
            ),
            Labels(), [],
        )
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ({"by": "name"}, 'feedback.by: is \'name\'; it must be "key" or "time"'),
        ({"wait": 3}, "feedback.wait: is 3; write a number and a unit"),
        ({"capacity": 0}, "feedback.capacity: is 0; it must be at least 1"),
    ],
)
def test_feedback_is_checked(feedback, message):
    with pytest.raises(ConfigError) as caught:
        loop.Config.from_dict({"model": {"program": "p"}, "feedback": feedback}, root=None)
    assert message in str(caught.value)


def test_windows_cover_the_span_that_feedback_names():
    config = loop.Config.from_dict({
        "model": {"program": "p"},
        "window": {"length": 40, "rate": 10.0},
        "feedback": {"by": "time", "tolerance": "1 ms"},
    }, root=None)
    block = Item(np.zeros(80, np.float32), None, "b", {}, 100.0)
    source = setup.make_items(config, Labels(), [block, Feedback(3, time=103.9)])
    assert [item.y for item in source.items()] == [3, None]
    assert isinstance(source._feed, Windowed)
