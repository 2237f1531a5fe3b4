"""Recordings in blocks, FLAC, and the times of clips."""

import struct
import sys
import tracemalloc
import wave

import numpy as np
import pytest

from edgeloop.data.item import Item
from edgeloop.data.sources import WavSource
from edgeloop.data.sources import sound as sounds
from edgeloop.data.sources.paced import Paced
from edgeloop.data.streams import Windowed
from edgeloop.errors import ConfigError, DataError

WHOLE = np.array([[0, 1], [-1, 5], [100, -100], [127, -128], [3, 4]])  # [n, channels], 8 bit


def write_wav(path, samples, *, width=2, rate=16000):
    """Samples [n, channels] that fill `width` bytes."""
    samples = np.asarray(samples, np.int64)
    samples = samples if samples.ndim == 2 else samples[:, np.newaxis]
    if width == 1:
        data = (samples + 128).astype(np.uint8).tobytes()
    else:
        data = b"".join(int(v).to_bytes(width, "little", signed=True) for v in samples.ravel())
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(data)


def write_flac(path, samples, *, subtype="PCM_16", rate=16000):
    sf = pytest.importorskip("soundfile")
    sf.write(path, samples, rate, subtype=subtype)


def blocks(path, start=0, **options):
    return list(WavSource(path, **options).items(start))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_has_the_same_full_scale(tmp_path, width):
    write_wav(tmp_path / "r.wav", WHOLE << 8 * (width - 1), width=width)
    found = blocks(tmp_path / "r.wav", block=2)
    assert np.concatenate([i.x for i in found]).tolist() == (WHOLE / 128).tolist()
    assert {i.x.dtype for i in found} == {np.dtype(np.float32)}
    assert [i.y for i in found] == [None] * 3


@pytest.mark.parametrize(("width", "low"), [(2, 1 / 2**15), (3, 1 / 2**23), (4, 1 / 2**31)])
def test_the_lowest_bit_counts(tmp_path, width, low):
    write_wav(tmp_path / "r.wav", [1, -1], width=width)
    (item,) = blocks(tmp_path / "r.wav")
    assert item.x.tolist() == [low, -low]


def test_blocks_have_times_keys_and_numbers(tmp_path):
    write_wav(tmp_path / "r.wav", range(5), rate=8000)
    options = {"block": 2, "sample_rate": 8000, "start_time": 7.0}
    found = blocks(tmp_path / "r.wav", **options)
    assert [i.time for i in found] == [7.0, 7.0 + 2 / 8000, 7.0 + 4 / 8000]
    assert [i.key for i in found] == ["r.wav:0", "r.wav:2", "r.wav:4"]
    assert [len(i.x) for i in found] == [2, 2, 1]
    assert len(WavSource(tmp_path / "r.wav", **options)) == 3
    for start in range(5):
        later = blocks(tmp_path / "r.wav", start, **options)
        assert [(i.key, i.x.tolist()) for i in later] == [
            (i.key, i.x.tolist()) for i in found[start:]]


@pytest.mark.parametrize("start", range(5))
def test_a_recording_that_was_cut_short_gives_what_it_holds_and_one_error(tmp_path, start):
    path = tmp_path / "r.wav"
    write_wav(path, np.arange(8).reshape(4, 2))
    path.write_bytes(path.read_bytes()[:-5])  # two frames are whole, half of another is left
    found = blocks(path, start, block=1)
    kinds = [type(i) for i in found]
    assert kinds == [Item, Item, DataError][start:]
    if found:
        assert "holds 2 samples, its header says 4" in str(found[-1])


def test_what_stands_behind_the_samples_is_none_of_them(tmp_path):
    path = tmp_path / "r.wav"
    write_wav(path, [1, 2])
    path.write_bytes(path.read_bytes() + b"LIST\x04\x00\x00\x00abcd")
    (item,) = blocks(path)
    assert len(item.x) == 2


def test_memory_is_that_of_a_block(tmp_path):
    with wave.open(str(tmp_path / "r.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        for _ in range(100):
            file.writeframes(bytes(100_000))
    source = WavSource(tmp_path / "r.wav", block=1000)
    tracemalloc.start()
    try:
        total = sum(len(i.x) for i in source.items())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 5_000_000
    assert peak < 200_000


def test_recordings_that_are_refused(tmp_path):
    write_wav(tmp_path / "rate.wav", [1], rate=8000)
    write_wav(tmp_path / "wide.wav", np.zeros((1, 65)))
    write_wav(tmp_path / "none.wav", np.zeros((0, 1)))
    (tmp_path / "bad.wav").write_bytes(b"RIFFnonsense")
    (tmp_path / "song.mp3").write_bytes(b"ID3")
    for name, message in (
        ("rate.wav", "has 8000 Hz; set source.sample_rate"),
        ("wide.wav", "has 65 channels"),
        ("none.wav", "holds no samples"),
        ("bad.wav", "cannot be read as PCM"),
        ("song.mp3", "neither a folder nor"),
    ):
        with pytest.raises(DataError, match=message):
            WavSource(tmp_path / name)
    for options in ({"block": 0}, {"start_time": float("nan")}):
        with pytest.raises(ConfigError, match="wav source: block is"):
            WavSource(tmp_path, **options)


def test_clips_follow_one_another(tmp_path):
    for name, n, rate in (("a-1", 1600, 16000), ("b-1", 800, 8000), ("c-1", 8000, 16000),
                          ("d-1", 16, 16000)):
        write_wav(tmp_path / f"{name}.wav", np.zeros(n), rate=rate)
    (tmp_path / "b-2.wav").write_bytes(b"RIFFnonsense")
    options = {"label": "none", "order": "name", "start_time": 1.0}
    found = blocks(tmp_path, **options)
    assert [i.time if isinstance(i, Item) else None for i in found] == pytest.approx(
        [1.0, None, None, 1.2, 1.7])  # b-1 has another rate, and 0.1 s all the same
    assert [i.time for i in blocks(tmp_path, 3, **options)] == [i.time for i in found[3:]]


# FLAC


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_in_blocks(tmp_path, subtype):
    samples = (np.arange(10).reshape(5, 2) - 4).astype(np.int32) << 24
    write_flac(tmp_path / "r.flac", samples, subtype=subtype)
    found = blocks(tmp_path / "r.flac", block=2)
    assert np.concatenate([i.x for i in found]).tolist() == (samples / 2.0**31).tolist()
    assert [i.key for i in blocks(tmp_path / "r.flac", 1, block=2)] == ["r.flac:2", "r.flac:4"]


def test_flac_and_wav_clips_are_the_same(tmp_path):
    samples = np.array([0, 1, -32768, 32767], np.int16)
    write_flac(tmp_path / "a-1.flac", samples)
    write_wav(tmp_path / "a-2.wav", samples)
    one, two = blocks(tmp_path, label="none", order="name")
    assert one.x.tolist() == two.x.tolist()
    assert two.time == 4 / 16000


def test_a_damaged_flac_clip_is_one_error(tmp_path):
    write_flac(tmp_path / "a-1.flac", np.zeros(4, np.int16))
    (tmp_path / "a-2.flac").write_bytes((tmp_path / "a-1.flac").read_bytes()[:20])
    write_flac(tmp_path / "a-3.flac", np.zeros(4, np.int16), rate=8000)
    found = blocks(tmp_path, label="none", order="name")
    assert [type(i) for i in found] == [Item, DataError, DataError]
    assert "cannot be read as FLAC" in str(found[1])
    assert "convert it to 1 channel, 16 bit, 16000 Hz" in str(found[2])


NOISE = (np.arange(50_000) * 7919 % 65536 - 32768).astype(np.int16)


def cut_in_the_middle(data):
    return data[: len(data) // 2]


def flipped_in_the_middle(data):
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 0x5A for b in data[middle : middle + 40]) + data[middle + 40 :]


def never_finished(data):
    """A recorder that lost power has not written the number of samples (36 bits) into the head."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


DAMAGES = [cut_in_the_middle, flipped_in_the_middle, never_finished]


@pytest.fixture(params=DAMAGES)
def damaged(tmp_path, request):
    path = tmp_path / "r.flac"
    write_flac(path, NOISE)
    path.write_bytes(request.param(path.read_bytes()))
    return path


@pytest.mark.parametrize("block", [1000, 4096])
def test_the_damaged_rest_of_a_flac_recording_is_one_bad_record(damaged, block):
    *good, bad = blocks(damaged, block=block)
    assert good
    assert {type(i) for i in good} == {Item}
    assert np.concatenate([i.x for i in good]).tolist() == (
        NOISE[: block * len(good)] / 32768).tolist()
    assert isinstance(bad, DataError)
    at = block * len(good)
    assert f"{damaged}: damaged, or at its end, in the block from sample {at} ({at / 16000:.3f} s)"\
        in str(bad)


def test_a_damaged_recording_read_again_counts_alike(damaged):
    """Also where what follows the damage could be read again if one went there at once."""
    found = blocks(damaged, block=500)
    for start in (1, len(found) - 1, len(found), len(found) + 1, len(found) + 30):
        later = blocks(damaged, start, block=500)
        assert [getattr(i, "key", str(i)) for i in later] == [
            getattr(i, "key", str(i)) for i in found[start:]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_folder_only_the_damaged_clip_is_lost(tmp_path, damage):
    for name in ("a-1", "a-2", "a-3"):
        write_flac(tmp_path / f"{name}.flac", NOISE)
    path = tmp_path / "a-2.flac"
    path.write_bytes(damage(path.read_bytes()))
    found = blocks(tmp_path, label="none", order="name")
    assert [type(i) for i in found] == [Item, DataError, Item]
    assert str(path) in str(found[1])
    assert found[2].time in (2 * 50_000 / 16000, 50_000 / 16000)  # as its header says, if it does
    assert [i.time for i in blocks(tmp_path, 2, label="none", order="name")] == [found[2].time]


@pytest.mark.parametrize("limit", [9, 10])
def test_a_small_file_of_much_silence_is_no_clip(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(sounds, "MAX_CLIP", limit)
    write_flac(tmp_path / "a-1.flac", np.zeros(10, np.int16))
    (item,) = blocks(tmp_path, label="none")
    assert isinstance(item, DataError) == (limit < 10)


def test_without_soundfile_flac_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a-1.flac").write_bytes(b"fLaC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for path in (tmp_path, tmp_path / "a-1.flac"):
        with pytest.raises(ConfigError, match=r"pip install 'edgeloop\[audio\]'"):
            WavSource(path)


# Through the loop's own wrappers


def test_windows_of_a_recording_do_not_depend_on_its_blocks(tmp_path):
    samples = np.arange(20)
    write_wav(tmp_path / "r.wav", samples, rate=10)
    for block in (1, 3, 7, 4096):
        feed = WavSource(tmp_path / "r.wav", sample_rate=10, block=block, start_time=5.0)
        windows = Windowed(feed, length=4, hop=3, rate=10.0)
        found = [(i.time, np.rint(i.x * 2**15).tolist()) for i in windows.items()]
        assert [x for _, x in found] == [samples[i : i + 4].tolist() for i in range(0, 17, 3)]
        assert [t for t, _ in found] == pytest.approx([5 + i / 10 for i in range(0, 17, 3)])
        assert windows.counts()["gaps"] == windows.counts()["missing"] == 0


@pytest.mark.parametrize(("speed", "slept"), [(1.0, 1.6), (4.0, 0.4)])
def test_a_recording_is_replayed_at_the_speed_of_its_samples(tmp_path, speed, slept):
    write_wav(tmp_path / "r.wav", np.arange(20), rate=10)
    now = [0.0]
    feed = Paced(
        WavSource(tmp_path / "r.wav", sample_rate=10, block=4), speed,
        clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    assert len(list(feed.items())) == 5
    assert now[0] == pytest.approx(slept)


def test_a_chunk_longer_than_its_file_is_one_error(tmp_path):
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"JUNK", 50)  # wave raises a RuntimeError here
    data = struct.pack("<4sI", b"RIFF", len(body)) + body + bytes(60)
    (tmp_path / "a-1.wav").write_bytes(data)
    (bad,) = blocks(tmp_path, label="none")
    assert isinstance(bad, DataError)
    with pytest.raises(DataError, match="cannot be read as PCM"):
        WavSource(tmp_path / "a-1.wav")
