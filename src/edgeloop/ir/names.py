"""Module paths: how exporters name a module's second call."""

from __future__ import annotations

import re


def called_again(path: str, owner: str) -> bool:
    """Tell whether a path is the owner's, as exporters write it at its second call.

    >>> called_again("encoder_1.fc", "encoder.fc"), called_again("layers.1", "layers.0")
    (True, False)
    """
    ours, theirs = path.split("."), owner.split(".")
    return len(ours) == len(theirs) and all(
        re.fullmatch(re.escape(b) + r"([_@]\d+)?", a) for a, b in zip(ours, theirs, strict=True)
    )
