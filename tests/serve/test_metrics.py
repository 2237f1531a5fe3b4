"""What Prometheus reads, by its own parser."""

from __future__ import annotations

import http.client

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.parts import request, rows

from edgeloop.serve.metrics import Metrics


def values(text):
    """Sample values by name and labels."""
    return {(s.name, *s.labels.values()): s.value
            for family in text_string_to_metric_families(text) for s in family.samples}


def scrape(served):
    line = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    line.request("GET", "/metrics")
    response = line.getresponse()
    text = response.read().decode()
    line.close()
    assert response.headers["content-type"].startswith("text/plain; version=")
    return values(text)


def test_requests_are_counted_by_status(served):
    assert scrape(served)["edgeloop_live_version",] == 2
    for path, body in (("", request(rows())), ("", request(rows())), ("", b"{"),
                       ("/versions/9", request(rows()))):
        served.ask("POST", f"/v2/models/model{path}/infer", body)
    now = scrape(served)
    assert [now["edgeloop_inferences_total", s] for s in ("200", "400", "404")] == [2, 1, 1]
    assert now["edgeloop_inference_seconds_count",] == 4
    assert now["edgeloop_inferences_under_way",] == 0


@pytest.mark.parametrize(("events", "name", "value"), [
    ([("item", {}), ("item", {})], ("edgeloop_records_total",), 2),
    ([("skipped", {"error": "x"})], ("edgeloop_records_skipped_total",), 1),
    ([("promoted", {"joules": 2.5}), ("promoted", {"joules": None})],
     ("edgeloop_updates_total", "promoted"), 2),
    ([("rejected", {"joules": 2.5}), ("promoted", {"joules": 1.0})],
     ("edgeloop_update_joules_total",), 3.5),
    ([("start", {})], ("edgeloop_loop_running",), 1),
    ([("start", {}), ("failed", {"error": "x"})], ("edgeloop_loop_running",), 0),
])
def test_the_loop_is_counted(events, name, value):
    metrics = Metrics()
    for kind, detail in events:
        metrics.event(kind, **detail)
    assert values(metrics.text().decode())[name] == value
