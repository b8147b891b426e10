"""vos-deploy-serve: follow objects through videos that programs send, over HTTP."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vos_deploy.arguments import positive
from vos_deploy.commands import Parser, run_command, setup_logging
from vos_deploy.errors import InputError
from vos_deploy.extras import install
from vos_deploy.options import add_flags

from ..arguments import add_segmenter_arguments, segmenter_options
from ..model import Model
from ..web.listening import LOOPBACK, address, check_token, listen, port
from .limits import Limits

logger = logging.getLogger(__name__)

PORT = 8766
WORKERS = 4
TOKEN_VARIABLE = "VOS_DEPLOY_TOKEN"
OF_MODEL = ("device", "threads")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    setup_logging()
    limits = _limits(args)
    options = segmenter_options(args)
    of_model = {name: options.pop(name) for name in OF_MODEL}
    if options["memory_frames"] == "unlimited":
        raise InputError("--memory-frames must be a number here: sessions may last for ever")
    try:
        import prometheus_client

        from .application import Application
        from .server import Server
        from .workers import Workers
    except ImportError as error:
        raise InputError(
            f"the server needs {error.name}, which is not installed: {install('serve')}"
        ) from error
    # When each counter began: as many lines again, that hardly anybody reads.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    token = args.token or os.environ.get(TOKEN_VARIABLE)
    this_machine = args.host in LOOPBACK
    check_token(token)
    socket = listen(args.host, args.port, "--port")
    with socket:
        workers = Workers(
            lambda: Model(args.model, memory_limit=args.memory_limit, **of_model), args.workers
        )
        try:
            # What is wrong with the options shows now, and not when somebody comes.
            workers.check(options)
            if not this_machine:
                logger.warning(_warning(args.host, token))
            application = Application(
                workers,
                limits,
                options,
                token=token,
                this_machine=this_machine and token is None,
            )
            print(f"serving at {address(socket, args.host)}", flush=True)
            Server(application, limits).run(sockets=[socket])
        finally:
            workers.close()
    print("stopped", file=sys.stderr)
    return 0


def _warning(host: str, token: str | None) -> str:
    who = "whoever reaches it may use it: give a --token" if token is None else "it needs the token"
    return f"--host {host} opens the server to other machines, without encryption, and {who}"


def _limits(args: argparse.Namespace) -> Limits:
    names = [field.name for field in dataclasses.fields(Limits)]
    return Limits(**{name: getattr(args, name) for name in names if hasattr(args, name)})


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        "vos-deploy-serve",
        "[--model MODEL] [options]",
        "Follow objects through videos that programs send, over HTTP. Each session is one video; "
        "/docs says what may be asked.",
        "vos-deploy-serve --model stm/ --port 8766\n"
        "  vos-deploy-serve --model stm/ --host 0.0.0.0 --token 'a long secret'",
    )
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        help="model folder, or a .plan file built from one (default: the bundled demo model)",
    )
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="serve at this address, such as 0.0.0.0 for all",
    )
    add("--port", type=port, default=PORT, help="serve at this port; 0 for any that is free")
    add(
        "--token",
        metavar="TEXT",
        help="only who sends this as a bearer token is served (default: that of the environment "
        f"variable {TOKEN_VARIABLE}, or none)",
    )
    add(
        "--workers", type=positive, default=WORKERS, metavar="N",
        help="threads that decode pictures and follow objects",
    )  # fmt: skip
    add(
        "--memory-limit",
        metavar="SIZE",
        help="what the model and the states of all sessions may take together, such as 2GiB; what "
        "does not fit is refused",
    )
    add_flags(parser, Limits, {})
    add_segmenter_arguments(parser)
    return parser
