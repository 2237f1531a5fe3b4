"""RAM of the whole process, item by item, before anything of it is allocated."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.data.buffers import slots_bytes
from edgeloop.data.recording import largest
from edgeloop.data.sources.images import MAX_PIXELS, picture_bytes
from edgeloop.data.sources.sound import ENDINGS, clip_samples, is_flac
from edgeloop.data.sources.wav import BLOCK
from edgeloop.errors import BudgetError
from edgeloop.loop.sizes import set_bytes, sizes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeloop.loop.config import Config

# SQLite's page cache (512 KiB, set by the store), statement memory and log index.
SQLITE_BYTES = 1 << 20
SIGNATURES_BYTES = 12 << 20  # cryptography and what reads packages, as measured
# Feature pipeline, one window, Python objects of samples, snapshots, stacks, allocator slack;
# measured on x86-64 with the keyword spotter (1.5 MiB) and rounded up.
WORKING_BYTES = 2 << 20
MQTT_BYTES = 7 << 20  # paho, ssl and their buffers, as measured
# What a process grows by that reads a small file of each format, whole and damaged, on x86-64; held
# by tests/loop/test_budget.py. soundfile 0.14 with libsndfile 1.2: 2.3 MiB; Pillow 13: 6.6 MiB.
SOUNDFILE_BYTES = 3 << 20
PILLOW_BYTES = 8 << 20
# Bytes of a sample of sound while it is read: of 24 bit the 3 of the file, widened, in two steps of
# its conversion, and once more in the block or clip before it, which is still held.
SOUND_BYTES = 3 + 4 + 2 * 4 + 4


@dataclass(frozen=True, slots=True)
class RamItem:
    """One line of the plan."""

    name: str
    bytes: int
    note: str


@dataclass(frozen=True, slots=True)
class RamPlan:
    """Lines that add up to the process."""

    items: tuple[RamItem, ...]
    budget: int | None

    @property
    def total(self) -> int:
        """Sum of the lines, in bytes."""
        return sum(item.bytes for item in self.items)

    @property
    def fits(self) -> bool:
        """True when there is no budget, or the sum is within it."""
        return self.budget is None or self.total <= self.budget

    def check(self) -> None:
        """Raise BudgetError with every line when the plan is over the budget."""
        if not self.fits:
            assert self.budget is not None
            raise BudgetError(
                f"budget.ram: the loop needs {_mib(self.total)}, the budget is "
                f"{_mib(self.budget)}; lower buffer.*, gate.capacity, base.capacity, "
                f"train.augment.views or the source's limits, or raise the budget\n{self}"
            )

    def __str__(self) -> str:
        width = max(len(item.name) for item in self.items)
        lines = [f"  {i.name:<{width}}  {_mib(i.bytes):>10}  {i.note}" for i in self.items]
        return "\n".join([*lines, f"  {'sum':<{width}}  {_mib(self.total):>10}"])

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        items = [asdict(item) for item in self.items]
        return {"items": items, "total": self.total, "budget": self.budget, "fits": self.fits}


def plan_ram(
    config: Config, session: int, weights: int, shape: Sequence[int], *, baseline: int,
    features: tuple[int, int] | None = None, enrolled: bool = False, clip: int = 0,
    pipeline: int = 0,
) -> RamPlan:
    """Plan the process that would run `config`.

    Parameters
    ----------
    session
        Bytes that one session allocates: the program's own plan.
    weights
        Bytes of the program itself, read-only and shared by the sessions.
    shape
        Of one model input.
    baseline
        Resident bytes before the program is loaded: :func:`resident_bytes`.
    features
        Bytes of one sample's features as they are kept, and as f32; None: none are kept.
    enrolled
        The device takes signed releases, whose library is loaded when one arrives.
    clip
        Numbers in a raw window where there is no [window]; 0: as many as in a model input.
    pipeline
        Bytes of the feature pipeline's buffers.
    """
    views, storage = config.train.augment.views, config.buffer.storage
    sizes = sizes_of(config, shape)
    held, sample = set_bytes(config, shape, sizes), 4 * math.prod(shape)
    times = f" x {views} views" if views > 1 else ""
    kind = "" if storage == "f32" else f", {storage}"
    items = [
        RamItem("interpreter, numpy, edgeloop", baseline, "measured in this process"),
        RamItem("program", weights, "weights and tables, read-only"),
        RamItem("training session", session, "the program's plan"),
        RamItem("serving session", session, "the program's plan"),
        RamItem("ring of new samples", held.capacity, f"{sizes.capacity} samples{times}{kind}"),
        RamItem("rehearsal", held.rehearsal, f"{sizes.rehearsal} samples{times}{kind}"),
        RamItem("validation set", held.validation, f"{sizes.validation} samples{kind}"),
        RamItem("gate set", held.gate, f"{sizes.gate} samples"),
        RamItem("gate set, copied", sizes.gate * sample, "while it is scored"),
    ]
    if held.sketch:
        items.append(RamItem("signatures' projection", held.sketch, "novelty, near-duplicates"))
    if storage != "f32":
        items.append(RamItem(
            "validation set, as f32", sizes.validation * sample, "while it trains"))
    if config.base is not None:
        count = config.base.capacity
        base = slots_bytes(count, shape, "f32", 0)
        items.append(RamItem("base rehearsal", base, f"{count} samples"))
        items.append(RamItem("anchors", base, f"{count} samples"))
    if features is not None:
        kept, whole = features
        turns = min(views, config.train.epochs)
        base = 0 if config.base is None else config.base.capacity
        count = (sizes.capacity + sizes.rehearsal) * turns + base
        why = "samples, while it trains"
        items.append(RamItem("features to train on", count * kept, f"{count} {why}"))
        items.append(RamItem(
            "features to validate on", sizes.validation * (kept + whole),
            f"{sizes.validation} {why}"))
    w, f = config.window, config.feedback
    channels = 1 if w is None else w.channels or max(1, len(w.streams))
    raw = 4 * (w.length * channels if w is not None else clip or math.prod(shape))
    if w is not None:
        items.append(RamItem("rings", 4 * w.ring * channels, f"{w.ring} samples a channel"))
    if f is not None:
        items.append(RamItem(
            "items that wait for labels", f.capacity * raw, f"{f.capacity} raw windows"))
    if config.source.realtime and w is None:
        items.append(RamItem("queue", sizes.capacity * raw, f"{sizes.capacity} raw windows"))
    if pipeline:
        items.append(RamItem("feature pipeline", pipeline, "buffers, made once"))
    items += _of_sources(config, channels)
    files, of = (2, ", of the state and its copy") if config.state.backup else (1, "")
    items.append(RamItem("SQLite", files * SQLITE_BYTES, f"page cache, log index{of}"))
    if enrolled:
        items.append(RamItem("signatures", SIGNATURES_BYTES, "when a release is taken in"))
    items.append(RamItem("working memory", WORKING_BYTES, "features, one window, objects, stacks"))
    return RamPlan(tuple(items), config.budget.ram)


def _of_sources(config: Config, channels: int) -> Iterator[RamItem]:
    """What the sources' libraries take, and the largest record that is decoded."""
    tables = [config.source.options] + ([] if config.base is None else [config.base.options])
    if config.source.options.get("kind") == "mqtt":
        yield RamItem("MQTT client", MQTT_BYTES, "library, TLS, buffers")
    pictures = [t for t in tables if t.get("kind") == "images"]
    if pictures:
        limits = [(_number(t, "max_pixels", MAX_PIXELS), _number(t, "channels", 3))
                  for t in pictures]
        yield RamItem("Pillow", PILLOW_BYTES, "library, decoders")
        yield RamItem("picture", max(picture_bytes(*limit) for limit in limits),
                      f"source.max_pixels {max(limits)[0]}: decoded, and as f32")
    flac, samples = False, 0
    for table in tables:
        if table.get("kind") != "wav":
            continue
        path = config.root / str(table.get("path", ""))
        clips = [f for f in path.rglob("*") if f.suffix.lower() in ENDINGS]
        flac |= any(map(is_flac, [path, *clips]))
        one = max(map(clip_samples, clips), default=_number(table, "block", BLOCK) * channels)
        samples = max(samples, one)
    recorded = max((largest(config.root / str(t.get("path", ""))) for t in tables
                    if t.get("kind") == "recording"), default=0)
    if recorded:
        # Besides, whether each number is finite: a byte for the four of the number.
        yield RamItem("record", 2 * recorded + recorded // 4, "the recording's largest, twice")
    if flac:
        yield RamItem("soundfile", SOUNDFILE_BYTES, "library, decoder")
    if samples:
        yield RamItem("sound", SOUND_BYTES * samples, "a block, or the longest clip, while read")


def _number(table: Mapping[str, Any], key: str, default: int) -> int:
    """An option of a source; of one that is no number the source itself will tell."""
    value = table.get(key, default)
    return value if isinstance(value, int) else default


def resident_bytes(key: str = "VmRSS") -> int:
    """Resident memory of this process now ("VmRSS"), or at its highest ("VmHWM"), in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return int(rest.split()[0]) * 1024
    raise BudgetError(f"/proc/self/status has no {key}; this kernel does not count memory")


def _mib(n: int) -> str:
    return f"{n / (1 << 20):.2f} MiB"
