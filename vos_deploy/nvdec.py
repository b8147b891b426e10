"""Streams decoded by the video unit of an NVIDIA GPU (NVDEC), by PyNvVideoCodec.

Written from its documentation and never run: no machine with such a unit was at hand. Frames come
to the host, as everything here expects them, so what is gained is the time of the CPU. Files are
left to FFmpeg, which knows their time stamps and which way up they are.
"""

import time
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from vos_deploy.arguments import HIGHEST_RATE
from vos_deploy.captures import Picture
from vos_deploy.errors import InputError
from vos_deploy.extras import install


class NvidiaCapture:
    """A stream by its URL.

    Raises OSError where there is none, and InputError without PyNvVideoCodec.
    """

    count: int | None = None
    finite = False

    def __init__(self, url: str) -> None:
        nvc = _library()
        try:
            demuxer = nvc.CreateDemuxer(filename=url)
            decoder = nvc.CreateDecoder(
                gpuid=0,
                codec=demuxer.GetNvCodecId(),
                usedevicememory=False,
                outputColorType=nvc.OutputColorType.RGB,
                latency=nvc.DisplayDecodeLatencyType.LOW,
            )
        except Exception as error:  # the library has no type of its own for them
            raise OSError(str(error)) from error
        rate = float(demuxer.FrameRate())
        self.fps = rate if 0 < rate <= HIGHEST_RATE else None
        self._pictures = _pictures(demuxer, decoder)

    def read(self) -> Picture | None:
        return next(self._pictures, None)

    def close(self) -> None:
        self._pictures = iter(())  # the last reference to demuxer and decoder: they close


def _library() -> ModuleType:
    try:
        return import_module("PyNvVideoCodec")
    except ImportError as error:
        raise InputError(
            f"--decoder nvdec needs PyNvVideoCodec and an NVIDIA driver ({error}): install it with "
            f"{install('nvdec')}, or leave --decoder out"
        ) from error


def _pictures(demuxer: Any, decoder: Any) -> Iterator[Picture]:
    try:
        for packet in demuxer:
            arrived = time.perf_counter()
            for decoded in decoder.Decode(packet):
                # A copy: the decoder uses its surfaces again.
                yield Picture(np.array(np.from_dlpack(decoded), np.uint8), None, arrived)
    except Exception:  # as above; the source then looks whether the stream comes back
        return
