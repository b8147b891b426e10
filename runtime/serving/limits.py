"""What a server takes on, and for how long."""

from dataclasses import dataclass

from vos_deploy.options import Options, option

GROUP = "limits"


@dataclass(frozen=True)
class Limits(Options):
    """Beyond one of them a request is refused, or a session dropped."""

    max_sessions: int = option(16, "sessions at a time", GROUP, at_least=1, metavar="N")
    max_objects: int = option(
        32, "objects that a session follows", GROUP, at_least=1, at_most=254, metavar="N"
    )
    max_body_mib: float = option(
        16, "MiB of a request's body", GROUP, at_least=0.001, at_most=1024, metavar="N"
    )
    max_pixels: int = option(
        4096 * 2304,
        "pixels of a frame; pictures are not decoded beyond it",
        GROUP,
        at_least=256,
        metavar="N",
    )
    max_object_pixels: int = option(
        2**25,
        "pixels of a frame times objects: a float each, a few times over, while a mask is taken in",
        GROUP,
        at_least=256,
        metavar="N",
    )
    frames_in_flight: int = option(
        4, "requests of a session at a time, the one worked on included", GROUP, at_least=1,
        metavar="N",
    )  # fmt: skip
    idle_timeout: float = option(
        60,
        "seconds after which a session that nobody asks for is dropped",
        GROUP,
        at_least=0.1,
        metavar="S",
    )
    body_timeout: float = option(
        30,
        "seconds that a client has to send a request, and to read its answer",
        GROUP,
        at_least=0.1,
        metavar="S",
    )
    stop_timeout: float = option(
        30,
        "seconds that requests in hand have to end after SIGTERM",
        GROUP,
        at_least=0,
        metavar="S",
    )
    max_connections: int = option(512, "connections at a time", GROUP, at_least=1, metavar="N")

    @property
    def max_body(self) -> int:
        """Bytes of a request's body."""
        return round(self.max_body_mib * 2**20)
