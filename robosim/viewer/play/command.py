"""`robosim play`: a page on this machine on which a person drives a run's learned arm.

One process, one worker thread, one copy of the weights; every open page has a session of its own (see driver.py).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
import threading
import warnings
import webbrowser
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from nicegui import Client, background_tasks, ui
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from robosim.config import RunOptions, compose
from robosim.errors import ConfigError, RobosimError, UnsupportedError
from robosim.shipped import is_shipped, locate, shipped_names
from robosim.simulator import Simulator, load
from robosim.simulator.run_folder import Precision, check_sampling
from robosim.viewer.play.page import Page, add_head
from robosim.viewer.play.session import PlaySession

HOST = "127.0.0.1"

KEPT_SECONDS = 60.0
"""A page that lost its connection finds its session again for so long."""

PING_SECONDS = 10.0
"""NiceGUI's reconnect_timeout: a connection that was silent for about so long counts as lost."""

LINGER_SECONDS = 1
"""Time that open pages have to part when the command ends."""


@dataclass
class PlayConfig(RunOptions):
    """What to drive, and where the page is."""

    run: str = (
        ""  # folder or shipped name; takes the place of RunOptions.run, since `out` is for recordings here
    )
    port: int = 8420
    browser: bool = True
    steps: int | None = None
    precision: Precision = "float32"
    rate: float | None = None

    def __post_init__(self) -> None:
        if not self.run and (shipped := shipped_names()):
            self.run = shipped[0]
        if not self.run:
            runs = sorted(str(path.parent) for path in Path("runs").glob("*/dynamics"))
            here = f"here are {', '.join(runs)}" if runs else "robosim demo makes one"
            raise ConfigError(f"run is empty; name a run folder: run=runs/NAME ({here})")
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"port must be 0 (any free one) to 65535, not {self.port}")
        check_sampling(self.steps)
        if self.rate is not None and not self.rate >= 0:  # nor NaN
            raise ConfigError(f"rate must be 0 (as fast as it goes) or more frames/s, not {self.rate}")


def leave_a_core() -> None:
    """The browser draws on these cores too: two threads of ours beside it make fewer frames than one.

    Called in the worker, because a thread takes over OpenMP's own count, whatever another one has set.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def play_command(command: str, overrides: Sequence[str]) -> None:
    """Serve the page until Ctrl-C; say at the end what was recorded."""
    config = compose(command, PlayConfig, overrides)
    listener = listen(config.port)  # before the weights: a taken port is known at once
    run = locate(config.run)
    out = Path(config.out).expanduser() if config.out else default_out(run)
    simulator = load(run, device=config.device, steps=config.steps, precision=config.precision)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"the learned arm of {config.run} is at {address}; Ctrl-C ends it", flush=True)
    if config.browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    player = Player(simulator, out, config)
    try:
        player.serve(listener)
    except KeyboardInterrupt:
        pass  # uvicorn has ended the server by then and hands Ctrl-C on
    finally:
        player.close()
    if player.recorded or not player.unfinished:
        report(player.recorded)


def default_out(run: Path) -> Path:
    """Where recordings go: into the run; of a shipped simulator into runs/, since the package isn't the user's."""
    return Path("runs") / run.name / "play" if is_shipped(run) else run / "play"


class Player:
    """The simulator, and the pages that are open on it."""

    def __init__(self, simulator: Simulator, out: Path, config: PlayConfig) -> None:
        self.recorded: list[Path] = []
        self.unfinished: list[Path] = []
        self._simulator, self._out, self._seed = simulator, out, config.seed
        rate = simulator.spec.fps if config.rate is None else config.rate
        self._period = 1 / rate if rate else 0.0
        self._worker = ThreadPoolExecutor(1, "play", initializer=leave_a_core)
        self._pages: list[Page] = []

    def serve(self, listener: socket.socket) -> None:
        """Serve pages on a bound socket until a signal ends it."""
        app = FastAPI(openapi_url=None)
        # A page of another site may reach this server neither under a name of its own (DNS rebinding) nor as itself.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        app.add_middleware(OwnPagesOnly)
        ui.page("/", title="robosim play", reconnect_timeout=KEPT_SECONDS)(self.open)
        ui.run_with(
            app, dark=True, tailwind=False, reconnect_timeout=PING_SECONDS, show_welcome_message=False
        )
        # Looking for its server, NiceGUI touches every object in memory, and some of torch's warn when touched.
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="critical", timeout_graceful_shutdown=LINGER_SECONDS, ws_max_size=2**22
            )
        )
        server.run(sockets=[listener])

    async def open(self, client: Client) -> None:
        """A page was opened: give it a session once its browser is there."""
        add_head()
        waiting = ui.label("Preparing the arm …").classes("waiting")
        await client.connected()
        try:
            session = await asyncio.get_running_loop().run_in_executor(
                self._worker, PlaySession, self._simulator, self._out, self._seed
            )
        except RobosimError as error:
            waiting.text = f"This page can't start: {error}"
            return
        except Exception as error:
            waiting.text = f"This page can't start ({type(error).__name__}); the terminal says more."
            raise
        if client.is_deleted:  # the page was closed meanwhile
            self._worker.submit(session.close)
            return
        waiting.delete()
        recorded = self.recorded.extend
        page = Page(session, self._simulator.name, self._worker, self._period, recorded)
        self._pages.append(page)
        driving = background_tasks.create(page.driver.run(), name="play")
        client.on_disconnect(page.driver.stop)
        client.on_delete(partial(self._leave, page, driving))

    def _leave(self, page: Page, driving: asyncio.Task) -> None:
        """A page is gone for good."""
        driving.cancel()
        self._pages.remove(page)
        self._worker.submit(self._end, page)

    def close(self) -> None:
        """End all sessions; what was being recorded is written down."""
        for page in self._pages:
            self._worker.submit(self._end, page)
        self._worker.shutdown()

    def _end(self, page: Page) -> None:
        """Runs in the worker: write down what a page was recording, and free its session.

        What goes wrong is said here: the page that could say it is gone.
        """
        folder = page.session.recording_folder
        try:
            if folder is not None:
                page.stop_recording()
        except Exception as error:
            if not isinstance(error, RobosimError):
                logging.getLogger(__name__).exception("robosim play")
            assert folder is not None
            self.unfinished.append(folder)
            print(
                f"what was recorded in {folder} isn't finished: {error}\n"
                "its steps are kept there as far as they could be written; the next robosim play finishes it",
                file=sys.stderr,
                flush=True,
            )
        finally:
            page.session.close()


class OwnPagesOnly:
    """Refuses what a page of another site asks for. Browsers name the page's site in `Origin`, and the server that they
    ask in `Host`, which `TrustedHostMiddleware` holds to this machine; programs that are no browsers send no `Origin`.

    NiceGUI's websocket takes any origin, and a page's own port may be forwarded: so the two must be the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else {}
        origin = headers.get("origin")
        if origin is None or origin == f"http://{headers.get('host')}":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = PlainTextResponse("robosim play answers its own page alone", status_code=403)
            await refusal(scope, receive, send)
        else:
            await receive()  # the wish to connect; the server turns the refusal into 403
            await send({"type": "websocket.close", "code": 1008})


def listen(port: int) -> socket.socket:
    """A socket bound to `port` of this machine alone (0: any free one)."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UnsupportedError(
                f"port {port} is in use, perhaps by another robosim play; end that one, or take port=0 for a free port"
            ) from error
        if error.errno == errno.EACCES:
            raise UnsupportedError(
                f"port {port} needs more rights than you have; take port=0 for a free one"
            ) from error
        raise
    return listener


def report(recorded: Sequence[Path]) -> None:
    """Say what was recorded and what to do with it."""
    if not recorded:
        print("nothing was recorded")
        return
    print("made", ", ".join(map(str, recorded)))
    films = [path for path in recorded if path.suffix == ".rrd"]
    if films:
        print(f"next: uv run rerun {films[-1]}")
