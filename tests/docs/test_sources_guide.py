"""The examples of docs/guide/sources.md do what it says."""

import re
import tomllib
import wave
from pathlib import Path

import pytest

from edgeloop.data.item import Labels
from edgeloop.data.sources import KINDS, make_source, plugins

GUIDE = Path(__file__).parents[2] / "docs/guide/sources.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def section(title):
    return re.split(r"^## ", TEXT.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def code(title, language):
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


def test_every_kind_stands_in_the_table():
    assert {k for k in KINDS if f"| `{k}` |" in TEXT} == set(KINDS)


def test_the_table_for_sound(tmp_path):
    pytest.importorskip("soundfile").write(tmp_path / "night.flac", [0.0] * 5000, 48000)
    said = tomllib.loads(code("Sound", "toml")[0])
    source = make_source(said["source"], labels=Labels(), root=tmp_path)
    assert [len(i.x) for i in source.items()] == [4096, 904]


def test_a_clip_is_named_as_the_guide_names_it(tmp_path):
    with wave.open(str(tmp_path / "yes-17.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(4))
    assert "`yes-17.wav`" in section("Sound")
    (item,) = make_source(
        {"kind": "wav", "path": "."}, labels=Labels(["no", "yes"]), root=tmp_path).items()
    assert item.y == 1


def test_the_kind_of_your_own(tmp_path, monkeypatch):
    entry = tomllib.loads(code("A kind of your own", "toml")[0])
    (group,) = entry["project"]["entry-points"]
    assert group == plugins.GROUP
    names = {"poll": lambda host, n: [[1.0] * n] * 2}
    exec(code("A kind of your own", "python")[0], names)
    monkeypatch.setitem(KINDS, "modbus", names["Modbus"])
    table = {"kind": "modbus", "host": "plc", "registers": 3}
    source = make_source(table, labels=Labels(), root=tmp_path)
    assert [(i.key, i.x.tolist()) for i in source.items()] == [
        ("plc:0", [1.0] * 3), ("plc:1", [1.0] * 3)]
