"""Snapshots of a session's learning state, and checks of adapters."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop import _core
from edgeloop.errors import InputError

Array = npt.NDArray[Any]

# magic, program hash, steps, bytes of params, bytes of state; then params, then state
_HEADER = struct.Struct("<8s32sQQQ")
_MAGIC = b"elsnap\x01\0"


def pack(program: str, steps: int, params: memoryview, state: memoryview) -> bytes:
    """Return a snapshot; ``program`` is the program's hash in hex."""
    header = _HEADER.pack(_MAGIC, bytes.fromhex(program), steps, len(params), len(state))
    return b"".join((header, params, state))


def unpack(
    data: bytes, program: str, param_bytes: int, state_bytes: int
) -> tuple[int, memoryview, memoryview]:
    """Return (steps, params, state) of a snapshot of this program; InputError otherwise."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError("this is not a snapshot of a session")
    b = memoryview(data)
    if len(b) < _HEADER.size or bytes(b[:8]) != _MAGIC:
        raise InputError("this is not a snapshot of a session")
    _, digest, steps, n_params, n_state = _HEADER.unpack_from(b)
    if digest.hex() != program:
        raise InputError(
            f"the snapshot belongs to program {digest.hex()[:12]}, this session runs "
            f"{program[:12]}; restore it with its own program"
        )
    at = _HEADER.size
    if (n_params, n_state) != (param_bytes, state_bytes) or len(b) != at + n_params + n_state:
        raise InputError("the snapshot is truncated or damaged")
    return steps, b[at : at + n_params], b[at + n_params :]


def check_adapter(adapter: Mapping[str, Any], params: Mapping[str, Array]) -> dict[str, Array]:
    """Return the adapter's arrays as f32, InputError unless they are exactly the parameters."""
    if not isinstance(adapter, Mapping):
        raise InputError("an adapter is a dict of arrays by name, such as session.adapter() gives")
    if set(adapter) != set(params):
        missing, extra = sorted(set(params) - set(adapter)), sorted(set(adapter) - set(params))
        raise InputError(f"the adapter does not fit: missing {missing}, unknown {extra}")
    out = {}
    for name, old in params.items():
        new = np.asarray(adapter[name])
        if new.dtype != np.float32 or new.shape != old.shape:
            raise InputError(
                f"'{name}' of the adapter is {new.dtype}{list(new.shape)}; "
                f"float32{list(old.shape)} is needed"
            )
        out[name] = np.ascontiguousarray(new)
        if new.size and _core.first_nonfinite(out[name]) >= 0:
            raise InputError(f"'{name}' of the adapter has values that are not finite")
    return out
