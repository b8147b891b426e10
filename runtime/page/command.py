"""`vos-deploy-run --serve`: a page to mark objects on, and to watch them."""

from __future__ import annotations

import argparse
import logging
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from vos_deploy.errors import InputError
from vos_deploy.extras import install

from ..segmenter import Segmenter
from ..web.listening import LOOPBACK, SHORTEST_TOKEN, address, check_token, listen, port

logger = logging.getLogger(__name__)

PORT = 8765
# What is kept to go back to and to export, as a part of the room on the disk; and at most.
PART_OF_DISK, MOST_BYTES = 0.25, 8 * 2**30
NOT_HERE = (
    "mask", "binary_mask", "objects", "box", "point", "not_point", "save_frame", "no_masks",
    "no_overlay", "fps", "audio", "frames", "json", "remove", "pause", "rate", "resume", "layout",
    "set", "workers", "ray", "gpus_per_worker", "checkpoint_every",
)  # fmt: skip


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """`--serve` and what belongs to it."""
    add = parser.add_argument_group(
        "a page in the browser, to mark objects and watch them"
    ).add_argument
    add(
        "--serve",
        type=port,
        nargs="?",
        const=PORT,
        metavar="PORT",
        help=f"serve the page at this port of this machine (default: {PORT}; 0 for any that is "
        "free); it opens --video and the videos in the folder --videos; needs the extra: page",
    )
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="serve at this address, such as 0.0.0.0 for all; others than this machine's own need "
        "--token",
    )
    add(
        "--token",
        metavar="TEXT",
        help=f"only who knows this may use the page, at least {SHORTEST_TOKEN} characters",
    )


def serve(args: argparse.Namespace, make: Callable[[], Segmenter]) -> int:
    """Serve until Ctrl-C. `make` makes the Segmenter, in the thread that uses it."""
    _check(args)
    token = _checked_token(args)
    try:
        import uvicorn

        from .catalogue import Catalogue
        from .server import Server
        from .session import Session
    except ImportError as error:
        raise InputError(
            f"the page needs {error.name}, which is not installed: {install('page')}"
        ) from error
    catalogue = Catalogue(args.videos, args.video)
    listening = listen(args.host, args.serve, "--serve")
    folder = Path(tempfile.mkdtemp(prefix="vos_deploy_page_"))
    session = Session(make, folder, limit=_limit(folder))
    try:
        session.start()
        if args.video is not None:
            spec, label = catalogue.source({"given": True})
            session.do(lambda: session.open(spec, label)).result()
        print(
            f"the page is at {_address(listening, args.host, token)} (Ctrl-C ends it)", flush=True
        )
        page = Server(session, catalogue)

        class PageServer(uvicorn.Server):
            """Pages listen for changes for ever: at the end they are told that there are none."""

            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                page.changes.end()
                super().handle_exit(sig, frame)

        config = uvicorn.Config(
            page.app(token),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        PageServer(config).run(sockets=[listening])
    except KeyboardInterrupt:
        print("the page is closed", file=sys.stderr)
    finally:
        session.close()
        shutil.rmtree(folder, ignore_errors=True)
        listening.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise InputError for what is of no use on a page."""
    for name in NOT_HERE:
        given = getattr(args, name)
        if given is not None and given is not False and given != []:
            raise InputError(
                f"--serve takes no --{name.replace('_', '-')}: objects are marked, and results "
                "taken, on the page"
            )


def _checked_token(args: argparse.Namespace) -> str | None:
    """The token. Raises InputError where one is needed, or is too short to keep anybody out."""
    token: str | None = args.token
    if token is None and args.host not in LOOPBACK:
        raise InputError(
            f"--host {args.host} opens the page to other machines: give a --token that only those "
            "know who may use it"
        )
    check_token(token)
    return token


def _address(listening: socket.socket, host: str, token: str | None) -> str:
    return address(listening, host) + ("" if token is None else f"?token={quote(token)}")


def _limit(folder: Path) -> int:
    return min(MOST_BYTES, round(PART_OF_DISK * shutil.disk_usage(folder).free))
