"""What one page wishes, carried out one thing at a time: held keys, aimed sliders, and single actions such as undo.

To drive is a state (this key is held, this is where the joint should go), never a queue: a simulator that is slower
than the hand skips, it doesn't fall behind. All pages share one worker thread, which serves them in turn; the event
loop only waits.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from robosim.errors import RobosimError
from robosim.viewer.play.session import PlaySession, View

STILL = -1
"""What is held in place of a code while the arm is to stay where it was last commanded."""

SETTLED = 0.02
"""A part counts as arrived this close to its command (rad, or the unit of the part)."""

SETTLING_STEPS = 5
"""Frames that the arm may take, behind a command that has reached its target, until it counts as arrived."""

RATE_SECONDS = 3.0
"""Frames/s are those of the last seconds; a pause of `PAUSE_SECONDS` starts the count again."""

PAUSE_SECONDS = 1.0

ACTIONS = 4
"""Actions that may wait behind a busy one; an older one is dropped."""

UNSEEN_SECONDS = 1.0
"""A page that hasn't drawn the last picture is sent no other for so long."""


@dataclass(frozen=True)
class Shown:
    """A view ready for the page: pictures as data URIs, and the rate (frames/s; None outside driving)."""

    view: View
    frame: str
    twin: str | None
    rate: float | None


class Driver:
    """Carries out a page's wishes on its session. All methods are called on the event loop.

    `show` gets every new view, `say` every sentence about what went wrong. `period` is the least time between two
    steps in seconds (0: as fast as it goes).
    """

    def __init__(
        self,
        session: PlaySession,
        worker: Executor,
        show: Callable[[Shown], None],
        say: Callable[[str], None],
        period: float,
    ) -> None:
        self.session = session
        self._worker, self._show, self._say, self._period = worker, show, say, period
        self._view = session.view()
        self._held: int | None = None
        self._tapped: int | None = None
        self._target_J: np.ndarray | None = None
        self._commanded_J: np.ndarray | None = None
        self._settling = 0
        self._actions: deque[Callable[[], View]] = deque(maxlen=ACTIONS)
        self._wake, self._seen = asyncio.Event(), asyncio.Event()
        self._seen.set()
        self._shown_frame = ""
        self._moments: deque[float] = deque()

    # What the page wishes

    def hold(self, what: int) -> None:
        """A latent action's key (or `STILL`) went down: at least one step, and more until it goes up."""
        self._held = self._tapped = what
        self._target_J = None
        self._wake.set()

    def release(self) -> None:
        """No key is held any more."""
        self._held = None

    def aim(self, joint: int, value: float) -> None:
        """Joint `joint` is to go to `value`; the others go on to where they were sent."""
        target_J = self._view.command.copy() if self._target_J is None else self._target_J.copy()
        target_J[joint] = np.clip(value, self.session.low[joint], self.session.high[joint])
        self._target_J, self._commanded_J, self._held = target_J, None, None
        self._settling = SETTLING_STEPS
        self._wake.set()

    def do(self, action: Callable[[], View]) -> None:
        """Carry out one action next, and stop driving."""
        self._actions.append(action)
        self.stop()
        self._wake.set()

    def stop(self) -> None:
        """Let go of everything: the arm stays where it is."""
        self._held = self._tapped = self._target_J = None

    def seen(self) -> None:
        """The page has drawn the last picture."""
        self._seen.set()

    @property
    def view(self) -> View:
        """What the page shows."""
        return self._view

    @property
    def aiming(self) -> bool:
        """Whether sliders say where the arm is to go, rather than where it is."""
        return self._target_J is not None

    # Carrying it out

    async def run(self) -> None:
        """Serve the page until cancelled."""
        await self._carry_out(self.session.view, driven=False)
        due = 0.0
        while True:
            action = self._actions.popleft() if self._actions else None
            work = action or self._next_step()
            if work is None:
                self._wake.clear()
                await self._wake.wait()
                # A rest is no time to take back: a key that is tapped after it would give two steps at once.
                due = time.perf_counter()
                continue
            driven = work is not action
            await self._carry_out(work, driven)
            if driven:
                # Not a pause after each step: what one step lost to the machine, the next may take back.
                due = max(due + self._period, time.perf_counter() - self._period)
                await asyncio.sleep(due - time.perf_counter())

    def _next_step(self) -> Callable[[], View] | None:
        """The step of the session that the page wishes, or None where it wishes none."""
        what = self._tapped if self._held is None else self._held
        self._tapped = None
        if what is not None:
            still = partial(self.session.command, self._view.command)
            return still if what == STILL else partial(self.session.press, what)
        if self._target_J is None:
            return None
        if self._commanded_J is not None and np.array_equal(self._view.command, self._commanded_J):
            # The session moves a command no further than the adapter knows; this one has come as far as it goes.
            arrived = np.abs(self._view.joints - self._target_J).max() < SETTLED
            self._settling -= 1
            if arrived or self._settling < 0:
                self._target_J = None
                return None
        self._commanded_J = self._view.command
        return partial(self.session.command, self._target_J)

    async def _carry_out(self, work: Callable[[], View], driven: bool) -> None:
        try:
            view, frame, twin = await asyncio.get_running_loop().run_in_executor(self._worker, _draw, work)
        except RobosimError as error:
            self.stop()
            self._say(str(error))
            return
        except Exception as error:
            self.stop()
            logging.getLogger(__name__).exception("robosim play")
            self._say(f"Something broke inside robosim ({type(error).__name__}); the terminal says more.")
            return
        self._view = view
        if not self._seen.is_set():
            await _at_most(self._seen.wait(), UNSEEN_SECONDS)
        if frame != self._shown_frame:
            self._shown_frame = frame
            self._seen.clear()
        self._show(Shown(view, frame, twin, self._rate() if driven else None))

    def _rate(self) -> float | None:
        now = time.perf_counter()
        if self._moments and now - self._moments[-1] > PAUSE_SECONDS:
            self._moments.clear()
        self._moments.append(now)
        while now - self._moments[0] > RATE_SECONDS:
            self._moments.popleft()
        span = now - self._moments[0]
        return (len(self._moments) - 1) / span if span > 0 else None


def _draw(work: Callable[[], View]) -> tuple[View, str, str | None]:
    """Runs in the worker: the view that `work` gives, and its pictures as PNG data URIs."""
    view = work()
    return view, data_uri(view.frame), None if view.twin is None else data_uri(view.twin)


def data_uri(frame: np.ndarray) -> str:
    """uint8 [H, W, 3] as a PNG in a data URI."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


async def _at_most(waiting, seconds: float) -> None:
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return
