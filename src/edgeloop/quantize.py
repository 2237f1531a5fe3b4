"""In how many bits the frozen base is kept, and how its products are computed: plain records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from edgeloop.errors import CompileError

Kind = Literal["int8", "int4", "f16", "bf16"]
Compute = Literal["exact", "int8", "bf16"]
_GROUPS = {"int8": (0, 32, 64), "int4": (0, 32, 64), "f16": (0,), "bf16": (0,)}


@dataclass(frozen=True, slots=True)
class Quantize:
    """How frozen weights of products, convolutions and embeddings are stored.

    Parameters
    ----------
    kind
        "int8" (about 1/4 of the bytes), "int4" (about 1/7), "f16" or "bf16" (1/2).
    group
        Elements along the input axis that share a scale: 32 or 64, or 0 for one scale an output
        channel. None: 32 for int4, else 0.
    zero_point
        Give each group a zero point too (asymmetric), for int4 and int8.
    skip
        Globs over layer names whose weights stay f32.
    merged
        Training reads what a deployment of merged weights will: int8 codes of W + s B A, one scale
        an output channel, rounded anew in every step (straight-through gradient). int8 only.
    """

    kind: Kind = "int8"
    group: int | None = None
    zero_point: bool = False
    skip: tuple[str, ...] = ()
    merged: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise CompileError(
                f"quantize={self.kind!r}: choose {', '.join(get_args(Kind))}, or None for f32"
            )
        if isinstance(self.skip, str):
            object.__setattr__(self, "skip", (self.skip,))
        object.__setattr__(self, "skip", tuple(self.skip))
        if self.group is not None and self.group not in _GROUPS[self.kind]:
            raise CompileError(
                f"Quantize: group={self.group} does not fit {self.kind}; choose from "
                f"{', '.join(map(str, _GROUPS[self.kind]))}"
            )
        if self.merged and (self.kind != "int8" or self.group or self.zero_point):
            raise CompileError("Quantize: merged=True needs kind='int8', one scale an output "
                               "channel and no zero point")
        if self.zero_point and self.kind in ("f16", "bf16"):
            raise CompileError(f"Quantize: {self.kind} has no zero point")

    @property
    def elements(self) -> int:
        """Elements of a group; 0: a whole row."""
        return (32 if self.kind == "int4" else 0) if self.group is None else self.group


def parse(text: str) -> Quantize:
    """Read ``int8`` or ``int4:group=64,zero_point=true,skip=GLOB`` (globs joined by ``;``)."""
    kind, _, rest = text.partition(":")
    keys: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = (p.strip() for p in part.partition("="))
        if key == "group" and value.isdecimal():
            keys[key] = int(value)
        elif key in ("zero_point", "merged") and value in ("true", "false"):
            keys[key] = value == "true"
        elif key == "skip" and value:
            keys[key] = tuple(value.split(";"))
        else:
            raise CompileError(
                f"'{text}': write group=NUMBER, zero_point=true, merged=true or "
                f"skip=GLOB, not '{part}'"
            )
    return Quantize(kind, **keys)  # type: ignore[arg-type]


def resolve(quantize: object) -> Quantize | None:
    """Return the record for what `compile` was given; raises CompileError."""
    if quantize is None or isinstance(quantize, Quantize):
        return quantize
    if not isinstance(quantize, str):
        raise CompileError(
            f"quantize={quantize!r}: use None, 'int8', 'int4', 'f16', 'bf16' or el.Quantize(...)"
        )
    return Quantize(quantize)  # type: ignore[arg-type]


def check_compute(compute: object, quantize: Quantize | None) -> Compute:
    """Return ``compute``; CompileError when it does not fit the storage."""
    if compute not in get_args(Compute):
        raise CompileError(f"compute={compute!r}: choose 'exact', 'int8' or 'bf16'")
    if compute == "int8" and quantize is not None and (
        quantize.kind != "int8" or quantize.elements or quantize.zero_point
    ):
        raise CompileError(
            "compute='int8' multiplies int8 codes as integers, which needs one scale an output "
            f"channel and no zero point; the base is stored as {quantize}: use quantize='int8', "
            "or compute='exact'"
        )
    return cast("Compute", compute)
