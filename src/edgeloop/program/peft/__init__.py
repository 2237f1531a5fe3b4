"""Adapters in the format of Hugging Face PEFT, out of a program and into one."""

from edgeloop.program.peft.export import export_adapter
from edgeloop.program.peft.load import import_peft

__all__ = ["export_adapter", "import_peft"]
