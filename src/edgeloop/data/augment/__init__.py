"""Changed views of a sample: one small class per change, composed in a fixed order."""

from edgeloop.data.augment.change import Change, Layout
from edgeloop.data.augment.compose import CHANGES, Augment

__all__ = ["CHANGES", "Augment", "Change", "Layout"]
