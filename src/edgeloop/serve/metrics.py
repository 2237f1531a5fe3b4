"""Numbers of the server and its loop for Prometheus."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = made = CollectorRegistry()
        self._answers = Counter(
            "edgeloop_inferences", "Inference requests by HTTP status", ["status"], registry=made)
        self._seconds = Histogram(
            "edgeloop_inference_seconds", "From a request's body to its answer", registry=made,
            buckets=_SECONDS)
        self._busy = Gauge("edgeloop_inferences_under_way", "Requests at work", registry=made)
        self._live = Gauge("edgeloop_live_version", "Version that answers; 0: as shipped",
                           registry=made)
        self._updates = Counter(
            "edgeloop_updates", "Updates by how they ended", ["outcome"], registry=made)
        self._joules = Counter(
            "edgeloop_update_joules", "Energy of updates, where something can tell it",
            registry=made)
        self._records = Counter("edgeloop_records", "Records that the loop took", registry=made)
        self._skipped = Counter(
            "edgeloop_records_skipped", "Records that could not be used", registry=made)
        self._running = Gauge("edgeloop_loop_running", "1 while the loop runs", registry=made)

    @contextmanager
    def inference(self) -> Iterator[dict[str, int]]:
        """Measure one request; its "status" is put into what this gives."""
        found, began = {"status": 500}, time.perf_counter()
        with self._busy.track_inprogress():
            try:
                yield found
            finally:
                self._answers.labels(str(found["status"])).inc()
                self._seconds.observe(time.perf_counter() - began)

    def live(self, version: int | None) -> None:
        """Note which version answers."""
        self._live.set(version or 0)

    def event(self, kind: str, **detail: Any) -> None:
        """Take in an event of the loop."""
        if kind == "item":
            self._records.inc()
        elif kind == "skipped":
            self._skipped.inc()
        elif kind in ("promoted", "rejected", "regressed"):
            self._updates.labels(kind).inc()
            self._joules.inc(detail.get("joules") or 0.0)
        elif kind in ("start", "ended", "failed"):
            self._running.set(kind == "start")

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)
