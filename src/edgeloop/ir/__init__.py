"""The intermediate representation: types, graphs, their text form and their invariants."""

from edgeloop.ir.graph import Array, Graph, Node, Value, scalar
from edgeloop.ir.names import called_again
from edgeloop.ir.stored import Stored
from edgeloop.ir.text import node_text, to_text
from edgeloop.ir.types import ITEM_BYTES, NUMPY_NAME, DType, Type
from edgeloop.ir.verify import verify

__all__ = [
    "ITEM_BYTES", "NUMPY_NAME", "Array", "DType", "Graph", "Node", "Stored", "Type", "Value",
    "called_again", "node_text", "scalar", "to_text", "verify",
]
