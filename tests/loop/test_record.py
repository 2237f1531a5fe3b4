"""Recording a stream before windows and features, after the privacy filters; and its replay."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.data.test_mqtt_source import Broker, message, subscribe
from tests.data.test_recording import plain
from tests.loop.test_setup import edit
from tests.loop.test_streams import WINDOW, ended, recording

from edgeloop import loop
from edgeloop.cli import main
from edgeloop.data.item import Feedback, Item, Labels
from edgeloop.data.privacy import HashIds
from edgeloop.data.sources import RecordingSource
from edgeloop.data.sources.packed import Message, pack
from edgeloop.errors import ConfigError, DataError
from edgeloop.loop import setup

KEY = b"k" * 32
BASE = 'kind = "csv"\npath = "stream.csv"\nlabel = "label"'


def read(path, start=0):
    return list(RecordingSource(path, labels=Labels(count=4)).items(start))


@pytest.fixture
def here(device, monkeypatch):
    monkeypatch.chdir(device.folder)
    return device.folder


def stream():
    """Two sensors, labels that come later, a record that is bad, and fields."""
    x, y = recording(30)
    for i, (samples, label) in enumerate(zip(x, y, strict=True)):
        meta = {"stream": "acc", "person": "Anna", "room": 3}
        yield Item(samples, None, f"patient-{i}", meta, 1.7e9 + 5 * i)
        if i == 7:
            yield np.full(3, np.nan)
        for k in range(5):
            yield Feedback(int(label), time=1.7e9 + 5 * i + k + 0.5)
    yield Feedback(1, key="patient-2")


def test_every_record_is_there_and_the_same(here):
    made = list(stream())
    path = edit(here, BASE, BASE + '\non_bad = "skip"\n[privacy]\nallow = ["room", "stream"]')
    done = loop.record(path, here / "out.elr", source=made)
    assert (done.items, done.labels, done.bad, done.filtered) == (30, 151, 1, 0)
    assert done.bytes == (here / "out.elr").stat().st_size
    found = read(here / "out.elr")
    assert len(found) == len(made) == 182
    for was, now in zip(made, found, strict=True):
        if isinstance(was, np.ndarray):
            assert isinstance(now, DataError)
            continue
        if isinstance(was, Item):
            was.meta.pop("person")
        assert plain(now) == plain(was)


def test_nothing_passes_by_the_filters(here):
    edit(here, BASE, BASE + '\non_bad = "skip"')
    path = edit(here, "[trigger]", '[privacy]\nhash_ids = true\nallow = ["room"]\n'
                'hash_fields = ["room"]\n[trigger]')
    (here / "device.key").write_bytes(KEY)
    (here / "device.key").chmod(0o600)
    loop.record(path, here / "out.elr", source=stream())
    data, digest = (here / "out.elr").read_bytes(), HashIds(KEY).digest
    for secret in (b"patient", b"Anna", b"person", b"acc", b"iterable"):
        assert secret not in data
    first, *_, last = read(here / "out.elr")
    assert (first.key, first.meta) == (digest("patient-0"), {"room": digest(3)})
    assert last.key == digest("patient-2")  # still the label of that item


def test_names_of_streams_stay_where_the_configuration_says_them(here):
    window = '[window]\nlength = 4\nrate = 1.0\nstreams = ["acc"]\nrates = {"gyro" = 1.0}\n'
    window = window.replace('streams = ["acc"]', 'streams = ["acc", "gyro"]')
    path = edit(here, "[trigger]", window + "[trigger]")
    made = [Item(np.zeros(3, np.float32), 0, f"i{i}", {"stream": name, "seq": i}, 1.0)
            for i, name in enumerate(("acc", "gyro", "mic", 7))]
    loop.record(path, here / "out.elr", source=made)
    assert [i.meta for i in read(here / "out.elr")] == [{"stream": "acc"}, {"stream": "gyro"},
                                                        {}, {}]


def test_a_replay_ends_with_the_bits_of_the_live_run(here):
    """Windows and their sets depend on the name of the stream, too."""
    np.savez(here / "raw.npz", x=recording()[0], y=recording()[1])
    raw = 'kind = "npz"\npath = "raw.npz"'
    path = edit(here, BASE, raw + WINDOW)
    assert loop.record(path, here / "out.elr").items == 60
    loop.run(path)
    live = ended(here)
    (here / "device.db").unlink()
    edit(here, raw, 'kind = "recording"\npath = "out.elr"')
    for until in (93, "exhausted"):
        report = loop.run(path, until=until)
    assert (report.items, report.bad) == (300, 0)
    assert ended(here)[0] == live[0]


def test_labels_that_come_later_find_their_items_in_the_replay(here):
    edit(here, BASE, BASE + '\non_bad = "skip"' + WINDOW
         + '[feedback]\nby = "time"\ntolerance = "100 ms"')
    path = here / "loop.toml"
    live = loop.run(path, source=stream())
    (here / "device.db").unlink()
    loop.record(path, here / "out.elr", source=stream())
    edit(here, BASE, 'kind = "recording"\npath = "out.elr"')
    again = loop.run(path)
    assert (again.accepted, again.unmatched) == (live.accepted, live.unmatched) == (150, 1)


def test_rows_of_a_csv_are_recorded_as_the_blocks_they_are(here):
    path = edit(here, BASE, BASE + "\n[window]\nlength = 4\nrate = 1.0")
    config = loop.Config.load(path)
    wanted = [(i.x.tolist(), i.y) for i in setup.make_items(
        config, Labels(["idle", "drill", "mill", "saw"]), None).items(0)]
    loop.record(path, here / "out.elr")
    edit(here, BASE, 'kind = "recording"\npath = "out.elr"')
    again = setup.make_items(loop.Config.load(path), Labels(count=4), None)
    assert [(i.x.tolist(), i.y) for i in again.items()] == wanted


def test_a_bad_record_ends_it_unless_it_is_to_be_skipped(here):
    made = [Item(np.zeros(2, np.float32), 1, "a"), (np.zeros(2), "no such class"),
            Item(np.zeros(2, np.float32), 1, "\ud800")]
    with pytest.raises(DataError, match="no such class"):
        loop.record(here / "loop.toml", here / "out.elr", source=made)
    assert len(read(here / "out.elr")) == 1
    with pytest.raises(DataError, match=r"iterable: record 1: its id holds half"):
        loop.record(here / "loop.toml", here / "other.elr", source=made[2:])
    path = edit(here, BASE, BASE + '\non_bad = "skip"')
    done = loop.record(path, here / "out.elr", source=made, append=True)
    assert (done.items, done.bad) == (1, 2)
    assert [type(r) for r in read(here / "out.elr")] == [Item, Item, DataError, DataError]


@pytest.mark.parametrize("hashed", [True, False])
def test_half_a_character_in_a_field_is_a_field_like_others(here, hashed):
    fields = ["room"] if hashed else []
    path = edit(here, BASE, BASE + '\non_bad = "skip"\n[privacy]\nallow = ["room"]\n'
                f"hash_fields = {fields}")
    made = [Item(np.zeros(2, np.float32), 1, "a", {"room": "\udcff"})]
    done = loop.record(path, here / "out.elr", source=made)
    assert (done.items, done.bad) == (1, 0)
    assert (read(here / "out.elr")[0].meta == {"room": "\udcff"}) is not hashed


def forever():
    i = 0
    while True:
        yield Item(np.zeros(2, np.float32), 1, f"{i}", {}, float(i))
        yield Feedback(1, key=f"{i}")
        i += 1


def test_it_ends_after_so_many_items_or_seconds(here):
    done = loop.record(here / "loop.toml", here / "a.elr", source=forever(), items=3)
    assert (done.items, done.labels) == (3, 2)
    done = loop.record(here / "loop.toml", here / "b.elr", source=forever(), seconds=0.05)
    assert done.items > 0
    assert len(read(here / "b.elr")) == done.items + done.labels


def test_seconds_end_a_source_that_waits(here):
    pytest.importorskip("paho.mqtt.client")
    path = edit(here, BASE, 'kind = "mqtt"\nserver = "mqtt://127.0.0.1:1"\nsite = "a"\n'
                'device = "b"')  # nobody listens there
    done = loop.record(path, here / "out.elr", seconds=0.05)
    assert done.items == 0
    assert read(here / "out.elr") == []


def test_a_stream_from_a_broker(here, tmp_path):
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    broker.source()  # writes the token
    path = edit(here, BASE, f'kind = "mqtt"\nserver = "mqtt://127.0.0.1:{broker.port}"\n'
                f'site = "plant"\ndevice = "press"\ntoken_file = "{broker.folder}/token"')
    sent = [message(0), pack(Message(1, np.float32([[1, 2]]), 17 * 10**17 + 1, 3, "é")),
            json.dumps({"seq": 2, "y": "mill", "id": "é"}), message(3)]
    with broker.process:
        subscribe(broker, broker.source())
        broker.publish(sent)
        done = loop.record(path, here / "out.elr", items=3, seconds=30)
    assert (done.items, done.labels, done.bad) == (3, 1, 0)
    wanted = [Item(np.float32([0, 0]), None, "acc:0", {}, 0.0),
              Item(np.float32([[1, 2]]), 3, "é", {}, (17 * 10**17 + 1) / 1e9),
              Feedback(2, "é"), Item(np.float32([3, 3]), None, "acc:3", {}, 3.0)]
    assert [plain(r) for r in read(here / "out.elr")] == [plain(r) for r in wanted]


def test_items_without_a_time_can_be_stamped(here):
    made = [Item(np.zeros(2, np.float32), 1, "a"), Feedback(1, key="a"),
            Item(np.zeros(2, np.float32), 1, "b", {}, 5.0)]
    loop.record(here / "loop.toml", here / "out.elr", source=made, stamp=True, wall=lambda: 77.5)
    assert [r.time for r in read(here / "out.elr")] == [77.5, None, 5.0]


@pytest.mark.parametrize("options", [{"items": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_an_end_that_is_none_is_refused(here, options):
    with pytest.raises(ConfigError, match="above 0"):
        loop.record(here / "loop.toml", here / "out.elr", source=[], **options)
    assert not (here / "out.elr").exists()


# On the command line


def test_the_command(here, capsys):
    assert main(["record", "loop.toml", "out.elr", "--items", "5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["items"], said["labels"], said["bad"], said["cut"]) == (5, 0, 0, 0)
    assert main(["record", "loop.toml", "out.elr"]) == 2
    assert "exists already; name another file" in capsys.readouterr().err
    with (here / "out.elr").open("ab") as file:
        file.write(b"torn")
    assert main(["record", "loop.toml", "out.elr", "--append", "--items", "2"]) == 0
    assert "4 bytes of a torn record cut off" in capsys.readouterr().out
    assert len(read(here / "out.elr")) == 7


def test_predict_answers_for_a_recording(here, capsys):
    assert main(["record", "loop.toml", "out.elr", "--items", "5"]) == 0
    capsys.readouterr()
    assert main(["predict", "loop.toml", "out.elr", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 5


def started(device, count):
    """A recorder of standard input in a process of its own that has taken `count` lines."""
    edit(device.folder, BASE, 'kind = "stdin"')
    process = subprocess.Popen(
        device.command("record", "loop.toml", "out.elr"), cwd=device.folder,
        env=device.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for i in range(count):
        process.stdin.write(json.dumps({"x": [i] * 16, "y": "drill", "id": f"i{i}"}) + "\n")
    process.stdin.flush()
    path, found = device.folder / "out.elr", []
    deadline = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.02)
        with contextlib.suppress(DataError):  # not there yet, or its head is not whole
            found = read(path)
    return process


def test_a_kill_leaves_every_record_that_was_taken(device):
    process = started(device, 20)
    process.kill()
    process.communicate()
    found = read(device.folder / "out.elr")
    assert [r.key for r in found] == [f"i{i}" for i in range(20)]


FOREVER = """
import sys
import numpy as np
from edgeloop import loop
from edgeloop.data.item import Item
x = np.arange(50_000, dtype=np.float32)
loop.record("loop.toml", sys.argv[1], source=(Item(x + i, None, f"i{i}") for i in range(10**9)))
"""


def test_a_kill_in_the_midst_of_writing_costs_one_record_at_most(device):
    path = device.folder / "out.elr"
    process = subprocess.Popen([sys.executable, "-c", FOREVER, path], cwd=device.folder,
                               env=device.environment())
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < 20_000_000:
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.001)
    process.kill()
    process.wait()
    found = read(path)
    whole = [r for r in found if isinstance(r, Item)]
    assert len(whole) >= 99
    assert len(found) - len(whole) <= 1
    for i, item in enumerate(whole):
        assert (item.key, item.x[0], item.x[-1]) == (f"i{i}", i, np.float32(49_999 + i))


def test_a_signal_ends_it_in_order(device):
    process = started(device, 3)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(json.dumps({"x": [9] * 16}) + "\n", timeout=60)
    assert process.returncode == 0
    assert "out.elr: " in out
    assert 3 <= len(read(device.folder / "out.elr")) <= 4


@pytest.mark.parametrize(("table", "said"), [
    ('raw = "never stored"', "a recording holds what is raw"),
    ('coarse_time = "1 h"\nhash_ids = true', "cannot be cut again from blocks with coarse times"),
])
def test_privacy_may_forbid_a_recording(here, table, said):
    window = "[window]\nlength = 16\nrate = 100.0\n"
    path = edit(here, "[trigger]", f"{window}[privacy]\n{table}\n[trigger]")
    with pytest.raises(ConfigError, match=said):
        loop.record(path, here / "x.elr")
    assert not (here / "x.elr").exists()


def test_moments_are_told_roughly_of_late_labels_too(here):
    path = edit(here, "[trigger]", '[privacy]\ncoarse_time = "1 h"\n[trigger]')
    x = np.zeros(16, np.float32)
    loop.record(path, here / "x.elr", source=[Item(x, None, "k", {}, 7300.5),
                                              Feedback(1, time=7301.5)])
    assert [r.time for r in read(here / "x.elr")] == [7200.0, 7200.0]


@pytest.mark.parametrize(("errors", "quoted"), [("plain", False), ("full", True)])
def test_errors_quote_a_record_only_where_they_may(here, errors, quoted):
    path = edit(here, "[trigger]", f'[privacy]\nerrors = "{errors}"\n[trigger]')
    with pytest.raises(DataError) as raised:
        loop.record(path, here / "x.elr", source=[(np.zeros(16, np.float32), "anna")])
    assert ("anna" in str(raised.value)) is quoted
    assert "record 1" in str(raised.value) or quoted
