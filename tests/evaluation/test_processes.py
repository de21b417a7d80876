import subprocess
import sys
import time

import pytest

SCRIPT = """
import functools, os, signal, sys, threading, time
from robosim.errors import CheckpointError
from robosim.evaluation.processes import run_jobs


class Doubler:
    def __init__(self, factor):
        self.factor = factor

    def do(self, job, on_finish):
        if job == "broken":
            raise CheckpointError("the policy is missing")
        if job == "endless":
            on_finish(1)
            time.sleep(600)
        time.sleep(0.2 if job == 0 else 0.0)
        on_finish(1)
        return self.factor * job, os.getpid()


class Bar:
    done = 0

    def advance(self, count):
        self.done += count
        if "interrupt" in sys.argv:
            os.kill(os.getpid(), signal.SIGINT)


def main():
    jobs = {"error": [0, "broken"], "interrupt": ["endless", "endless"]}.get(sys.argv[1], list(range(6)))
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


def test_an_interrupt_ends_the_processes_at_once(call):
    started = time.monotonic()
    done = call("interrupt", "2")
    assert done.returncode != 0 and "KeyboardInterrupt" in done.stderr
    assert time.monotonic() - started < 100
