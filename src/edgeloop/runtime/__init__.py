"""Sessions: run a program's entries on this machine."""

from edgeloop.runtime.session import Session

__all__ = ["Session"]
