"""Types of values: a static shape and an element type."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DType = Literal["f32", "i32", "u8", "i8", "f16", "bf16"]

ITEM_BYTES: dict[str, int] = {"f32": 4, "i32": 4, "u8": 1, "i8": 1, "f16": 2, "bf16": 2}
# NumPy has no bfloat16: its bits stand as uint16, which no other type uses.
NUMPY_NAME: dict[str, str] = {
    "f32": "float32", "i32": "int32", "u8": "uint8", "i8": "int8", "f16": "float16",
    "bf16": "uint16",
}


@dataclass(frozen=True, slots=True)
class Type:
    """Shape (static, row-major) and element type of a value."""

    shape: tuple[int, ...]
    dtype: DType = "f32"

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when stored densely."""
        return self.size * ITEM_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"
