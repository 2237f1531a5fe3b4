"""Sources of other distributions."""

import sys

import pytest

from edgeloop.data.item import Labels
from edgeloop.data.sources import make_source
from edgeloop.errors import ConfigError, DataError

GOOD = '''
from pathlib import Path

from edgeloop.data.item import Item


class Steps:
    """Counts from `first`; no postponed annotations, as a plug-in may have it."""

    name = "steps"
    replayable = True

    def __init__(self, first: int, path: Path | None = None, scale: float | None = None,
                 labels=None):
        self.first, self.path, self.scale = first, path, scale

    def items(self, start=0):
        import numpy as np
        yield Item(np.full(1, self.first + start, np.float32), None, "0")
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module and its entry points."""
    modules = set(sys.modules)

    def install(distribution, module, source, **kinds):
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        points = "\n".join(f"{kind} = {value}" for kind, value in kinds.items())
        (info / "entry_points.txt").write_text(f"[edgeloop.sources]\n{points}\n")
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    yield install
    for name in set(sys.modules) - modules:
        if name.startswith("plug_"):
            del sys.modules[name]


def make(root, **table):
    return make_source(table, labels=Labels(), root=root, where="loop.toml: source")


def test_a_source_of_another_distribution(install, tmp_path):
    install("steps-source", "plug_steps", GOOD, steps="plug_steps:Steps")
    source = make(tmp_path, kind="steps", first=3, path="a", scale=0.5)
    assert (source.path, source.scale) == (tmp_path / "a", 0.5)
    assert [i.x.tolist() for i in source.items(1)] == [[4.0]]


def test_its_options_are_checked_as_those_of_ours(install, tmp_path):
    install("steps-source", "plug_steps", GOOD, steps="plug_steps:Steps")
    for options, message in (
        ({"frist": 1}, r'source\.frist: unknown key, did you mean "first"\?'),
        ({"first": "1"}, r"source\.first: is '1'; it must be of type int"),
        ({}, r"source\.first: is missing; a 'steps' source needs it"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(tmp_path, kind="steps", **options)


def test_an_unknown_kind_lists_those_of_others_too(install, tmp_path):
    install("steps-source", "plug_steps", GOOD, steps="plug_steps:Steps")
    with pytest.raises(ConfigError, match=r"use one of csv, .*npz, recording, stdin, steps, wav"):
        make(tmp_path, kind="stpes")


def test_no_other_distribution_takes_the_place_of_ours(install, tmp_path):
    install("thief", "plug_thief", "raise SystemError('ran')", csv="plug_thief:Csv")
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        make(tmp_path, kind="csv", path="absent.csv")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import plug_nowhere", "cannot be used .ModuleNotFoundError"),
        ("1 / 0", "cannot be used .ZeroDivisionError"),
        ("def Other(labels): pass", "cannot be used .AttributeError"),
        ("Steps = 5", "cannot be used .TypeError"),
        ("class Steps: pass", "takes no argument `labels`"),
        ("def Steps(labels): return 1 / 0", "cannot be made .ZeroDivisionError"),
        ("def Steps(labels): return 5", "has no name, replayable, items"),
    ],
)
def test_a_broken_one_is_an_error_that_names_its_distribution(install, tmp_path, source, message):
    install("steps-source", "plug_steps", source, steps="plug_steps:Steps")
    said = rf"loop\.toml: source\.kind: the source 'steps' of steps-source is broken: .*{message}"
    with pytest.raises(ConfigError, match=said):
        make(tmp_path, kind="steps")


def test_its_own_errors_of_ours_stay(install, tmp_path):
    install("steps-source", "plug_steps",
            "from edgeloop.errors import DataError\n"
            "def Steps(labels): raise DataError('no sensor there')", steps="plug_steps:Steps")
    with pytest.raises(DataError, match="no sensor there"):
        make(tmp_path, kind="steps")


def test_two_of_one_kind_are_refused(install, tmp_path):
    install("steps-source", "plug_steps", GOOD, steps="plug_steps:Steps")
    install("other-steps", "plug_other", GOOD, steps="plug_other:Steps")
    with pytest.raises(ConfigError, match="a source of other-steps and of steps-source"):
        make(tmp_path, kind="steps", first=1)
