import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import functools, os, signal, sys, threading, time
from robosim.errors import CheckpointError
from robosim.evaluation.processes import run_jobs


class Doubler:
    def __init__(self, factor):
        if sys.argv[1] == "unopened":
            raise CheckpointError("the adapter is missing")
        self.factor = factor

    def do(self, job, on_finish):
        if job == "broken":
            raise CheckpointError("the policy is missing")
        if job == "endless":
            print(os.getpid(), flush=True)
            on_finish(1)
            time.sleep(600)
        time.sleep(0.2 if job == 0 else 0.0)
        on_finish(1)
        return self.factor * job, os.getpid()


class Bar:
    done = 0

    def advance(self, count):
        self.done += count
        if sys.argv[1] in ("SIGINT", "SIGKILL"):
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))


def main():
    jobs = {"error": [0, "broken"], "plain": list(range(6))}.get(sys.argv[1], ["endless", "endless"])
    bar = Bar()
    results = run_jobs(functools.partial(Doubler, 2), jobs, int(sys.argv[2]), bar)
    print([value for value, _ in results], bar.done, len({pid for _, pid in results} - {os.getpid()}))


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def call(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(*arguments):
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return run


def test_results_come_in_order_whoever_made_them(call):
    alone, shared = call("plain", "1").stdout.split("]"), call("plain", "2").stdout.split("]")
    assert alone[0] == shared[0] == "[0, 2, 4, 6, 8, 10"
    assert alone[1].split()[0] == shared[1].split()[0] == "6", "the bar saw every unit"
    assert alone[1].split()[1] == "0" and int(shared[1].split()[1]) >= 1


def test_an_error_in_a_process_keeps_its_class(call):
    done = call("error", "2")
    assert done.returncode == 1 and "CheckpointError: the policy is missing" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_error_in_opening_keeps_its_class(call, workers):
    done = call("unopened", workers)
    assert done.returncode == 1 and "CheckpointError: the adapter is missing" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
def test_no_process_survives_its_parent(call, signal):
    done = call(signal, "2")
    assert done.returncode != 0
    children = [int(line) for line in done.stdout.split()]
    assert children
    deadline = time.monotonic() + 60
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
