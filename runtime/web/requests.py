"""What a client sends, checked: nothing larger, longer or of another type than it may be."""

import json
import math
from collections.abc import Mapping
from typing import Any, Self

from starlette.requests import Request

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.palette import VOID

LARGEST_JSON = 2**20
LARGEST_MASK = 16 * 2**20
MOST_POINTS = 5000
FARTHEST = 1e5
LONGEST_TEXT = 2000


class TooLarge(VosDeployError):
    """More bytes or pixels than may be sent."""

    @classmethod
    def body(cls, most: int) -> Self:
        """Of a body of more than so many bytes."""
        return cls(f"a request may have at most {most} bytes")


async def read_bytes(request: Request, most: int) -> bytes:
    """The body; raises TooLarge as soon as it is."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise TooLarge.body(most)
    return bytes(content)


async def read_body(request: Request) -> "Body":
    """The JSON object that came, an empty one if nothing did."""
    content = await read_bytes(request, LARGEST_JSON)
    try:
        values = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError("a request must be a JSON object")
    return Body(values)


class Body:
    """A JSON object whose values are asked for by name and type; raises InputError."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def integer(self, name: str, least: int, most: int) -> int:
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InputError(f"{name!r} must be an integer from {least} to {most}, got {value!r}")
        return value

    def number(self, name: str) -> float:
        return _number(name, self.values.get(name))

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise InputError(f"{name!r} must be true or false, got {value!r}")
        return value

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            raise InputError(f"{name!r} must be text of at most {LONGEST_TEXT} characters")
        return value

    def object_id(self) -> int:
        return self.integer("object", 1, VOID - 1)

    def points(self, name: str) -> list[tuple[float, float]]:
        """[[x, y], ...] in pixels."""
        value = self.values.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= MOST_POINTS:
            raise InputError(f"{name!r} must be a list of 1 to {MOST_POINTS} points")
        return [(x, y) for x, y in (_numbers(name, point, 2) for point in value)]

    def box(self, name: str) -> list[float]:
        """[x, y, width, height] in pixels."""
        return _numbers(name, self.values.get(name), 4)


def _numbers(name: str, value: Any, count: int) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise InputError(f"{name!r} must hold {count} numbers each, got {str(value)[:40]}")
    return [_number(name, number) for number in value]


def _number(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) < FARTHEST else math.nan
        if math.isfinite(number):
            return number
    raise InputError(f"{name!r} must be a number of pixels, got {str(value)[:40]}")
