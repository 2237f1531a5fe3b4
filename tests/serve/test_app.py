"""The protocol over a real server, asked by Triton's own client with its default arguments."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http as triton
from tests.conftest import WIDTH
from tests.serve.parts import request, rows
from tritonclient.utils import InferenceServerException

from edgeloop.program import Program
from edgeloop.runtime import Session
from edgeloop.store import Store


@pytest.fixture
def client(served):
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        yield client


def expected(folder, version, x):
    session = Session(Program.load(folder / "model.elp"))
    if version:
        with Store.open(folder / "device.db", readonly=True) as store:
            session.load_adapter(store.adapter(version))
    return session.predict(x)


def tensor(x, *, binary=True, name="x"):
    made = triton.InferInput(name, list(x.shape), "FP32")
    made.set_data_from_numpy(x, binary_data=binary)
    return made


def test_a_client_as_it_is(client, served, learnt):
    x = rows()
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("model")
    assert client.is_model_ready("model", "2")
    assert client.get_server_metadata()["name"] == "edgeloop"
    assert client.get_model_metadata("model") == {
        "name": "model", "versions": ["1", "2"], "platform": "edgeloop",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, WIDTH]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert [r["version"] for r in client.get_model_repository_index()] == ["0", "1", "2"]
    result = client.infer("model", [tensor(x)])
    np.testing.assert_array_equal(result.as_numpy("y"), expected(learnt, 2, x))
    assert result.get_response()["model_version"] == "2"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("version", ["0", "1", "2", "shipped"])
def test_versions_by_number_and_label(client, learnt, version, binary):
    x = rows(20)  # more than a batch
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("model", [tensor(x, binary=binary)], model_version=version,
                          outputs=wanted, request_id="q")
    number = {"shipped": "1"}.get(version, version)
    assert (result.get_response()["model_version"], result.get_response()["id"]) == (number, "q")
    np.testing.assert_array_equal(result.as_numpy("y"), expected(learnt, int(number), x))


def test_versions_by_digest(client, learnt):
    with Store.open(learnt / "device.db", readonly=True) as store:
        digest = store.version(1).sha256
    x = rows()
    for name in (digest, digest[:8]):
        made = client.infer("model", [tensor(x)], model_version=name).get_response()
        assert made["model_version"] == "1"
    with pytest.raises(InferenceServerException, match="no version"):
        client.infer("model", [tensor(x)], model_version=digest[:7])


@pytest.mark.parametrize(("path", "status", "says"), [
    ("/v2/models/other", 404, "there is no model 'other'; this is 'model'"),
    ("/v2/models/model/versions/9", 404, "there is no version '9'"),
    ("/v2/models/model/versions/..%2F..%2Fetc%2Fpasswd", 404, ""),
    ("/v2/models/model/versions/model.elp", 404, "there is no version 'model.elp'"),
    ("/nowhere", 404, "Not Found"),
    ("/v2/models/model/infer", 405, "Method Not Allowed"),
])
def test_what_is_not_there(served, path, status, says):
    found = served.ask("GET", path)
    assert found[0] == status
    assert says in found[1]["error"]


@pytest.mark.parametrize(("body", "says"), [
    (b"{", "not JSON"),
    (request(rows()[:, :5]), "has shape [3, 5]; [n, 16] is needed"),
    (request(rows(), "z"), "z"),
    (request(np.full((1, WIDTH), 1e39)), "inf"),
])
def test_bad_requests_are_answered(served, body, says):
    status, answer, _ = served.ask("POST", "/v2/models/model/infer", body)
    assert status == 400
    assert says in answer["error"]


def test_compressed_bodies_are_refused(served):
    status, answer, _ = served.ask(
        "POST", "/v2/models/model/infer", b"x", Content_Encoding="gzip")
    assert (status, "not taken" in answer["error"]) == (415, True)


def test_raw_windows_go_through_the_features_of_the_program(client, learnt):
    x = rows()
    result = client.infer("model", [tensor(x, name="raw")])
    np.testing.assert_array_equal(result.as_numpy("y"), expected(learnt, 2, x))
