"""Every kind of pipeline by name, and the way from a record to a pipeline."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from edgeloop.data.features.base import Features
from edgeloop.data.features.chain import Chain, named
from edgeloop.data.features.envelope import Envelope
from edgeloop.data.features.image import Image
from edgeloop.data.features.log_mel import LogMel
from edgeloop.data.features.mfcc import Mfcc
from edgeloop.data.features.normalise import Normalise
from edgeloop.data.features.shape import Crop, Identity, Place, Reshape, Scale, Transpose
from edgeloop.data.features.spectra import Fft, Psd
from edgeloop.data.features.statistics import Statistics
from edgeloop.errors import DataError

KINDS: dict[str, type[Features]] = {
    made.kind: made
    for made in (
        LogMel, Mfcc, Psd, Fft, Envelope, Statistics, Image, Normalise, Scale, Place, Crop,
        Transpose, Reshape, Chain, Identity,
    )
}


def from_spec(spec: Mapping[str, Any]) -> Features:
    """Build the pipeline that a record describes; a key left out takes its default.

    A record with "steps" and no kind is a chain.

    Raises
    ------
    DataError
        Unknown kind, unknown or missing key, a value out of range, or steps that do not fit each
        other; the message names it.
    """
    options = dict(spec)
    kind = options.pop("kind", "chain" if "steps" in options else None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"features: kind is {kind!r}; {_hint(kind, sorted(KINDS))}")
    make = KINDS[kind]
    known = inspect.signature(make).parameters
    for key in options:
        if key not in known:
            hint = _hint(key, list(known)) if known else "it has no keys"
            raise DataError(f"features: unknown key {key!r}; kind {kind!r}: {hint}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise DataError(f"features: {key} is missing; kind {kind!r} needs it")
    if make is Chain:
        options["steps"] = _steps(options["steps"])
    return make(**options)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Say where two complete records differ, key by key and step by step; [] when they do not."""
    if ours.get("kind") != theirs.get("kind"):
        return [f"kind is {ours.get('kind')!r}, the program's {theirs.get('kind')!r}"]
    if "steps" not in ours:
        return [
            f"{key} is {ours.get(key)!r}, the program's {theirs.get(key)!r}"
            for key in {**ours, **theirs}
            if ours.get(key) != theirs.get(key)
        ]
    found = [
        f"steps[{i}] ({mine['kind']}): {what}"
        for i, (mine, other) in enumerate(zip(ours["steps"], theirs["steps"], strict=False))
        for what in differences(mine, other)
    ]
    counts = len(ours["steps"]), len(theirs["steps"])
    if counts[0] != counts[1]:
        found.append(f"there are {counts[0]} steps, the program's are {counts[1]}")
    return found


def _steps(records: object) -> list[Features]:
    """Build the steps of a chain; errors say which one."""
    if not isinstance(records, list | tuple):
        raise DataError(f"features: steps is {records!r}; it must be a list of records")
    steps = []
    for i, record in enumerate(records):
        if not isinstance(record, Mapping) or record.get("kind") == Chain.kind or (
            "steps" in record and "kind" not in record
        ):
            raise DataError(f"features: steps[{i}] is {record!r}; it must be a record with a kind "
                            "other than chain")
        try:
            steps.append(from_spec(record))
        except DataError as error:
            raise named(i, record.get("kind"), error) from error
    return steps


def _hint(given: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given), list(known), 1)
    return f'did you mean "{close[0]}"?' if close else f"use one of {', '.join(known)}"
