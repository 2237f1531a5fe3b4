"""The description holds: whatever it allows, and what it does not, is answered as it says."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.serve.parts import Served

from edgeloop.serve import v2
from edgeloop.serve.openapi import description

TOKEN = "t" * 32


@pytest.fixture
def api(learnt, tmp_path):
    token = tmp_path / "token"
    token.write_text(f"ann:{TOKEN}")
    token.chmod(0o600)
    with Served(learnt, token_file=str(token), feedback=20, feedback_per_minute=10000) as served:
        made = schemathesis.openapi.from_url(
            f"{served.url}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
        yield made


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation(api, mode):
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # whatever a path says is text

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=40, deadline=None, derandomize=True,
                  suppress_health_check=list(HealthCheck))
        def answers_as_described(case):
            # What a schema allows may still not fit: data of another size than the shape says.
            case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"},
                                   excluded_checks=[positive_data_acceptance])

        answers_as_described()


def test_every_route_is_described(served):
    told = description("model", tokens=False)["paths"]
    there = {route.path for route in served.server.config.app._app.routes}
    assert set(told) == there - {"/openapi.json"}
    assert served.ask("GET", "/openapi.json")[1] == description("model", tokens=False)


def test_an_answer_that_the_description_does_not_know_is_found(api, monkeypatch):
    monkeypatch.setattr(v2, "read", lambda *_: 1 / 0)
    with pytest.raises(BaseExceptionGroup, match="Schemathesis found"):
        test_every_operation(api, GenerationMode.POSITIVE)
