"""What can be told of the container files without building them."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

from vos_deploy.runtime.serving.command import parser
from vos_deploy.runtime.serving.operations import OPEN_PATHS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_container_file(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(images) == 2 and all(re.search(r":\d+\.\d+\.\d+-", image) for image in images)
    last = text[text.rindex("FROM ") :]
    assert re.findall(r"^USER (\d+)$", last, re.MULTILINE) == ["10001"]
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", last, re.MULTILINE)
    program, *arguments = json.loads(entry)
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert f"{program} = " in settings["options.entry_points"]["console_scripts"]
    args = parser().parse_args(arguments)
    (path,) = re.findall(rf"127\.0\.0\.1:{args.port}(/\w+)", last)
    assert path in OPEN_PATHS and f"EXPOSE {args.port}\n" in last
    for extras in re.findall(r"\[([a-z,]+)\]\"", text):
        for extra in extras.split(","):
            assert extra in settings["options.extras_require"]
    assert "://" not in text.replace("http://127.0.0.1", "")


def test_there_are_both() -> None:
    assert [file.suffix for file in FILES] == [".cpu", ".cuda"]
