"""ONNX -> Graph: `load_model` converts, `summary` describes. Nothing else imports onnx."""

from edgeloop.importer.imported import Imported, Layer, load_model
from edgeloop.importer.inspect import summary

__all__ = ["Imported", "Layer", "load_model", "summary"]
