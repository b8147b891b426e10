"""The requests there are, each stated once: the routes and the OpenAPI document come from here."""

from dataclasses import dataclass

from .answers import FORMATS
from .bodies import FORM, JSON, PICTURES

LABELS = tuple(FORMATS.values())


@dataclass(frozen=True)
class Operation:
    """name: of the handler; takes: types of the body; gives: types of the answer; status: of the
    answer; refusals: what may be answered else, beside what may be to every request.

    open: whether it needs no token.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str = ""
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = (JSON,)
    status: int = 200
    refusals: tuple[int, ...] = ()
    open: bool = False


SESSION = "/sessions/{id}"
OF_FRAME = (400, 404, 406, 408, 413, 415, 422, 429)

OPERATIONS = (
    Operation(
        "POST",
        "/sessions",
        "open_session",
        "Open a session: a stream of frames with objects of its own",
        "The body may choose options, as a JSON object; without one the session is as the server "
        "was started. A session that nobody asks for is dropped after a while.",
        takes=(JSON,),
        status=201,
        refusals=(400, 408, 413, 415, 422, 429),
    ),
    Operation(
        "GET", SESSION, "get_session", "What a session holds, and when it will be dropped",
        refusals=(404,),
    ),
    Operation(
        "DELETE", SESSION, "delete_session", "Delete a session and free its memory",
        gives=(), status=204, refusals=(404,),
    ),
    Operation(
        "POST",
        SESSION + "/frames",
        "add_frame",
        "Send the next frame, and get its labels",
        "A JPEG or PNG; or a form with the parts frame, mask (a PNG of object ids), prompts (JSON: "
        "a list of objects with a box or points) and objects (JSON: the ids in the mask that "
        "count). The first frame needs a mask or prompts; later ones add and correct objects. "
        "Frames are worked on in the order in which they come.",
        takes=(*PICTURES, FORM),
        gives=LABELS,
        refusals=OF_FRAME,
    ),
    Operation(
        "POST",
        SESSION + "/marks",
        "add_marks",
        "Mark objects in the frame that was sent last, and get its labels anew",
        "A mask as PNG, prompts as JSON, or a form with the parts mask, prompts and objects.",
        takes=("image/png", JSON, FORM),
        gives=LABELS,
        refusals=OF_FRAME,
    ),
    Operation(
        "GET", SESSION + "/labels", "get_labels", "The labels of the frame that was sent last",
        gives=LABELS, refusals=(404, 406, 422, 429),
    ),
    Operation(
        "DELETE", SESSION + "/objects/{object}", "remove_object", "Stop following an object",
        refusals=(404, 422, 429),
    ),
    Operation(
        "GET", "/health", "health", "Whether the server works, and on what", open=True,
    ),
    Operation(
        "GET", "/metrics", "metrics", "Counters in Prometheus' text format",
        gives=("text/plain",),
    ),
    Operation(
        "GET", "/openapi.json", "openapi", "This document", open=True,
    ),
    Operation(
        "GET", "/docs", "documentation", "This document as a page", gives=("text/html",), open=True,
    ),
)  # fmt: skip

OPEN_PATHS = frozenset(operation.path for operation in OPERATIONS if operation.open)
