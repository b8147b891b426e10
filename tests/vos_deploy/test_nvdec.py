"""What is asked of PyNvVideoCodec, which decodes on a GPU; there is none here."""

import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.vos_deploy.conftest import SIZE, grey, number
from vos_deploy import live_source
from vos_deploy.errors import InputError
from vos_deploy.extras import install
from vos_deploy.video import open_source

URL = "rtsp://camera/1"


class Demuxer:
    """Three packets, each of one frame, and then an error, as of a network that went away."""

    def __init__(self, filename):
        if filename != URL:
            raise RuntimeError("no such stream")

    def GetNvCodecId(self):
        return "h264"

    def FrameRate(self):
        return 50.0

    def __iter__(self):
        yield from range(3)
        raise RuntimeError("went away")


class Decoder:
    """Decodes into one surface, which it uses again."""

    def __init__(self, **arguments):
        assert arguments == {
            "gpuid": 0,
            "codec": "h264",
            "usedevicememory": False,
            "outputColorType": "RGB",
            "latency": "LOW",
        }
        self.surface = np.empty((*SIZE, 3), np.uint8)

    def Decode(self, packet):
        self.surface[:] = grey(packet)
        return [self.surface]


@pytest.fixture
def library(monkeypatch):
    module = ModuleType("PyNvVideoCodec")
    module.CreateDemuxer = Demuxer
    module.CreateDecoder = Decoder
    module.OutputColorType = SimpleNamespace(RGB="RGB")
    module.DisplayDecodeLatencyType = SimpleNamespace(LOW="LOW")
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
    monkeypatch.setattr(live_source, "RECONNECT_DELAYS", ())
    monkeypatch.setattr(live_source.LiveSource, "_reconnects", False)  # drop nothing


@pytest.mark.usefixtures("library")
def test_a_stream_is_decoded_by_the_library():
    with open_source(URL, decoder="nvdec") as source:
        assert (source.size, source.fps) == (SIZE, 50)
        assert [number(frame) for frame in source] == [0, 1, 2]
    assert [event.kind for event in source.events] == ["lost", "ended"]


@pytest.mark.usefixtures("library")
def test_a_stream_that_is_not_there():
    with pytest.raises(InputError, match="nothing that can be decoded in rtsp://other/1"):
        open_source("rtsp://other/1", decoder="nvdec")


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    with pytest.raises(InputError, match=re.escape(install("nvdec"))):
        open_source(URL, decoder="nvdec")


def test_files_and_cameras_are_not_for_it(tmp_path):
    for spec in (tmp_path, "0"):
        with pytest.raises(InputError, match="is for streams"):
            open_source(spec, decoder="nvdec")
    with pytest.raises(InputError, match="decoder must be one of cpu, nvdec, got 'cuvid'"):
        open_source(URL, decoder="cuvid")
