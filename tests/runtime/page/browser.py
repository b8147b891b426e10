"""A server of its own, and a Chromium without a screen that opens its page."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--force-color-profile=srgb", "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """`vos-deploy-run --serve` at a free port until the block ends; the address that it prints."""
    code = "import sys; from vos_deploy.runtime.run.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--serve", "0", "--threads", "1", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("the page is at http://"), line
        yield line.split()[4]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


@contextmanager
def chromium(downloads: Path, width: int = 1280, height: int = 860) -> Iterator[Any]:
    """A selenium driver; skips the test where there is no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    folder = {"download.default_directory": str(downloads)}
    options.add_experimental_option("prefs", folder | {"download.prompt_for_download": False})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def wait(browser: Any, done: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
    """Wait until the page has heard of a state that will do."""
    from selenium.webdriver.support.ui import WebDriverWait

    def heard(_: Any) -> Any:
        state = browser.execute_script("return window.app?.state")
        return state if state and done(state) else None

    return dict(WebDriverWait(browser, SECONDS, 0.05).until(heard, what))
