"""What a client is told that is not served: a status and one sentence."""

import json
from collections.abc import Mapping

from starlette.responses import Response

LONGEST = 400


class Refusal(Exception):
    """Ends a request with a status, a sentence and perhaps headers."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.headers = status, headers


class Busy(Refusal):
    """429: there is no room now. after: seconds until it is worth asking again."""

    def __init__(self, sentence: str, after: float) -> None:
        super().__init__(429, sentence, {"retry-after": str(max(1, round(after + 0.5)))})


def refuse(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer: {"error": sentence}."""
    sentence = " ".join(sentence.split())
    if len(sentence) > LONGEST:
        sentence = sentence[:LONGEST] + "..."
    # As ASCII: what a client sent may be quoted, and need not be text that UTF-8 can hold.
    content = json.dumps({"error": sentence})
    return Response(content, status, dict(headers or {}), "application/json")
