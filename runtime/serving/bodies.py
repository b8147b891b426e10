"""What a client sends about a frame: the picture, and a mask or prompts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser

from vos_deploy.errors import InputError
from vos_deploy.options import did_you_mean
from vos_deploy.palette import VOID
from vos_deploy.prompts import Prompt

from ..web.requests import LARGEST_JSON, Body
from .refusals import Refusal

# It warns of every body that is no form, which its error says as well.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())

PICTURES = ("image/jpeg", "image/png")
JSON, FORM = "application/json", "multipart/form-data"
PARTS = ("frame", "mask", "prompts", "objects")
# Each is cut out by itself, which takes a thread for a good part of a second.
MOST_PROMPTS = 8
PROMPT_KEYS = ("object", "box", "points", "not_points")


@dataclass(frozen=True)
class Given:
    """frame, mask: as they came, not decoded; prompts: of one object each; objects: the ids in the
    mask that count, None for all."""

    frame: bytes | None = None
    mask: bytes | None = None
    prompts: tuple[Prompt, ...] | None = None
    objects: tuple[int, ...] | None = None


def media_type(header: str, allowed: tuple[str, ...]) -> str:
    """The type that a Content-Type header names. Raises Refusal (415) for others than allowed."""
    found = header.partition(";")[0].strip().lower()
    if found not in allowed:
        raise Refusal(
            415, f"Content-Type must be {' or '.join(allowed)}, got {found[:80] or 'none'}"
        )
    return found


def read_given(header: str, content: bytes, picture: str) -> Given:
    """What a body says, by its Content-Type header, which is one of the allowed.

    picture: what a picture alone is, "frame" or "mask".

    Raises InputError, and Refusal (400) for a body that is not of its type.
    """
    found = header.partition(";")[0].strip().lower()
    if found in PICTURES:
        return Given(frame=content) if picture == "frame" else Given(mask=content)
    values: Mapping[str, Any]
    if found == JSON:
        values = parse_object(content)
        allowed: tuple[str, ...] = ("prompts",)
    else:
        values = _form(header, content)
        allowed = PARTS if picture == "frame" else PARTS[1:]
    _check_names("a request", values, allowed)
    if {"mask", "prompts"} <= values.keys():
        raise InputError("give a mask or prompts, not both")
    if "objects" in values and "mask" not in values:
        raise InputError("'objects' says which ids of a mask count: give a mask with it")
    return Given(
        values.get("frame"),
        values.get("mask"),
        _prompts(_parsed(values["prompts"])) if "prompts" in values else None,
        _objects(_parsed(values["objects"])) if "objects" in values else None,
    )


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object, an empty one for an empty body. Raises Refusal (400)."""
    values = _json(content or b"{}")
    if not isinstance(values, dict):
        raise Refusal(400, "the body must be a JSON object")
    return values


def _json(content: bytes) -> Any:
    if len(content) > LARGEST_JSON:
        raise Refusal(413, f"JSON may have at most {LARGEST_JSON} bytes")
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body must be JSON, got what cannot be parsed") from None


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _parsed(value: Any) -> Any:
    """What a part of a form holds, which is JSON in bytes; or has been parsed already."""
    return _json(value) if isinstance(value, bytes) else value


def _prompts(values: Any) -> tuple[Prompt, ...]:
    if not isinstance(values, list) or not 0 < len(values) <= MOST_PROMPTS:
        raise InputError(
            f"'prompts' must be a list of 1 to {MOST_PROMPTS}, such as "
            '[{"object": 1, "box": [x, y, w, h]}]'
        )
    return tuple(_prompt(value) for value in values)


def _prompt(value: Any) -> Prompt:
    if not isinstance(value, dict):
        raise InputError("a prompt must be a JSON object")
    _check_names("a prompt", value, PROMPT_KEYS)
    body = Body(value)
    return Prompt(
        body.object_id(),
        body.box("box") if "box" in value else None,
        body.points("points") if "points" in value else (),
        body.points("not_points") if "not_points" in value else (),
    )


def _objects(values: Any) -> tuple[int, ...]:
    ids = values if isinstance(values, list) else [None]
    return tuple(Body({"objects": one}).integer("objects", 1, VOID - 1) for one in ids[:VOID])


def _check_names(what: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in values:
        if name not in known:
            hint = did_you_mean(name[:80], known)
            raise InputError(f"{what} has no {name[:80]!r}{hint or '; it has ' + ', '.join(known)}")


def _form(header: str, content: bytes) -> dict[str, bytes]:
    """The parts of multipart/form-data by name. Raises Refusal (400) and InputError."""
    message = Message()
    message["content-type"] = header
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not boundary.isascii():
        raise Refusal(400, "multipart/form-data must name its boundary in the Content-Type")
    parts: dict[str, bytes] = {}
    ended: list[bool] = []

    def keep(name: bytes | None, value: bytes) -> None:
        text = (name or b"").decode("utf-8", "replace")
        if text in parts:
            raise InputError(f"the part {text[:80]!r} came twice")
        if len(parts) == len(PARTS):
            raise InputError(f"a form has at most {len(PARTS)} parts: {', '.join(PARTS)}")
        parts[text] = value

    def field(part: Field) -> None:
        keep(part.field_name, part.value or b"")

    def file(part: File) -> None:
        part.file_object.seek(0)
        keep(part.field_name, part.file_object.read())
        part.close()

    try:
        parser = FormParser(
            FORM,
            field,
            file,
            on_end=lambda: ended.append(True),
            boundary=boundary.encode(),
            config={"MAX_MEMORY_FILE_SIZE": len(content) + 1, "UPLOAD_ERROR_ON_BAD_CTE": True},
        )
        parser.write(content)
        parser.finalize()
    except (FormParserError, AssertionError) as error:
        raise Refusal(400, f"the body must be multipart/form-data ({error})") from error
    if not ended:
        raise Refusal(400, "the body must be multipart/form-data, and its end is missing")
    return parts
