"""A profile in the Trace Event Format, which Perfetto and Chrome's about:tracing open.

The format is a JSON object with a list of events: "X" events have a begin and a duration in
microseconds, "M" events name processes and threads.
"""

from __future__ import annotations

from typing import Any

from edgeloop.runtime.profile import Profile, StepProfile

_PROCESS, _STEPS = 1, 0


def trace(profile: Profile) -> dict[str, Any]:
    """Return the fastest run: a track of steps, and one of chunks for each worker of several."""
    names = {_STEPS: "steps"}
    if profile.threads > 1:
        names |= {1 + w: f"worker {w}" for w in range(profile.threads)}
    title = f"edgeloop {profile.entry}, {profile.isa}, program {profile.program[:12]}"
    events: list[dict[str, Any]] = [_named("process_name", _STEPS, title)]
    events += [_named("thread_name", track, name) for track, name in names.items()]
    origin = int(profile.step_spans[:, 0].min()) if len(profile.step_spans) else 0
    chunks = iter(profile.chunk_spans.tolist())
    for step, (begin, end, _) in zip(profile.steps, profile.step_spans.tolist(), strict=True):
        events.append(_span(step, begin - origin, end - origin, _STEPS, _arguments(step)))
        for i in range(step.chunks):
            first, last, worker = next(chunks)
            if profile.threads > 1:
                events.append(_span(step, first - origin, last - origin, 1 + worker,
                                    {"layer": step.layer, "chunk": i, "step": step.index}))
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _span(
    step: StepProfile, begin: int, end: int, track: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {"ph": "X", "name": step.kernel, "cat": step.compute, "pid": _PROCESS, "tid": track,
            "ts": begin / 1e3, "dur": (end - begin) / 1e3, "args": arguments}


def _arguments(step: StepProfile) -> dict[str, Any]:
    return {
        "step": step.index, "layer": step.layer, "flops": step.flops,
        "bytes": step.bytes_read + step.bytes_written, "bytes_read": step.bytes_read,
        "bytes_written": step.bytes_written,
        "shapes": ", ".join("-" if s is None else "x".join(map(str, s)) for s in step.shapes),
        "least_us": step.seconds * 1e6, "limit_us": step.limit_seconds * 1e6, "bound": step.bound,
    }


def _named(event: str, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": event, "pid": _PROCESS, "tid": track, "args": {"name": name}}
