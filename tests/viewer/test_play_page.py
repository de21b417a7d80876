"""The play page in a real headless Chromium, against `robosim play` in a process of its own on a toy run."""

from __future__ import annotations

import base64
import http.client
import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.viewer.play_server import Server, Wire, no_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

slow = pytest.mark.slow
"""All but one test: that there is a page, and that a key moves the arm, is seen at every run."""

FRAME, TWIN, STATUS = "img.frame", "img.twin", "[data-test=status]"
PATIENCE = 20_000
"""Milliseconds after which a page that should have changed counts as stuck."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from playwright import sync_api as playwright
    except ImportError as error:
        no_browser(error)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            no_browser(error)
        yield started
        started.close()


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory) -> Iterator[Server]:
    server = Server(run, tmp_path_factory.mktemp("played"))
    yield server
    if server.process.poll() is None:
        server.end()


@pytest.fixture(scope="module")
def open_page(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Open the page, in a browser of its own each time; `asked` collects the addresses that it asks for."""
    contexts = []

    def open_page(port: int = server.port, asked: list[str] | None = None) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        asked = [] if asked is None else asked
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda websocket: asked.append(websocket.url))
        page.on("pageerror", lambda error: asked.append(f"an error: {error}"))
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector(f"{FRAME}[src^='data:image/png']")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page) -> Iterator[Page]:
    """A page that stands at the first frame of a held-out episode.

    A new page for each test: on one that has been there before, the words "from episode" could still be the last
    start's, and the test would begin before its own start has happened.
    """
    page = open_page()
    assert "from episode" not in page.inner_text(STATUS)
    page.click("[data-test=start-dataset]")
    wait_for_text(page, STATUS, "from episode")
    yield page
    page.context.close()


def source(page: Page, picture: str = FRAME) -> str:
    return page.get_attribute(picture, "src") or ""


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def changed(page: Page, before: str, picture: str = FRAME) -> str:
    """Wait until the picture isn't `before`; returns what it is then."""
    page.wait_for_function(
        "([picture, before]) => document.querySelector(picture).src !== before", arg=[picture, before]
    )
    return source(page, picture)


def wait_for_text(page: Page, selector: str, text: str) -> None:
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector).textContent.includes(text)",
        arg=[selector, text],
    )


def step_of(page: Page) -> int:
    return int(page.inner_text("[data-test=step]").split()[-1])


def drop(page: Page, name: str, data: bytes) -> None:
    """Let a file fall onto the page, as a hand would."""
    transfer = page.evaluate_handle(
        """([name, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [name, base64.b64encode(data).decode()],
    )
    page.dispatch_event(".left", "dragenter", {"dataTransfer": transfer})
    page.dispatch_event(".left", "drop", {"dataTransfer": transfer})


def picture_file(width: int, height: int, kind: str) -> bytes:
    """A picture of a bright disc on a gradient."""
    y, x = np.mgrid[:130, :130] / 130
    disc = (x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.05
    picture = Image.fromarray(np.stack([255 * x, 255 * y, 255 * disc], -1).astype(np.uint8))
    file = io.BytesIO()
    picture.resize((width, height)).save(file, kind)
    return file.getvalue()


def choose(page: Page, path: Path) -> None:
    """Pick a file by the page's own dialogue."""
    with page.expect_file_chooser() as chooser:
        page.click("[data-test=drop]")
    chooser.value.set_files(path)


def test_the_page_loads_obeys_a_key_and_asks_no_one_but_this_machine(open_page, server: Server):
    asked: list[str] = []
    page = open_page(asked=asked)
    before = source(page)
    assert pixels(before).std() > 0
    page.keyboard.press("1")
    changed(page, before)
    assert step_of(page) >= 1
    addresses = [url for url in asked if not url.startswith(("data:", "blob:"))]
    ours = (f"http://127.0.0.1:{server.port}/", f"ws://127.0.0.1:{server.port}/")
    assert any(url.startswith("ws:") for url in addresses)
    assert [url for url in addresses if not url.startswith(ours)] == []
    # Everything is in sight at 1280 × 800.
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    page.context.close()


@slow
def test_a_held_button_goes_on_until_it_is_let_go(page: Page):
    button = page.locator("[data-hold='2']")
    button.hover()
    page.mouse.down()
    page.wait_for_function(
        "Number(document.querySelector('[data-test=step]').textContent.split(' ')[1]) >= 5"
    )
    page.mouse.up()
    wait_for_rest(page)
    assert re.fullmatch(r"\d+\.\d frames/s", page.inner_text("[data-test=rate]"))


def wait_for_rest(page: Page, pause: int = 600) -> int:
    """Wait until nothing moves for `pause` milliseconds; returns the step."""
    step = -1
    while step != (step := step_of(page)):
        page.wait_for_timeout(pause)
    return step


@slow
def test_a_dragged_slider_commands_its_joint(page: Page):
    before = source(page)
    told = float(page.locator(".joints .number").nth(0).inner_text())
    drag_first_slider(page)
    changed(page, before)
    page.wait_for_function(
        "(told) => Number(document.querySelector('.joints .number').textContent) > told + 0.05", arg=told
    )


@slow
def test_physics_takes_the_same_commands_beside(page: Page):
    page.click("[data-test=start-physics]")
    wait_for_text(page, STATUS, "from MuJoCo")
    page.wait_for_selector(f"{TWIN}[src^='data:image/png']")
    frame, twin = source(page), source(page, TWIN)
    assert pixels(twin).shape == pixels(frame).shape and pixels(twin).std() > 0
    drag_first_slider(page)
    changed(page, frame)
    changed(page, twin, TWIN)


def drag_first_slider(page: Page) -> None:
    slider, thumb = (
        page.locator(f"[data-joint='0']{part}").bounding_box() for part in ("", " .q-slider__thumb")
    )
    assert slider and thumb
    page.mouse.move(thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2)
    page.mouse.down()
    for part in (0.7, 0.8, 0.9):
        page.mouse.move(slider["x"] + part * slider["width"], slider["y"] + slider["height"] / 2)
    page.mouse.up()


@slow
def test_a_dropped_picture_is_the_new_start(page: Page):
    before = source(page)
    drop(page, "sketch.png", picture_file(90, 60, "PNG"))
    wait_for_text(page, STATUS, "sketch.png")
    changed(page, before)
    assert step_of(page) == 0


@slow
def test_a_text_file_named_png_gets_a_sentence_and_the_page_goes_on(page: Page):
    before = source(page)
    drop(page, "notes.png", b"not a picture at all\n" * 20)
    page.wait_for_selector(f"{STATUS}.wrong")
    assert "notes.png" in page.inner_text(STATUS)
    assert source(page) == before
    page.keyboard.press("2")
    changed(page, before)
    assert page.locator(f"{STATUS}.wrong").count() == 0


@slow
def test_a_photo_of_20_megapixels_is_taken(page: Page, tmp_path: Path):
    before = source(page)
    (tmp_path / "photo.jpg").write_bytes(picture_file(5200, 3900, "JPEG"))
    choose(page, tmp_path / "photo.jpg")
    wait_for_text(page, STATUS, "photo.jpg")
    changed(page, before)


@slow
def test_a_file_that_is_too_large_gets_a_sentence(page: Page, tmp_path: Path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(41 << 20)
    choose(page, tmp_path / "huge.png")
    wait_for_text(page, STATUS, "larger than 40 MB")


@slow
def test_undo_gives_the_earlier_picture_back_exactly(page: Page):
    frames = [source(page)]
    for key in "12":
        page.keyboard.press(key)
        frames.append(changed(page, frames[-1]))
    page.keyboard.press("u")
    assert changed(page, frames[2]) == frames[1]
    page.click("[data-test=undo]")
    assert changed(page, frames[1]) == frames[0]
    page.wait_for_selector("[data-test=undo][disabled]")
    page.keyboard.press("1")
    assert changed(page, frames[0]) == frames[1], "the same key from the same state gives the same picture"


@slow
def test_space_holds_the_arm_and_not_the_button_that_was_clicked_last(page: Page):
    """`page` has just clicked Start, which keeps the focus: pressed again, it would start anew."""
    frame = source(page)
    page.keyboard.press("1")
    frame = changed(page, frame)
    page.keyboard.press(" ")
    changed(page, frame)
    assert step_of(page) >= 2


@slow
def test_a_branch_leaves_the_other_where_it_was(page: Page):
    first = source(page)
    page.keyboard.press("1")
    here = changed(page, first)
    page.click("[data-test=branch]")
    page.wait_for_selector("[data-test=branches] .chosen:has-text('branch')")
    page.keyboard.press("3")
    changed(page, here)
    page.click("[data-test=branches] .chip:has-text('main')")
    page.wait_for_function(
        "([picture, here]) => document.querySelector(picture).src === here", arg=[FRAME, here]
    )
    assert step_of(page) == 1


@slow
def test_two_pages_are_independent(page: Page, open_page):
    other = open_page()
    mine, theirs = source(page), source(other)
    other.keyboard.down("4")
    changed(other, theirs)
    page.keyboard.press("5")
    changed(page, mine)
    other.keyboard.up("4")
    assert wait_for_rest(other) > wait_for_rest(page) == 1
    other.context.close()


@slow
def test_a_dropped_connection_comes_back_to_the_same_session(open_page, server: Server):
    wire = Wire(server.port)
    page = open_page(wire.port)
    first = source(page)
    page.keyboard.press("1")
    second = changed(page, first)
    page.keyboard.down("2")
    changed(page, second)
    wire.cut()
    page.wait_for_selector("#popup[aria-hidden=false]")
    assert "Reconnecting" in page.inner_text("#popup")
    time.sleep(1)
    wire.mend()
    page.wait_for_selector("#popup[aria-hidden=true]", state="attached")
    page.keyboard.up("2")
    step = wait_for_rest(page, 2000)  # longer than a driver waits for a page that draws nothing
    assert step >= 2, "the session was kept"
    for _ in range(step):  # a late frame may still come in between: the last one back is the first picture
        page.keyboard.press("u")
        page.wait_for_timeout(300)
    wait_for_rest(page, 2000)
    while step_of(page) > 0:
        before = source(page)
        page.keyboard.press("u")
        changed(page, before)
    assert source(page) == first, "the whole way back, through the time without a connection"
    page.context.close()


@slow
@pytest.mark.parametrize("kind, welcome", [("polling", 200), ("websocket", 101)])
def test_a_page_of_another_site_is_refused(server: Server, kind: str, welcome: int):
    key = base64.b64encode(bytes(16)).decode()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = upgrade | {"Sec-WebSocket-Key": key} if kind == "websocket" else {}
    for origin, answer in ((f"http://127.0.0.1:{server.port}", welcome), ("http://evil.example", 403)):
        line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        path = f"/_nicegui_ws/socket.io/?EIO=4&transport={kind}"
        line.request("GET", path, headers=headers | {"Origin": origin})
        assert line.getresponse().status == answer
        line.close()


@slow
def test_a_recording_is_written_and_opens(page: Page, server: Server):
    from robosim_datasets.lerobot_io import open_dataset

    page.click("[data-test=record]")
    page.wait_for_selector("[data-test=record].on")
    frame = source(page)
    for key in "123":
        page.keyboard.press(key)
        frame = changed(page, frame)
    wait_for_text(page, "[data-test=record]", "3 steps")
    page.click("[data-test=record]")
    page.wait_for_selector("[data-test=record]:not(.on)")
    written = [Path(line) for line in page.inner_text("[data-test=where]").splitlines()]
    assert all(path.is_relative_to(server.out) for path in written)
    [folder] = [path for path in written if path.is_dir()]
    [film] = [path for path in written if path.suffix == ".rrd"]
    dataset = open_dataset(folder)
    assert [episode["length"] for episode in dataset.episodes] == [4]
    assert film.stat().st_size > 0


@slow
def test_ctrl_c_ends_it_at_once_and_says_what_was_recorded(run: Path, tmp_path: Path, open_page):
    server = Server(run, tmp_path)
    page = open_page(server.port)
    page.click("[data-test=record]")
    page.wait_for_selector("[data-test=record].on")
    page.keyboard.press("1")
    wait_for_text(page, "[data-test=record]", "1 step")
    said = server.end()
    assert server.process.returncode == 0
    assert "Traceback" not in said
    assert re.search(rf"made {re.escape(str(tmp_path))}\S+, {re.escape(str(tmp_path))}\S+\.rrd", said)
    assert "next: uv run rerun" in said
    page.wait_for_selector("#popup[aria-hidden=false]")
