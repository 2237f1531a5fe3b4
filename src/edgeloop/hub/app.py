"""The hub's HTTP face (docs/guide/hub.md): every request carries a device's token."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgeloop.errors import HubError
from edgeloop.link.transport import MAX_DOCUMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from edgeloop.hub.shelf import Shelf

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_MAX_PIECE = 1 << 20


def app(shelf: Shelf) -> Starlette:
    """The application over a hub's folder."""

    def known(handler: Callable[[Request, str], Awaitable[Response]]) -> (
            Callable[[Request], Awaitable[Response]]):
        async def checked(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            device = shelf.device_of(token) if scheme == "Bearer" else None
            if device is None:
                return PlainTextResponse("unknown token", 401)
            try:
                return await handler(request, device)
            except HubError as error:
                return PlainTextResponse(str(error), error.status)

        return checked

    @known
    async def root(request: Request, _: str) -> Response:
        document = shelf.root_document(int(request.path_params["version"]))
        return Response(document, 200) if document else PlainTextResponse("none yet", 404)

    @known
    async def latest(request: Request, device: str) -> Response:
        notice = shelf.notice(device)
        if notice is None:
            return PlainTextResponse("no release for this device", 404)
        body = notice.to_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, headers={"ETag": tag}, media_type="application/json")

    @known
    async def package(request: Request, device: str) -> Response:
        digest = _digest(request)
        notice = shelf.notice(device)
        if notice is None or digest not in {o.sha256 for o in notice.offers}:
            raise HubError("no such package for this device", status=404)
        return FileResponse(shelf.package_path(digest), headers={"ETag": f'"{digest}"'},
                            media_type="application/octet-stream")

    @known
    async def fresh(request: Request, device: str) -> Response:
        nonce = (await _json(request)).get("nonce")
        if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
            raise HubError("a nonce has 32 hexadecimal digits", status=400)
        return Response(shelf.answer(device, nonce), media_type="application/json")

    @known
    async def report(request: Request, device: str) -> Response:
        said = await _json(request)
        sequence, outcome = said.get("sequence"), said.get("outcome")
        if type(sequence) is not int or not isinstance(outcome, str):
            raise HubError("a report has a sequence and an outcome", status=400)
        shelf.report(device, sequence, outcome)
        return PlainTextResponse("noted")

    @known
    async def upload(request: Request, device: str) -> Response:
        digest, size = _digest(request), _number(request.query_params.get("size"), "size")
        held = shelf.held(device, digest, size)
        if request.method == "PATCH":
            start = _number(request.headers.get("upload-offset"), "Upload-Offset")
            piece = await _body(request, _MAX_PIECE)
            held = shelf.send(device, digest, start, piece, size)
        return Response(status_code=204 if request.method == "PATCH" else 200,
                        headers={"Upload-Offset": str(held)})

    return Starlette(routes=[
        Route("/v1/root/{version:int}", root),
        Route("/v1/latest", latest),
        Route("/v1/packages/{digest}", package),
        Route("/v1/fresh", fresh, methods=["POST"]),
        Route("/v1/reports", report, methods=["POST"]),
        Route("/v1/uploads/{digest}", upload, methods=["HEAD", "PATCH"]),
    ])


def _digest(request: Request) -> str:
    digest: str = request.path_params["digest"]
    if not _DIGEST.fullmatch(digest):
        raise HubError("a digest has 64 hexadecimal digits", status=404)
    return digest


def _number(text: str | None, name: str) -> int:
    if text is None or not text.isdecimal() or len(text) > 15:
        raise HubError(f"{name} is missing or no number", status=400)
    return int(text)


async def _body(request: Request, limit: int) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise HubError(f"at most {limit} bytes in one request", status=413)
    return body


async def _json(request: Request) -> dict[str, object]:
    try:
        found = json.loads(await _body(request, MAX_DOCUMENT_BYTES))
    except (ValueError, RecursionError) as error:
        raise HubError("the body is not JSON", status=400) from error
    if not isinstance(found, dict):
        raise HubError("the body is not a JSON object", status=400)
    return found
