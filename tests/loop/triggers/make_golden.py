"""Writes river.json: where River's detectors report changes. Needs river (0.26.1 wrote it)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from streams import OPTIONS, documented, shift, stream

SEEDS = range(12)


def river(kind: str, options: dict, values: list[float]) -> list[int]:
    from river import drift

    detector = {"adwin": drift.ADWIN, "page-hinkley": drift.PageHinkley}[kind](**options)
    found = []
    for i, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(i)
    return found


def golden() -> dict:
    made = {}
    for kind, sets in OPTIONS.items():
        made[kind] = {
            "documented": river(kind, {}, documented()),
            "random": [[river(kind, o, stream(s)) for s in SEEDS] for o in sets],
            "shift": [river(kind, {}, shift(s)) for s in range(10)],
        }
    return made


if __name__ == "__main__":
    Path(__file__).with_name("river.json").write_text(json.dumps(golden()) + "\n")
