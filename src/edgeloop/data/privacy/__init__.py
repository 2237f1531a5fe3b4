"""Privacy filters: what happens to a record before anything keeps it.

Each filter takes an item and returns the one that may go on. Errors about records are of the same
room, since they quote what is wrong in one: :class:`Plain` takes the quotes out.
"""

from edgeloop.data.privacy.coarse import CoarsePlace, CoarseTime
from edgeloop.data.privacy.filters import AllowFields, Filter, apply_filters, told
from edgeloop.data.privacy.hashing import HashIds, device_key
from edgeloop.data.privacy.kinds import KINDS
from edgeloop.data.privacy.plain import Plain, plainly, without_quotes
from edgeloop.data.privacy.redact import Redact

__all__ = [
    "KINDS",
    "AllowFields",
    "CoarsePlace",
    "CoarseTime",
    "Filter",
    "HashIds",
    "Plain",
    "Redact",
    "apply_filters",
    "device_key",
    "plainly",
    "told",
    "without_quotes",
]
