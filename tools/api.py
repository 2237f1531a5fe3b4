"""Write docs/guide/serving-api.md from the description that `edgeloop serve` gives of itself.

python tools/api.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from edgeloop.serve.openapi import ERRORS, description  # noqa: E402

PAGE = ROOT / "docs/guide/serving-api.md"
HEAD = """\
# What the server offers

Made by `python tools/api.py` from the description that the server gives of itself at
`/openapi.json`. How to use it: [serving](serving.md). Errors are `{"error": "..."}`:

| status | |
|---|---|
"""


def page() -> str:
    """The page's text."""
    paths = description("NAME", tokens=True)["paths"]
    errors = "".join(f"| {status} | {told} |\n" for status, told in ERRORS.items())
    return "\n".join([HEAD + errors, *(
        _operation(path, method, item[method], item.get("parameters", []))
        for path, item in paths.items() for method in ("get", "post") if method in item)])


def _operation(path: str, method: str, made: dict[str, Any], shared: list[dict[str, Any]]) -> str:
    lines = [f"## {method.upper()} {path}", "", f"{made['summary']}."
             + (" Needs no token." if made.get("security") == [] else ""), ""]
    if shared:
        lines += [*(f"- `{p['name']}`: {p['description']}" for p in shared), ""]
    if "requestBody" in made:
        content = made["requestBody"]["content"]
        lines += [f"Body: {' or '.join(f'`{kind}`' for kind in content)}.", "",
                  *(_fields(content["application/json"]["schema"], "") or ["An object."]), ""]
    (good, answer), *errors = made["responses"].items()
    kinds = " or ".join(f"`{kind}`" for kind in answer["content"])
    lines.append(f"Answer: {good}, {kinds}; {', '.join(status for status, _ in errors)}.")
    return "\n".join([*lines, ""])


def _fields(schema: dict[str, Any], indent: str) -> list[str]:
    """A line for each field of an object, those of its parts below it."""
    lines = []
    for name, field in schema.get("properties", {}).items():
        kind = field.get("type", "one of " + ", ".join(field["enum"]) if "enum" in field else "any")
        kind = kind if isinstance(kind, str) else " or ".join(kind)
        needed = ", needed" if name in schema.get("required", ()) else ""
        told = f". {field['description']}" if "description" in field else ""
        lines.append(f"{indent}- `{name}`: {kind}{needed}{told}")
        lines += _fields(field, indent + "  ") + _fields(field.get("items", {}), indent + "  ")
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
