"""The OpenAPI document."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from typing import Any

import vos_deploy

from .answers import FORMATS
from .bodies import FORM, JSON
from .limits import Limits
from .operations import LABELS, OPERATIONS, Operation
from .session_options import SessionOptions

TEXT: dict[str, Any] = {"type": "string"}
BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
OBJECT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 254}
NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
POINTS = {"type": "array", "items": {**NUMBERS, "minItems": 2, "maxItems": 2}}

REFUSALS = {
    400: "The body is not of its type",
    401: "The token is missing",
    403: "The request comes from another site, or names another host",
    404: "There is no such session",
    406: "Labels do not come in an accepted type",
    408: "The body took too long",
    413: "The body or the picture is too large",
    415: "The body is of a type that is not taken",
    422: "What the body says will not do",
    429: "There is no room now; Retry-After says in how many seconds",
    503: "The server is stopping",
}
EVERYWHERE, WITHOUT_TOKEN = (401, 403, 503), (403, 503)


def openapi_document(limits: Limits) -> dict[str, Any]:
    """OpenAPI 3.1, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    said = ", ".join(f"{name} {value}" for name, value in asdict(limits).items())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vos_deploy",
            "version": vos_deploy.__version__,
            "description": "Follows marked objects through a video, frame by frame. A refusal is "
            f'{{"error": sentence}}. Limits of this server: {said}.',
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": OBJECT if name == "object" else TEXT,
        }
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    if operation.gives == LABELS:
        schema = {**TEXT, "enum": list(FORMATS)}
        text = "overrides the Accept header: png, a palette PNG of object ids; rle, COCO"
        parameters.append({"name": "format", "in": "query", "description": text, "schema": schema})
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        **({"description": operation.description} if operation.description else {}),
        **({"parameters": parameters} if parameters else {}),
        "security": [] if operation.open else [{}, {"token": []}],
        "responses": _responses(operation),
    }
    if operation.takes:
        found["requestBody"] = {
            "required": operation.name != "open_session",
            "content": {kind: {"schema": _taken(operation, kind)} for kind in operation.takes},
        }
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    content = {kind: {"schema": _given(operation, kind)} for kind in operation.gives}
    responses: dict[str, Any] = {str(operation.status): {"description": "Done", "content": content}}
    if not content:
        del responses[str(operation.status)]["content"]
    every = WITHOUT_TOKEN if operation.open else EVERYWHERE
    for status in sorted({*operation.refusals, *every}):
        schema = {"$ref": "#/components/schemas/Refusal"}
        responses[str(status)] = {
            "description": REFUSALS[status],
            "content": {JSON: {"schema": schema}},
        }
    return responses


def _taken(operation: Operation, kind: str) -> dict[str, Any]:
    if operation.name == "open_session":
        return {"$ref": "#/components/schemas/Options"}
    if kind == FORM:
        frame = {"frame": BINARY} if operation.name == "add_frame" else {}
        prompts = {"type": "array", "items": {"$ref": "#/components/schemas/Prompt"}}
        objects = {"type": "array", "items": OBJECT}
        return {
            "type": "object",
            "properties": {**frame, "mask": BINARY, "prompts": prompts, "objects": objects},
            "required": list(frame),
        }
    if kind == JSON:
        return {"$ref": "#/components/schemas/Prompts"}
    return BINARY


def _given(operation: Operation, kind: str) -> dict[str, Any]:
    if operation.gives == LABELS:
        return BINARY if kind != JSON else {"$ref": "#/components/schemas/RunLengths"}
    if kind != JSON:
        return TEXT
    if operation.path.startswith("/sessions"):
        return {"$ref": "#/components/schemas/Session"}
    return {"type": "object"}


def _schemas() -> dict[str, Any]:
    options = {
        field.name: {"description": field.metadata["help"]} for field in fields(SessionOptions)
    }
    prompt = {"object": OBJECT, "box": NUMBERS, "points": POINTS, "not_points": POINTS}
    count = {"type": "integer"}
    session = {
        "id": TEXT,
        "frames": count,
        "size": {"type": ["array", "null"], "items": count},
        "objects": {"type": "array", "items": OBJECT},
        "memory": _object({"frames": count, "capacity": {}, "bytes": count}),
        "in_flight": count,
        "dropped_in_seconds": {"type": "number"},
    }
    found = {
        "object": OBJECT,
        "segmentation": _object({"size": NUMBERS, "counts": TEXT}),
        "area": count,
        "bbox": NUMBERS,
    }
    lengths = {
        "index": count,
        "size": NUMBERS,
        "objects": {"type": "array", "items": _object(found)},
    }
    prompts = {"type": "array", "items": {"$ref": "#/components/schemas/Prompt"}}
    return {
        "Options": {"type": "object", "properties": options, "additionalProperties": False},
        "Prompt": {"type": "object", "properties": prompt, "required": ["object"]},
        "Prompts": _object({"prompts": prompts}),
        "Session": _object(session),
        "RunLengths": _object(lengths),
        "Refusal": _object({"error": TEXT}),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
