"""A server on loopback whose streams break off, change and carry garbage, as they are told to."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import cv2
import numpy as np

BOUNDARY = "frame"
TRANSPORT_STREAM = "video/mp2t"
MOTION_JPEG = f"multipart/x-mixed-replace;boundary={BOUNDARY}"


def transport_stream(frames: Sequence[Any], fps: int = 25) -> bytes:
    """Frames, uint8 [H, W, 3], as H.264 in MPEG-TS; each can be decoded by itself."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "1", "preset": "ultrafast", "tune": "zerolatency"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def motion_jpeg(frames: Sequence[Any]) -> bytes:
    """Frames as the parts of a multipart answer, which is how cameras send them."""
    parts = []
    for frame in frames:
        picture = cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes()
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        parts.append(head.encode() + picture + b"\r\n")
    return b"".join(parts)


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


class Streams:
    """connections: what is sent to the first, the second, ... who connects, each piece after a
    pause; later ones are refused. connected: how many there were."""

    def __init__(self, kind: str, connections: Sequence[Sequence[bytes]], pause: float) -> None:
        self.connected = 0
        self.url = ""
        self._kind, self._connections, self._pause = kind, connections, pause
        self._stop = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        number, self.connected = self.connected, self.connected + 1
        if number >= len(self._connections):
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", self._kind)
        request.end_headers()
        for piece in self._connections[number]:
            if self._stop.is_set():
                return
            try:
                request.wfile.write(piece)
            except OSError:  # who listened went away
                return
            time.sleep(self._pause)

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def serve(
    kind: str, connections: Sequence[Sequence[bytes]], pause: float = 0.05
) -> Iterator[Streams]:
    streams = Streams(kind, connections, pause)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            streams.answer(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    streams.url = f"http://127.0.0.1:{server.server_address[1]}/live"
    try:
        yield streams
    finally:
        streams.stop()
        server.shutdown()
        server.server_close()
        thread.join()
