"""What is printed to be installed can be."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from vos_deploy.extras import ROOT, install


def test_from_the_checkout_and_from_elsewhere(monkeypatch, tmp_path):
    assert (ROOT / "setup.cfg").is_file()
    monkeypatch.chdir(ROOT)
    assert install("page") == 'pip install -e ".[page]"'
    monkeypatch.chdir(tmp_path)
    assert install("page") == f'pip install -e "{ROOT}[page]"'


def test_extras_that_messages_name_exist():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"].keys()
    folders = ("vos_deploy", "runtime", "export", "train", "benchmarks")
    paths = [path for folder in folders for path in Path(ROOT / folder).rglob("*.py")]
    named = {
        name for path in paths for name in re.findall(r"\binstall\([\"'](\w+)", path.read_text())
    }
    assert {"page", "serve", "ray", "export"} <= named <= extras
    assert not [path for path in paths if "vos_deploy[" in path.read_text()]
