"""What the server offers, as an OpenAPI 3.1 description."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgeloop import __version__
from edgeloop.serve import v2

ERRORS = {
    "400": "The request does not fit; the answer says where.",
    "401": "The token is missing, or another one.",
    "403": "Pages of that origin may not ask.",
    "404": "There is no such model, version or prediction.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "421": "The server does not go by that host.",
    "429": "Too many labels; `Retry-After` says when to come again.",
    "503": "This device cannot, now.",
}
_ERROR = {"application/json": {"schema": {
    "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}}}
_NUMBERS = {"type": "array", "items": {"type": ["number", "boolean", "array"]}, "maxItems": 1 << 24}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "minItems": 1, "maxItems": 16,
                  "items": {"type": "integer", "minimum": 1}},
        "datatype": {"enum": list(v2.NAMES.values())},
        "data": _NUMBERS,
        "parameters": {"type": "object"},
    },
}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"},
            "description": "Number, label, or 8 and more digits of the digest; 0: as shipped."}


def description(name: str, *, tokens: bool) -> dict[str, Any]:
    """Describe the server of the model of this name; `tokens`: whether it asks for one."""
    one = {"name": "model", "in": "path", "required": True, "schema": {"enum": [name]},
           "description": "Name of the model."}
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    paths: dict[str, Any] = {
        "/v2": {"get": _get("Name, version and extensions of the server", "metadata")},
        "/v2/health/live": {"get": _get("Whether the process answers", "live", open_=True)},
        "/v2/health/ready": {
            "get": _get("Whether predictions are welcome", "ready", open_=True)},
        "/v2/repository/index": {"post": _post(
            "Every version of the model", "index", {"type": "object"}, "The versions.")},
        "/metrics": {"get": _text("Counts and times for Prometheus", "metrics")},
        f"{model}/feedback": {"parameters": [one], "post": _post(
            "The label of a prediction", "feedback", {
                "type": "object", "required": ["id", "label"],
                "properties": {"id": {"type": "string"},
                               "label": {"type": ["string", "integer", "array"], "description":
                                         "A class's name or number, or a target."}},
            }, "It goes to the loop.", status="202", more={"404", "429"})},
    }
    for path, parameters, end in ((model, [one], ""), (version, [one, _VERSION], "Version")):
        paths[path] = {"parameters": parameters, "get": _get(
            "Inputs, outputs and versions of the model", f"model{end}", missing=True)}
        paths[f"{path}/ready"] = {"parameters": parameters, "get": _get(
            "Whether the model answers", f"modelReady{end}", missing=True)}
        paths[f"{path}/infer"] = {"parameters": parameters, "post": _post(
            "Predict", f"infer{end}", {
                "type": "object", "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
                    "outputs": {"type": "array", "items": {
                        "type": "object", "required": ["name"],
                        "properties": {"name": {"type": "string"},
                                       "parameters": {"type": "object"}}}},
                    "parameters": {"type": "object"},
                },
            }, "Outputs, and the version that gave them.", binary=True, more={"404"})}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "edgeloop", "version": __version__,
                 "summary": "Open Inference Protocol v2, and feedback."},
        "paths": paths,
    }
    if tokens:
        made["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        made["security"] = [{"token": []}]
    return made


def _answers(
    told: str, *, status: str = "200", more: Collection[str] = (), binary: bool = False
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {}}
    if binary:
        content[v2.BINARY] = {}
    return {status: {"description": told, "content": content},
            **{code: {"description": ERRORS[code], "content": _ERROR}
               for code in sorted({*more, "401", "403", "421"})}}


def _get(
    told: str, name: str, *, open_: bool = False, missing: bool = False
) -> dict[str, Any]:
    more = ["404"] if missing else ()
    made = {"summary": told, "operationId": name, "responses": _answers(told, more=more)}
    return made | {"security": []} if open_ else made


def _text(told: str, name: str) -> dict[str, Any]:
    made = _get(told, name)
    made["responses"]["200"]["content"] = {"text/plain": {}}
    return made


def _post(
    told: str, name: str, schema: dict[str, Any], answer: str, *, status: str = "200",
    binary: bool = False, more: Collection[str] = (),
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if binary:  # JSON, and tensors behind it
        content[v2.BINARY] = {"schema": {}}
    return {
        "summary": told,
        "operationId": name,
        "requestBody": {"required": True, "content": content},
        "responses": _answers(answer, status=status, binary=binary,
                              more={*more, "400", "408", "413", "415", "503"}),
    }
