"""Entries at a cut: features (up to it), train_from and eval_from (on from it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeloop.ir import Graph, verify
from edgeloop.passes.cut import Cut, features_entry, find_cut, resumed_entry, same_cut


def cut_entries(
    made: Mapping[str, Graph], entries: Sequence[str], names: Sequence[str], rows: int,
) -> tuple[dict[str, Graph], dict[str, Any] | None]:
    """Add the entries at the cut that ``entries`` asks for, and drop those it does not.

    ``names``: the model's inputs. Shape variants (``train@1``) each have a cut of their own.
    Returns the entries, and what a program's metadata says about the first variant's cut.

    Raises
    ------
    CompileError
        There is no cut.
    """
    if "features" not in entries:
        return dict(made), None
    out = dict(made)
    facts: dict[str, Any] | None = None
    for name in [n for n in made if n.partition("@")[0] == "train"]:
        tail = name[len("train"):]
        graph = made[name]
        inputs = [v for v in graph.inputs if v.name in names]
        other = made[f"eval{tail}"] if "eval_from" in entries else None
        cut = find_cut(graph, inputs, rows, other)
        public = [v.name for v in cut.values]
        out[f"features{tail}"] = features_entry(graph, inputs, cut)
        out[f"train_from{tail}"] = resumed_entry(graph, inputs, cut, public)
        if other is not None:
            inputs = [v for v in other.inputs if v.name in names]
            there = same_cut(cut, graph, other)
            out[f"eval_from{tail}"] = resumed_entry(other, inputs, there, public)
        facts = facts or described(graph, cut)
    for name in [n for n in out if n.partition("@")[0] not in entries]:
        del out[name]
    return {n: verify(g, f"cut_entries ({n})") for n, g in out.items()}, facts


def described(graph: Graph, cut: Cut) -> dict[str, Any]:
    """Return what a program says about its cut."""
    makers = graph.producers()
    return {
        "values": {
            v.name: {"shape": list(cut.kept(v).shape), "dtype": v.type.dtype,
                     "layer": makers[v].name if v in makers else v.name}
            for v in cut.values
        },
        "sample_bytes": cut.sample_bytes, "below_flops": cut.below, "frozen_flops": cut.frozen,
    }


def note(cut: Mapping[str, Any]) -> str:
    """Say in one line what the cut keeps."""
    layers = ", ".join(v["layer"] for v in cut["values"].values())
    return (f"cut: features keep {cut['sample_bytes']:,} bytes a sample (behind {layers}); "
            f"{cut['below_flops'] / max(1, cut['frozen_flops']):.1%} of the frozen work lies below")
