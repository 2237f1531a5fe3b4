"""The page of what the server offers is made from the server's own description."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_server_says():
    spec = importlib.util.spec_from_file_location("api", ROOT / "tools/api.py")
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    assert api.PAGE.read_text() == api.page(), "run python tools/api.py"
    assert "## POST /v2/models/{model}/feedback" in api.page()
