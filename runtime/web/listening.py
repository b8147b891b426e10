"""Where a server listens, and the token it may ask for."""

from __future__ import annotations

import argparse
import socket

from vos_deploy.errors import InputError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SHORTEST_TOKEN = 8
EVERYWHERE = ("0.0.0.0", "::")


def port(text: str) -> int:
    """`8765`, as the type of an argument; 0 is any that is free."""
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, got {text!r}")
    return number


def listen(host: str, number: int, option: str) -> socket.socket:
    """A socket that listens. Raises InputError, which names the option of the port."""
    try:
        family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, number), family=family)
    except OSError as error:
        raise InputError(
            f"cannot serve at {host}, port {number} ({error.strerror or error}): choose another "
            f"with {option} PORT, or 0 for any"
        ) from error


def address(listening: socket.socket, host: str) -> str:
    """What leads there, such as http://127.0.0.1:8765/."""
    shown = f"[{host}]" if ":" in host else host
    if host in EVERYWHERE:
        shown = socket.gethostname()
    return f"http://{shown}:{listening.getsockname()[1]}/"


def check_token(token: str | None) -> None:
    """Raise InputError for one that keeps nobody out."""
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise InputError(f"--token must be at least {SHORTEST_TOKEN} ASCII characters")
