"""Which encoder writes a video, and that it gives every frame back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.clips import times_of
from vos_deploy.encoder import ENCODERS, Encoder, encoder_name
from vos_deploy.errors import InputError


@pytest.fixture(autouse=True)
def fresh() -> None:
    encoder_name.cache_clear()


def write(path: Path, size: tuple[int, int], times: list[float]) -> None:
    encoder = Encoder(path, size, 30)
    for seconds in times:
        encoder.write(np.full((*size, 3), 90, np.uint8), seconds)
    encoder.close()


def test_an_encoder_that_cannot_start_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As that of a GPU which is not there, or takes no frames of this size."""
    genuine = av.CodecContext.create

    def create(name: str, mode: str) -> object:
        if name == "h264_nvenc":
            raise av.ExternalError(1, "no capable devices found")
        return genuine(name, mode)

    monkeypatch.setattr("vos_deploy.encoder.av.CodecContext", type("", (), {"create": create}))
    assert encoder_name((48, 64)) == "libx264"
    write(tmp_path / "out.mp4", (48, 64), [0, 0.1])
    assert len(times_of(tmp_path / "out.mp4")[0]) == 2


def test_no_encoder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vos_deploy.encoder.av.codecs_available", set())
    with pytest.raises(InputError, match=r"no H\.264 encoder"):
        encoder_name((48, 64))


@pytest.mark.parametrize("size", [(2, 2), (16, 18), (48, 64), (20, 1600), (1080, 1920)])
def test_any_even_size(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "out.mp4", size, [0, 0.5, 0.6])
    times, lasts = times_of(tmp_path / "out.mp4")
    assert times == pytest.approx([0, 0.5, 0.6], abs=1e-4)
    assert lasts == pytest.approx(0.6 + 1 / 30, abs=2e-3)


@pytest.mark.gpu
def test_the_encoder_of_the_gpu(tmp_path: Path) -> None:
    if encoder_name((720, 1280)) != "h264_nvenc":
        pytest.skip("this GPU has no encoder")
    times = [index / 30 for index in range(90)]
    write(tmp_path / "out.mp4", (720, 1280), times)
    assert times_of(tmp_path / "out.mp4")[0] == pytest.approx(times, abs=1e-4)
    assert encoder_name((16, 16)) in ENCODERS
