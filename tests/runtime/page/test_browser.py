"""The page in a browser, as somebody uses it who has never seen it."""

from __future__ import annotations

import io
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vos_deploy.runtime.run import command as run

from .browser import SECONDS, chromium, served, wait

pytestmark = pytest.mark.browser

DEMO = Path(__file__).parents[3] / "demo"
FRAMES = 28
WATCHED, REMOVED = 20, 23
# In pixels of the frame: a broad line over the horse, and a box around a bush.
STROKE = [(150, 240), (290, 235), (330, 190), (200, 225)]
SECOND = [215, 365, 190, 105]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with the demonstration clip, cut short."""
    folder = tmp_path / "videos" / "horse"
    folder.mkdir(parents=True)
    for file in sorted((DEMO / "frames").iterdir())[:FRAMES]:
        shutil.copy(file, folder)
    return tmp_path / "videos"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "downloads") as browser:
        yield browser


def by(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def drag(browser: Any, points: list[tuple[int, int]]) -> None:
    """Draw on the picture along points of the frame."""
    from selenium.webdriver.common.action_chains import ActionChains

    picture = by(browser, "#picture")
    scale = picture.size["width"] / browser.execute_script("return window.app.view.shown.width")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)

    def offset(point: tuple[int, int]) -> tuple[int, int]:  # from the middle of the picture
        middle = picture.size["width"] / 2, picture.size["height"] / 2
        x, y = (round(scale * side - half) for side, half in zip(point, middle, strict=True))
        return x, y

    actions = ActionChains(browser, duration=50).move_to_element_with_offset(
        picture, *offset(points[0])
    )
    actions.click_and_hold()
    for point in points[1:]:
        actions.move_to_element_with_offset(picture, *offset(point))
    actions.release().perform()


def touch(browser: Any, points: list[tuple[int, int]]) -> None:
    """Draw on the picture with a finger along points of the frame."""
    left, top, scale = browser.execute_script(
        "const { left, top, width } = document.getElementById('picture').getBoundingClientRect();"
        "return [left, top, width / window.app.view.shown.width]"
    )
    for kind, (x, y) in zip(("touchStart", *["touchMove"] * len(points)), points, strict=False):
        where = {"type": kind, "touchPoints": [{"x": left + scale * x, "y": top + scale * y}]}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", where)
    end = {"type": "touchEnd", "touchPoints": []}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", end)


def open_clip(browser: Any, address: str) -> None:
    browser.get(address)
    wait(browser, lambda state: state["run"], "the server's first word")
    for button in browser.find_elements("css selector", "#videos button"):
        if button.text == "horse":
            break
    else:
        time.sleep(0.5)
        button = by(browser, "#videos button")
    button.click()
    wait(browser, lambda state: state["source"], "the clip")
    shown(browser, 0)


def shown(browser: Any, index: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    script = "return window.app.view.shown?.index"
    WebDriverWait(browser, SECONDS, 0.05).until(
        lambda _: browser.execute_script(script) == index, f"frame {index} on the page"
    )


def step_to(browser: Any, index: int) -> None:
    """By the key, a frame at a time."""
    for number in range(browser.execute_script("return window.app.state.source.index"), index):
        by(browser, "body").send_keys(".")
        wait(browser, lambda s, n=number: s["source"]["index"] == n + 1, f"frame {number + 1}")


def downloaded(browser: Any, tmp_path: Path) -> dict[str, bytes]:
    """The masks, by the link on the page."""
    path = tmp_path / "downloads" / "masks.zip"
    by(browser, "#masks-zip").click()
    for _ in range(100 * SECONDS):
        if path.exists():
            break
        time.sleep(0.01)
    with zipfile.ZipFile(path) as archive:
        return {Path(name).stem: archive.read(name) for name in archive.namelist()}


def ids(content: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(content)))


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_mark_watch_add_remove_reload_download(browser: Any, videos: Path, tmp_path: Path) -> None:
    with served("--videos", str(videos)) as address:
        open_clip(browser, address)
        by(browser, "#tool-buttons [data-tool=brush]").click()
        by(browser, "body").send_keys("]" * 5)
        drag(browser, STROKE)
        wait(browser, lambda s: s["objects"] and s["objects"][0]["marked"], "a marked object")
        step_to(browser, WATCHED)
        assert browser.execute_script("return window.app.state.objects[0].seen") > 15

        browser.find_element("css selector", "#add").click()
        wait(browser, lambda state: len(state["objects"]) == 2, "a second object")
        by(browser, "#tool-buttons [data-tool=box]").click()
        x, y, width, height = SECOND
        drag(browser, [(x, y), (x + width, y + height)])
        state = wait(browser, lambda state: state["marks"]["prompts"], "a box")
        (prompt,) = state["marks"]["prompts"]
        step_to(browser, REMOVED)
        by(browser, "#objects li[data-id='1'] button[aria-label^=Remove]").click()
        wait(browser, lambda state: state["objects"][0]["removed"], "a removal")
        by(browser, "#objects li[data-id='2'] input").send_keys(" the shop\n")
        wait(browser, lambda state: "shop" in state["objects"][1]["name"], "a name")

        # All of it is the server's: another page, or this one anew, shows the same.
        browser.refresh()
        state = wait(browser, lambda state: state["source"], "the state after a reload")
        assert state["source"]["index"] == REMOVED and "shop" in state["objects"][1]["name"]
        shown(browser, REMOVED)
        step_to(browser, FRAMES - 1)
        masks = downloaded(browser, tmp_path)
        assert not errors(browser)
    assert len(masks) == FRAMES
    check_against_the_command_line(masks, prompt["box"], videos / "horse", tmp_path)


def check_against_the_command_line(
    masks: dict[str, bytes], box: list[float], frames: Path, tmp_path: Path
) -> None:
    """The same prompts give the same masks, byte by byte; only that the page clears an object in
    the frame in which it is removed, and the command line from the next one on."""
    (tmp_path / "first.png").write_bytes(masks["00000"])
    corners = ",".join(str(round(side)) for side in box)
    arguments = ["--video", frames, "--mask", tmp_path / "first.png", "--output", tmp_path / "out"]
    arguments += ["--box", f"2={corners}@{WATCHED}", "--remove", f"1@{REMOVED + 1}"]
    arguments += ["--no-overlay", "--threads", 1]
    assert run.main([str(argument) for argument in arguments]) == 0
    for name, content in masks.items():
        written = (tmp_path / "out" / "masks" / f"{name}.png").read_bytes()
        if int(name) == REMOVED:
            there, here = ids(written), ids(content)
            np.testing.assert_array_equal(here, np.where(there == 1, 0, there))
            assert (there == 1).any()
        else:
            assert content == written, name


def test_without_a_mouse(browser: Any, videos: Path) -> None:
    """A box by the arrows and Enter; play and pause by the space bar."""
    from selenium.webdriver.common.keys import Keys

    with served("--videos", str(videos)) as address:
        open_clip(browser, address)
        by(browser, "body").send_keys("x")
        picture = by(browser, "#picture")
        browser.execute_script("arguments[0].focus()", picture)
        picture.send_keys(*[Keys.LEFT] * 8, *[Keys.UP] * 6, Keys.ENTER)
        picture.send_keys(*[Keys.RIGHT] * 16, *[Keys.DOWN] * 10, Keys.ENTER)
        state = wait(browser, lambda state: state["marks"]["prompts"], "a box by keys")
        *_, width, height = state["marks"]["prompts"][0]["box"]
        assert width > 100 and height > 50
        browser.find_element("css selector", "body").send_keys(Keys.CONTROL, "z")
        wait(browser, lambda state: not state["marks"]["prompts"], "an undo")
        browser.execute_script("document.activeElement.blur()")
        by(browser, "body").send_keys(" ")
        wait(browser, lambda state: state["playing"] or state["source"]["ended"], "play")
        by(browser, "body").send_keys(" ")
        wait(browser, lambda state: not state["playing"], "pause")
        unnamed = browser.execute_script(
            "return [...document.querySelectorAll('button, input, a')].filter((e) => e.offsetParent"
            " && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))"
            ".map((e) => e.outerHTML)"
        )
        assert unnamed == []
        assert not errors(browser)


def test_on_a_phone(videos: Path, tmp_path: Path) -> None:
    """Nothing is wider than the screen, and what is touched is large enough."""
    with (
        served("--videos", str(videos)) as address,
        chromium(tmp_path, width=500, height=900) as browser,
    ):
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        open_clip(browser, address)
        touch(browser, [(305, 78), (450, 200), (665, 292)])
        wait(browser, lambda s: s["objects"] and s["objects"][0]["marked"], "a marked object")
        assert browser.execute_script("return window.scrollY") == 0  # it was drawn, not scrolled
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        small = browser.execute_script(
            "return [...document.querySelectorAll('button, .button')].filter((e) => e.offsetParent"
            " && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML)"
        )
        assert small == []
        assert not errors(browser)


def test_another_address_needs_the_token(browser: Any, videos: Path) -> None:
    address_of_machine = address_elsewhere()
    token = "a long token"
    with served("--host", "0.0.0.0", "--token", token, "--videos", str(videos)) as printed:
        port = printed.rpartition(":")[2].partition("/")[0]
        page = f"http://{address_of_machine}:{port}/"
        for address in (page, f"{page}?token=wrong", f"{page}api/state", f"{page}static/app.js"):
            browser.get(address)
            assert by(browser, "body").text.startswith("refused: this page needs its token")
        browser.get(page + printed.rpartition("/")[2])
        wait(browser, lambda state: state["run"], "the page")
        assert browser.current_url == page  # the token is out of sight


def address_elsewhere() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])
