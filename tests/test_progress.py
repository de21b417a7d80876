"""The progress bar where no terminal is: plain lines with rate and time left."""

from __future__ import annotations

import threading

from robosim import progress as module
from robosim.progress import progress


def test_a_log_gets_a_last_line_with_count_rate_and_figures(capsys):
    with progress("tokenizer", total=5, unit="step") as bar:
        for _ in range(5):
            bar.advance(1, loss=0.125)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "tokenizer: 5/5 steps" in lines[0]
    assert "step/s" in lines[0]
    assert "loss 0.125" in lines[0]


def test_lines_come_at_the_log_interval(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("dynamics", total=100, done=40) as bar:
        for _ in range(60):
            now[0] += 1.0
            bar.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    # Ten of the sixty missing steps took 10 s: the earlier run's forty don't count for the rate.
    assert "50/100 steps  1 step/s  0:50 left" in lines[0]
    assert "100/100 steps  1 step/s  in 1:00" in lines[-1]


def test_an_interrupt_still_shows_how_far_it_got(capsys):
    try:
        with progress("collect", total=10, unit="episode") as bar:
            bar.advance(3)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert "collect: 3/10 episodes" in capsys.readouterr().err


def test_threads_lose_no_count():
    with progress("compare", total=4000) as bar:
        threads = [threading.Thread(target=lambda: [bar.advance() for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bar.done == 4000
