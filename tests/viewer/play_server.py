"""`robosim play` in a process of its own, a line to it that can be cut, and what to do where no browser is."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest


def no_browser(error: Exception) -> NoReturn:
    """Skip the test; fail it on a machine that has to test the page (ROBOSIM_BROWSER=required)."""
    sentence = (
        "no Chromium for playwright here; install one with: uv run playwright install --with-deps chromium "
        f"(or the system packages: apt-get install chromium fonts-dejavu-core): {error}"
    )
    if os.environ.get("ROBOSIM_BROWSER") == "required":
        pytest.fail(sentence)
    pytest.skip(sentence)


class Server:
    """`robosim play` in a process of its own, on a free port."""

    def __init__(self, run: Path, out: Path) -> None:
        options = [f"run={run}", f"out={out}", "port=0", "browser=false", "rate=10", "device=cpu"]
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "robosim.cli", "play", *options],
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
