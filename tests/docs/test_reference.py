"""The page of every key of loop.toml says what the code says, and mistyped keys get a hint."""

from __future__ import annotations

import dataclasses
import importlib.util
import typing
from pathlib import Path

import pytest

from edgeloop.errors import ConfigError
from edgeloop.loop import Config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says(reference):
    assert reference.PAGE.read_text() == reference.page(), "run python tools/reference.py"


def test_a_key_without_a_meaning_is_an_error(reference):
    @dataclasses.dataclass
    class Silent:
        """Attributes
        ----------
        told
            Something.
        """

        told: int = 1
        untold: int = 2

    with pytest.raises(SystemExit, match=r"Silent\.untold"):
        reference.of_class(Silent, "silent")


def keys():
    """Every key of every table, as (table, key)."""
    for table, hint in typing.get_type_hints(Config).items():
        cls = next((h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)), None)
        if cls is not None:
            for field in dataclasses.fields(cls):
                if field.name != "options" and not any(
                        f.name == "options" for f in dataclasses.fields(cls)):
                    yield table, field.name


@pytest.mark.parametrize(("table", "key"), sorted(set(keys())))
def test_a_mistyped_key_is_answered_with_the_right_one(table, key):
    data = {"model": {"program": "p.elp"}}
    data.setdefault(table, {})[f"{key}x"] = 1
    with pytest.raises(ConfigError, match=f'{table}.{key}x: unknown key, did you mean "'):
        Config.from_dict(data, root=Path(), name="loop.toml")
