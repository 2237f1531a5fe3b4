"""How the difference of two adapters becomes bytes: one record per codec.

A codec sees all weights as one flat float32 vector [n] and the sizes of its tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeloop.errors import DeltaError
from edgeloop.store.codec import from_planes, to_planes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Codec(NamedTuple):
    """One way to write a difference.

    Attributes
    ----------
    size : (n, tensors) -> bytes before compression
    encode : (parent [n], result [n], sizes) -> bytes
    decode : (parent [n], bytes, sizes) -> result [n]; the exact inverse for a lossless codec
    """

    size: Callable[[int, int], int]
    encode: Callable[[np.ndarray, np.ndarray, Sequence[int]], bytes]
    decode: Callable[[np.ndarray, bytes, Sequence[int]], np.ndarray]


def _xor_encode(parent: np.ndarray, result: np.ndarray, sizes: Sequence[int]) -> bytes:
    del sizes
    return to_planes(parent.view("<u4") ^ result.view("<u4"))


def _xor_decode(parent: np.ndarray, raw: bytes, sizes: Sequence[int]) -> np.ndarray:
    del sizes
    result: np.ndarray = (parent.view("<u4") ^ from_planes(raw, "<u4")).view("<f4")
    return result


def _f16_encode(parent: np.ndarray, result: np.ndarray, sizes: Sequence[int]) -> bytes:
    del sizes
    change = result - parent
    if change.size and np.abs(change).max() > np.finfo(np.float16).max:
        msg = "a weight changed by more than float16 can hold: use codec 'xor'"
        raise DeltaError(msg)
    return to_planes(change.astype("<f2"))


def _f16_decode(parent: np.ndarray, raw: bytes, sizes: Sequence[int]) -> np.ndarray:
    del sizes
    result: np.ndarray = parent + from_planes(raw, "<f2").astype("<f4")
    return result


def _int8_encode(parent: np.ndarray, result: np.ndarray, sizes: Sequence[int]) -> bytes:
    # One float32 scale per tensor, then one signed byte per weight.
    change = result - parent
    scales, steps, start = [], [], 0
    for size in sizes:
        part = change[start : start + size]
        start += size
        scale = np.float32(np.abs(part).max(initial=0.0) / np.float32(127.0))
        scales.append(scale)
        safe = scale if scale > 0 else np.float32(1.0)
        steps.append(np.clip(np.rint(part / safe), -127, 127).astype(np.int8))
    return np.array(scales, "<f4").tobytes() + b"".join(part.tobytes() for part in steps)


def _int8_decode(parent: np.ndarray, raw: bytes, sizes: Sequence[int]) -> np.ndarray:
    head = 4 * len(sizes)
    scales = np.frombuffer(raw[:head], "<f4")
    steps = np.frombuffer(raw[head:], np.int8).astype("<f4")
    result: np.ndarray = parent + steps * np.repeat(scales, sizes)
    return result


CODECS = {
    "xor": Codec(lambda n, tensors: 4 * n, _xor_encode, _xor_decode),  # noqa: ARG005
    "f16": Codec(lambda n, tensors: 2 * n, _f16_encode, _f16_decode),  # noqa: ARG005
    "int8": Codec(lambda n, tensors: n + 4 * tensors, _int8_encode, _int8_decode),
}
