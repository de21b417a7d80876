"""What a page's wishes become, without a browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robosim.errors import RobosimError
from robosim.viewer.play.driver import STILL, Driver, Shown
from robosim.viewer.play.session import View

REACH = np.float32(0.25)


class Arm:
    """The part of a session that a driver calls: commands move by `REACH` at most, the arm obeys at once."""

    low, high = np.array([-1, 0], np.float32), np.array([1, 1], np.float32)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.commands: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._command = np.array([0, 0.5], np.float32)
        self._step = 0

    def view(self) -> View:
        frame = np.full((4, 4, 3), self._step, np.uint8)
        return View(
            frame, None, self._command, self._command, self._step, True, ("main",), "main", False, 0, ""
        )

    def press(self, code: int) -> View:
        return self._take(f"press {code}")

    def command(self, values: np.ndarray) -> View:
        self._command = self._command + np.clip(values - self._command, -REACH, REACH)
        self.commands.append(self._command.tolist())
        return self._take("command")

    def undo(self) -> View:
        return self._take("undo")

    def _take(self, call: str) -> View:
        assert self.gate.wait(10)
        self.calls.append(call)
        self._step += 1
        return self.view()


def drive(
    hands: Callable[[Driver, Arm], Awaitable[None]], sees: bool = True, period: float = 0.0
) -> tuple[Arm, list[Shown], list[str]]:
    """Let `hands` act on a driver; returns its arm, what the page showed, and what it said."""
    arm, shown, said = Arm(), [], []

    async def run() -> None:
        with ThreadPoolExecutor(1) as worker:
            driver = Driver(arm, worker, show, said.append, period)  # pyright: ignore[reportArgumentType]
            seen.append(driver.seen)
            running = asyncio.create_task(driver.run())
            await until(lambda: bool(shown))
            await hands(driver, arm)
            arm.gate.set()
            running.cancel()

    seen: list[Callable[[], None]] = []

    def show(view: Shown) -> None:
        shown.append(view)
        if sees:
            seen[0]()

    asyncio.run(run())
    return arm, shown, said


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def test_a_tap_is_one_step():
    async def hands(driver: Driver, arm: Arm) -> None:
        driver.hold(3)
        driver.release()
        await until(lambda: bool(arm.calls))
        await asyncio.sleep(0.1)

    arm, shown, _ = drive(hands)
    assert arm.calls == ["press 3"]
    assert [view.view.step for view in shown] == [0, 1]


def test_a_key_that_is_held_for_less_than_a_period_is_one_step_after_a_rest():
    async def hands(driver: Driver, arm: Arm) -> None:
        driver.hold(3)
        await asyncio.sleep(0.1)  # the step takes no time, and the key goes up before the next is due
        driver.release()
        await asyncio.sleep(0.6)

    arm, _, _ = drive(hands, period=0.4)
    assert arm.calls == ["press 3"]


def test_held_keys_never_pile_up():
    async def hands(driver: Driver, arm: Arm) -> None:
        arm.gate.clear()
        for code in (1, 2, 3, 4, 5) * 20:
            driver.hold(code)
            await asyncio.sleep(0.001)
        driver.release()
        arm.gate.set()
        await until(lambda: len(arm.calls) >= 2)
        await asyncio.sleep(0.1)

    arm, _, _ = drive(hands)
    assert arm.calls == ["press 1", "press 5"], "the one under way, and the last"


def test_a_key_that_is_held_repeats_at_the_arms_pace():
    async def hands(driver: Driver, arm: Arm) -> None:
        driver.hold(0)
        await asyncio.sleep(0.5)
        driver.release()

    arm, shown, _ = drive(hands, period=0.05)
    assert 5 <= len(arm.calls) <= 12
    assert shown[-1].rate is not None
    assert shown[-1].rate <= 25


def test_the_latest_slider_value_wins_and_is_reached():
    async def hands(driver: Driver, arm: Arm) -> None:
        arm.gate.clear()
        for value in np.linspace(-1, 0.9, 50):
            driver.aim(0, value)
            await asyncio.sleep(0.001)
        arm.gate.set()
        await until(lambda: not driver.aiming)

    arm, _, _ = drive(hands)
    assert arm.commands[-1] == pytest.approx([0.9, 0.5])
    assert len(arm.commands) <= 7, (
        "one that was under way, and the way to the last value in steps of the reach"
    )


def test_two_sliders_are_reached_together_and_limits_hold():
    async def hands(driver: Driver, arm: Arm) -> None:
        driver.aim(0, -0.5)
        driver.aim(1, 7.0)
        await until(lambda: not driver.aiming)

    arm, _, _ = drive(hands)
    assert arm.commands[-1] == pytest.approx([-0.5, 1.0])


def test_still_repeats_the_command():
    async def hands(driver: Driver, arm: Arm) -> None:
        driver.hold(STILL)
        driver.release()
        await until(lambda: bool(arm.calls))

    arm, _, _ = drive(hands)
    assert arm.commands == [[0.0, 0.5]]


def test_an_action_ends_driving_and_each_click_counts():
    async def hands(driver: Driver, arm: Arm) -> None:
        arm.gate.clear()
        driver.hold(0)
        await asyncio.sleep(0.05)
        driver.do(arm.undo)
        driver.do(arm.undo)
        arm.gate.set()
        await until(lambda: arm.calls.count("undo") == 2)
        await asyncio.sleep(0.1)

    arm, _, _ = drive(hands)
    assert arm.calls == ["press 0", "undo", "undo"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(RobosimError("there is nothing left to undo"), "nothing left to undo"), (KeyError("x"), "KeyError")],
)
def test_errors_become_sentences_and_the_page_goes_on(error: Exception, sentence: str):
    def fail() -> View:
        raise error

    async def hands(driver: Driver, arm: Arm) -> None:
        driver.do(fail)
        await asyncio.sleep(0.05)
        driver.hold(0)
        driver.release()
        await until(lambda: bool(arm.calls))

    _, _, said = drive(hands)
    assert len(said) == 1
    assert sentence in said[0]


def test_a_page_that_draws_nothing_is_sent_little(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("robosim.viewer.play.driver.UNSEEN_SECONDS", 0.2)

    async def hands(driver: Driver, arm: Arm) -> None:
        driver.hold(0)
        await asyncio.sleep(1.0)

    _, shown, _ = drive(hands, sees=False)
    assert len(shown) <= 7
