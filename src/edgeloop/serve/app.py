"""The HTTP face: Open Inference Protocol v2 over the versions of one model."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgeloop import __version__
from edgeloop.errors import EdgeLoopError, InputError, UnknownVersionError
from edgeloop.serve import v2
from edgeloop.serve.feedback import TooManyError
from edgeloop.serve.metrics import TYPE
from edgeloop.serve.openapi import description

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from edgeloop.serve.feedback import Desk
    from edgeloop.serve.metrics import Metrics
    from edgeloop.serve.predictor import Predictor

_TYPES = {"f32": "FP32", "i32": "INT32", "u8": "UINT8"}


def app(
    name: str, predictor: Predictor, metrics: Metrics, desk: Desk | None = None
) -> Starlette:
    """Make the application.

    Parameters
    ----------
    name
        Of the model, in paths.
    predictor
        Answers.
    metrics
        Counts.
    desk
        Takes feedback; None: none is taken.
    """
    api = _Api(name, predictor, metrics, desk)
    model = "/v2/models/{model}"
    version = f"{model}/versions/{{version}}"

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return failed(error.status_code, error.detail)

    return Starlette(exception_handlers={HTTPException: refused}, routes=[
        Route("/metrics", api.metrics),
        Route("/openapi.json", api.described),
        Route("/v2", api.server),
        Route("/v2/health/live", api.alive),
        Route("/v2/health/ready", api.ready),
        Route(f"{model}/feedback", answered(api.feedback), methods=["POST"]),
        Route("/v2/repository/index", answered(api.index), methods=["POST"]),
        *(
            Route(f"{path}{end}", answered(handler), methods=[method])
            for path in (model, version)
            for end, handler, method in (
                ("", api.metadata, "GET"), ("/ready", api.model_ready, "GET"),
                ("/infer", api.infer, "POST"))
        ),
    ])


def answered(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn errors into answers: 400: of the request; 404: not there; 503: of this device."""

    async def checked(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException as error:
            return failed(error.status_code, error.detail)
        except InputError as error:
            return failed(400, str(error))
        except UnknownVersionError as error:
            return failed(404, str(error))
        except EdgeLoopError as error:
            return failed(503, str(error))

    return checked


def failed(status: int, text: str) -> JSONResponse:
    """An error as the protocol wants it."""
    return JSONResponse({"error": text}, status)


class _Api:
    def __init__(
        self, name: str, predictor: Predictor, metrics: Metrics, desk: Desk | None
    ) -> None:
        self._name, self._predictor = name, predictor
        self._metrics, self._desk = metrics, desk

    async def metrics(self, _: Request) -> Response:
        self._metrics.live(self._predictor.live)
        return Response(self._metrics.text(), headers={"Content-Type": TYPE})

    async def described(self, request: Request) -> Response:
        return JSONResponse(description(self._name, tokens=bool(request.scope["sender"])))

    async def server(self, _: Request) -> Response:
        return JSONResponse({
            "name": "edgeloop", "version": __version__,
            "extensions": ["binary_tensor_data", "model_repository"]})

    async def alive(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        # The program is loaded before the server listens.
        return JSONResponse({"ready": True})

    async def index(self, request: Request) -> Response:
        v2.table(await _json(request), "the request")  # all are ready, if it asks for those alone
        versions = await run_in_threadpool(self._predictor.versions)
        rows = [
            {"name": self._name, "version": str(number), "state": "READY", "reason": ""}
            for number in (0, *(v.id for v in versions))
        ]
        return JSONResponse(rows)

    async def metadata(self, request: Request) -> Response:
        await self._known(request)
        versions = await run_in_threadpool(self._predictor.versions)
        predictor = self._predictor
        return JSONResponse({
            "name": self._name,
            "versions": [str(v.id) for v in versions] or ["0"],
            "platform": "edgeloop",
            "inputs": [
                {"name": n, "datatype": _TYPES[t["dtype"]], "shape": [-1, *t["shape"][1:]]}
                for n, t in predictor.inputs.items()],
            "outputs": [
                {"name": n, "datatype": _TYPES[t.dtype], "shape": [-1, *t.shape[1:]]}
                for n, t in predictor.outputs.items()],
        })

    async def model_ready(self, request: Request) -> Response:
        await self._known(request)
        return JSONResponse({"name": self._name, "ready": True})

    async def infer(self, request: Request) -> Response:
        with self._metrics.inference() as found:
            response = await answered(self._answer)(request)
            found["status"] = response.status_code
        return response

    async def _answer(self, request: Request) -> Response:
        version = self._version(request)
        body = await _body(request)
        data, size = await run_in_threadpool(
            self._infer, body, request.headers.get(v2.HEADER), version, request.scope["sender"])
        if size is None:
            return Response(data, media_type="application/json")
        return Response(data, media_type=v2.BINARY, headers={v2.HEADER: str(size)})

    def _infer(
        self, body: bytes, header: str | None, version: str | None, sender: str
    ) -> tuple[bytes, int | None]:
        asked = v2.read(body, header)
        made = self._predictor.predict(asked.inputs, version=version)
        if self._desk is not None:
            asked = asked if asked.id else replace(asked, id=uuid.uuid4().hex)
            window = self._predictor.window_of(asked.inputs)
            if window is not None:
                self._desk.remember(sender, str(asked.id), window)
        return v2.answer(asked, self._name, str(made.version), made.outputs)

    async def feedback(self, request: Request) -> Response:
        self._version(request)
        if self._desk is None:
            raise HTTPException(404, "this server takes no feedback; set serve.feedback")
        said = v2.table(await _json(request), "the request")
        id_ = said.get("id")
        if not isinstance(id_, str):
            raise InputError("id: must be the text that names the prediction")
        try:
            await run_in_threadpool(
                self._desk.label, request.scope["sender"], id_, said.get("label"))
        except LookupError:
            raise HTTPException(
                404, "no prediction of yours with one raw window has that id and waits for its "
                "label; it may be too long ago") from None
        except TooManyError as error:
            return JSONResponse(
                {"error": str(error)}, 429, {"Retry-After": str(math.ceil(error.wait))})
        return JSONResponse({"taken": True}, 202)

    async def _known(self, request: Request) -> None:
        """404 unless model and version of a path are there."""
        version = self._version(request)
        if version is not None:
            await run_in_threadpool(self._predictor.number, version)

    def _version(self, request: Request) -> str | None:
        """The version that a path names, None where it names none; 404 for another model."""
        name = request.path_params["model"]
        if name != self._name:
            raise HTTPException(404, f"there is no model {name[:64]!r}; this is {self._name!r}")
        version: str | None = request.path_params.get("version")
        return version


async def _body(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, f"Content-Encoding {encoding[:40]!r} is not taken; send it plain")
    return await request.body()


async def _json(request: Request) -> Any:
    try:
        return json.loads(await _body(request) or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON ({error})") from error
