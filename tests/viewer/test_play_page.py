"""The play page in a real headless Chromium, against `robosim play` in a process of its own on a toy run."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.toy_run import write_toy_run

playwright = pytest.importorskip("playwright.sync_api")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PLAY = ("-m", "robosim.cli", "play")
FRAME, TWIN, STATUS = "img.frame", "img.twin", "[data-test=status]"
PATIENCE = 20_000
"""Milliseconds after which a page that should have changed counts as stuck."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium here (install chromium, or: playwright install chromium): {error}")
        yield started
        started.close()


class Server:
    """`robosim play` in a process of its own, on a free port."""

    def __init__(self, run: Path, out: Path) -> None:
        command = [
            sys.executable,
            *PLAY,
            f"run={run}",
            f"out={out}",
            "port=0",
            "browser=false",
            "rate=0",
        ]
        self.out = out
        self.process = subprocess.Popen(
            [*command, "device=cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if address := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(address[1])
                return
        raise AssertionError("".join(said))

    def end(self) -> str:
        """Ctrl-C; returns what was printed since the address."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory) -> Path:
    return write_toy_run(tmp_path_factory.mktemp("run") / "toy")


@pytest.fixture(scope="module")
def server(toy_run: Path, tmp_path_factory) -> Iterator[Server]:
    server = Server(toy_run, tmp_path_factory.mktemp("played"))
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


@pytest.fixture(scope="module")
def shared_page(open_page) -> Page:
    return open_page()


@pytest.fixture
def page(shared_page: Page) -> Page:
    """A page that stands at the first frame of a held-out episode."""
    shared_page.keyboard.press("9")  # no key of the page's
    shared_page.click("[data-test=start-dataset]")
    wait_for_text(shared_page, STATUS, "from episode")
    return shared_page


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


def test_the_page_loads_and_asks_no_one_but_this_machine(open_page, server: Server):
    asked: list[str] = []
    page = open_page(asked=asked)
    assert pixels(source(page)).std() > 0
    addresses = [url for url in asked if not url.startswith(("data:", "blob:"))]
    ours = (f"http://127.0.0.1:{server.port}/", f"ws://127.0.0.1:{server.port}/")
    assert any(url.startswith("ws:") for url in addresses)
    assert [url for url in addresses if not url.startswith(ours)] == []
    # Everything is in sight at 1280 × 800.
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    page.context.close()


def test_a_key_moves_the_arm_once(page: Page):
    before = source(page)
    page.keyboard.press("1")
    changed(page, before)
    assert step_of(page) >= 1


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


def test_a_dragged_slider_commands_its_joint(page: Page):
    before = source(page)
    command = page.locator(".joints .number").nth(0)
    told = float(command.inner_text())
    slider, thumb = (
        page.locator(f"[data-joint='0']{part}").bounding_box() for part in ("", " .q-slider__thumb")
    )
    assert slider and thumb
    page.mouse.move(thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2)
    page.mouse.down()
    for part in (0.7, 0.8, 0.9):
        page.mouse.move(slider["x"] + part * slider["width"], slider["y"] + slider["height"] / 2)
    page.mouse.up()
    changed(page, before)
    page.wait_for_function(
        "(told) => Number(document.querySelector('.joints .number').textContent) > told + 0.05", arg=told
    )


def test_a_dropped_picture_is_the_new_start(page: Page):
    before = source(page)
    drop(page, "sketch.png", picture_file(90, 60, "PNG"))
    wait_for_text(page, STATUS, "sketch.png")
    changed(page, before)
    assert step_of(page) == 0


def test_a_text_file_named_png_gets_a_sentence_and_the_page_goes_on(page: Page):
    before = source(page)
    drop(page, "notes.png", b"not a picture at all\n" * 20)
    page.wait_for_selector(f"{STATUS}.wrong")
    assert "notes.png" in page.inner_text(STATUS)
    assert source(page) == before
    page.keyboard.press("2")
    changed(page, before)
    assert page.locator(f"{STATUS}.wrong").count() == 0


def test_a_photo_of_20_megapixels_is_taken(page: Page, tmp_path: Path):
    before = source(page)
    (tmp_path / "photo.jpg").write_bytes(picture_file(5200, 3900, "JPEG"))
    choose(page, tmp_path / "photo.jpg")
    wait_for_text(page, STATUS, "photo.jpg")
    changed(page, before)


def test_a_file_that_is_too_large_gets_a_sentence(page: Page, tmp_path: Path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(41 << 20)
    choose(page, tmp_path / "huge.png")
    wait_for_text(page, STATUS, "larger than 40 MB")


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


class Wire:
    """A line to `port` that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._sockets: list[socket.socket] = []
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole = False
        for end in self._sockets:
            end.close() if end.fileno() < 0 else end.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def mend(self) -> None:
        self._whole = True

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()


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
    page.keyboard.press("u")
    wait_for_text(page, "[data-test=step]", f"frame {step - 1}")
    page.context.close()


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


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once_and_says_what_was_recorded(toy_run: Path, tmp_path: Path, open_page):
    server = Server(toy_run, tmp_path)
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
