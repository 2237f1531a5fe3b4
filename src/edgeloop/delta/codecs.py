"""How the difference of two adapters becomes bytes: one record per codec.

A codec sees all weights as one flat float32 vector [n] and the sizes of its tensors.
"""

from __future__ import annotations

import zlib
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


def _steps(parent: np.ndarray, result: np.ndarray) -> np.ndarray:
    """How many floats a weight moved by, [n] uint32: 0, -1, 1, -2, ... as 0, 1, 2, 3, ...

    Floats, taken as whole numbers in their order, differ by little where weights changed by little.
    The count is one of 32 bits and wraps, there and back.
    """
    moved = _wrapped(_ranks(result) - _ranks(parent))
    return ((moved << 1) ^ (moved >> 63)).astype("<u4")


def _moved(parent: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The floats that many steps away."""
    wide = steps.astype(np.int64)
    ranks = _wrapped(_ranks(parent) + ((wide >> 1) ^ -(wide & 1)))
    bits = np.where(ranks < 0, (-1 - ranks) | (1 << 31), ranks)
    result: np.ndarray = bits.astype("<u4").view("<f4")
    return result


def _ranks(weights: np.ndarray) -> np.ndarray:
    """Where floats stand in their order, 0 at 0 and -0 at -1: int64 [n], of 32 bits."""
    bits = weights.view("<u4").astype(np.int64)
    return np.where(bits >> 31, -1 - (bits & 0x7FFFFFFF), bits)


def _wrapped(numbers: np.ndarray) -> np.ndarray:
    return ((numbers + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _exact_encode(parent: np.ndarray, result: np.ndarray, sizes: Sequence[int]) -> bytes:
    del sizes
    return to_planes(_steps(parent, result))


def _exact_decode(parent: np.ndarray, raw: bytes, sizes: Sequence[int]) -> np.ndarray:
    del sizes
    return _moved(parent, from_planes(raw, "<u4"))


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


def deflated(raw: bytes, n: int) -> bytes:
    """The shortest zlib stream of some: planes of n bytes have statistics of their own."""
    tried = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        for ends in ((len(raw),), (n, len(raw)), (n, 2 * n, 3 * n, len(raw))):
            stream = zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy)
            out, start = b"", 0
            for end in ends:
                if start < end <= len(raw):
                    out += stream.compress(raw[start:end])
                    out += stream.flush(zlib.Z_BLOCK) if end < len(raw) else b""
                    start = end
            out += stream.compress(raw[start:]) + stream.flush()
            tried.append(out)
    return min(tried, key=len)


CODECS = {
    "exact": Codec(lambda n, tensors: 4 * n, _exact_encode, _exact_decode),  # noqa: ARG005
    "f16": Codec(lambda n, tensors: 2 * n, _f16_encode, _f16_decode),  # noqa: ARG005
    "int8": Codec(lambda n, tensors: n + 4 * tensors, _int8_encode, _int8_decode),
}
