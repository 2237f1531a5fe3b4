"""Sources of other distributions, found by their entry points in the group "edgeloop.sources"."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from edgeloop.errors import ConfigError, EdgeLoopError

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from edgeloop.data.item import Feed

GROUP = "edgeloop.sources"


def find(kind: str, where: str) -> Callable[..., Feed] | None:
    """Return what makes sources of this kind; None where no distribution has it.

    Parameters
    ----------
    where
        Path of "kind", for errors.

    Raises
    ------
    ConfigError
        Several distributions have the kind, or the one that has it is broken; now, or when its
        source is made.
    """
    from importlib.metadata import entry_points  # 1 MiB that few loops need

    found = list(entry_points(group=GROUP, name=kind))
    if not found:
        return None
    owners = sorted({_owner(point) for point in found})
    if len(owners) > 1:
        raise ConfigError(
            f"{where}: {kind!r} is a source of {' and of '.join(owners)}; uninstall all but one"
        )
    return _guarded(found[0], where)


def names() -> list[str]:
    """Return the kinds that other distributions have."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=GROUP)})


def _guarded(point: EntryPoint, where: str) -> Callable[..., Feed]:
    """Return the class behind an entry point, with an error of ours for whatever goes wrong."""
    broken = f"{where}: the source {point.name!r} of {_owner(point)} is broken"
    advice = "update or uninstall that distribution"
    try:
        make = point.load()
        signature = inspect.signature(make)
    except Exception as error:  # import runs what others wrote
        raise ConfigError(
            f"{broken}: {point.value} cannot be used ({_said(error)}); {advice}"
        ) from error
    if "labels" not in signature.parameters:
        raise ConfigError(f"{broken}: {point.value} takes no argument `labels`; {advice}")

    def guarded(**options: Any) -> Feed:
        try:
            feed: Feed = make(**options)
        except EdgeLoopError:
            raise
        except Exception as error:  # as above
            raise ConfigError(f"{broken}: it cannot be made ({_said(error)}); {advice}") from error
        missing = [a for a in ("name", "replayable", "items") if not hasattr(feed, a)]
        if missing:
            raise ConfigError(f"{broken}: it has no {', '.join(missing)}; {advice}")
        return feed

    guarded.__signature__ = signature  # type: ignore[attr-defined]
    return guarded


def _owner(point: EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else point.dist.name


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
