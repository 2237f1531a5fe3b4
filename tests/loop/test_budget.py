"""What sources add to the plan of RAM, held against what a process grows by that reads them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tests.data.test_sound import write_wav

from edgeloop.data.item import Item
from edgeloop.data.recording import Recorder
from edgeloop.data.sources import sound
from edgeloop.loop import plan_ram

# Prints by how much the process grew at most while it read all that a source holds.
GROWTH = """
import json, sys
from pathlib import Path
from edgeloop.data.item import Labels
from edgeloop.data.sources import make_source
from edgeloop.loop import resident_bytes, setup
before = resident_bytes()
held = None
for held in make_source(json.loads(sys.argv[1]), labels=Labels(), root=Path()).items():
    pass
print(resident_bytes("VmHWM") - before)
"""


def planned(kit, source, **sections):
    plan = plan_ram(kit.config(source=source, **sections), 0, 0, (4,), baseline=0)
    return {i.name: i.bytes for i in plan.items}


def growth(source):
    done = subprocess.run([sys.executable, "-c", GROWTH, json.dumps(source)],
                          capture_output=True, text=True, check=True)
    return int(done.stdout)


def save_pictures(folder, side):
    image = pytest.importorskip("PIL.Image")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(0, 256, (side, side, 3), np.uint8)
        for ending in ("png", "jpg", "bmp", "gif"):
            path = folder / f"a-{i}.{ending}"
            image.fromarray(noise).save(path, **({"progressive": True} if ending == "jpg" else {}))
            (folder / f"b-{i}.{ending}").write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 512, 1024])
def test_pictures(kit, tmp_path, side, channels):
    save_pictures(tmp_path / "pictures", side)
    source = {"kind": "images", "path": str(tmp_path / "pictures"), "label": "none",
              "max_pixels": side * side, "channels": channels}
    plan = planned(kit, source)
    assert plan["picture"] == side * side * (8 + 15 * channels)
    grown = growth(source)
    assert 0.5 * (plan["Pillow"] + plan["picture"]) < grown <= plan["Pillow"] + plan["picture"]


def test_pictures_of_the_base_task_count_too_and_the_largest_decides(kit, tmp_path):
    base = {"kind": "images", "path": "b", "channels": 1}
    plan = planned(kit, {"kind": "images", "path": "a", "max_pixels": 10}, base=base)
    assert plan["picture"] == (1 << 24) * 23
    assert plan["Pillow"] > 0
    wrong = planned(kit, {"kind": "images", "path": "a", "max_pixels": "many"})
    assert wrong["picture"] == (1 << 24) * 53  # what is wrong is for the source to say


@pytest.mark.parametrize("block", [4096, 1 << 20])
@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("bits", [16, 24])
def test_a_recording(kit, tmp_path, ending, bits, block):
    path = tmp_path / f"r.{ending}"
    sf = pytest.importorskip("soundfile")
    sf.write(path, np.random.default_rng(0).normal(size=(3 << 20, 2)) / 8, 16000,
             subtype=f"PCM_{bits}")
    source = {"kind": "wav", "path": str(path), "block": block}
    plan = planned(kit, source, window={"length": 4, "rate": 1.0, "channels": 2})
    assert plan["sound"] == 19 * 2 * block
    assert ("soundfile" in plan) == (ending == "flac")
    # Some pages of Python's own are first touched by whatever runs first.
    most = plan["sound"] + plan.get("soundfile", 512 << 10)
    grown = growth(source)
    assert grown <= most
    assert grown > most / 4


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_the_longest_clip_decides(kit, tmp_path, ending):
    sf = pytest.importorskip("soundfile")
    for i, n in enumerate((1000, 2_000_000, 3000)):
        sf.write(tmp_path / f"a-{i}.{ending}", np.zeros(n), 16000, subtype="PCM_16")
    source = {"kind": "wav", "path": str(tmp_path), "label": "none"}
    plan = planned(kit, source)
    assert plan["sound"] == pytest.approx(19 * 2_000_000, rel=1e-4)
    most = plan["sound"] + plan.get("soundfile", 512 << 10)
    assert most / 4 < growth(source) <= most


def test_the_largest_record_of_a_recording_decides(kit, tmp_path):
    path = tmp_path / "r.elr"
    with Recorder(path, "s") as file:
        for n in (10, 4_000_000, 3_900_000, 20):
            file.write(Item(np.zeros(n, np.float32), None, ""))
    source = {"kind": "recording", "path": str(path)}
    plan = planned(kit, source)
    assert plan["record"] == 2.25 * (4 * 4_000_000 + 32)
    assert plan["record"] / 2 < growth(source) <= plan["record"] + (512 << 10)
    path.write_bytes(b"none")
    assert "record" not in planned(kit, source)


def test_what_a_clip_says_of_its_length(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(5))
    assert sound.clip_samples(tmp_path / "a.wav") == 5 + 22  # its head as well
    assert sound.clip_samples(tmp_path / "absent.wav") == 0
    (tmp_path / "a.flac").write_bytes(bytes(18) + b"\xff" * 8)
    assert sound.clip_samples(tmp_path / "a.flac") == sound.MAX_CLIP
    (tmp_path / "a.flac").write_bytes(bytes(18) + b"\xff" * 3 + b"\xf0\0\0\0\x07")
    assert sound.clip_samples(tmp_path / "a.flac") == 7


def test_other_sources_take_nothing_of_this(kit):
    plan = planned(kit, {"kind": "stdin"})
    assert not {"Pillow", "picture", "soundfile", "sound", "MQTT client"} & set(plan)
    assert "MQTT client" in planned(kit, {"kind": "mqtt"})
