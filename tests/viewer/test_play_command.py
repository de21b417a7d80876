"""What `robosim play` says in the terminal, and whom it answers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robosim import shipped
from robosim.config import compose
from robosim.errors import ConfigError, UnsupportedError
from robosim.viewer.play import play_recording
from robosim.viewer.play.command import (
    OwnPagesOnly,
    PlayConfig,
    Player,
    default_out,
    listen,
    play_command,
)


def test_a_taken_port_gets_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnsupportedError, match=rf"port {port} is in use.*port=0"):
            listen(port)


def test_the_page_is_on_loopback_alone():
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_run_has_to_be_named_and_the_message_lists_those_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "none")
    with pytest.raises(ConfigError, match=r"run=runs/NAME .*robosim demo makes one"):
        PlayConfig()
    (tmp_path / "runs" / "reach-nano-s0" / "dynamics").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"here are runs/reach-nano-s0"):
        PlayConfig()


def test_without_a_run_the_first_shipped_simulator_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shelf")
    for name in ("tiny", "small"):
        (tmp_path / "shelf" / name).mkdir(parents=True)
        (tmp_path / "shelf" / name / "card.json").touch()
    assert PlayConfig().run == "small" and PlayConfig(run="tiny").run == "tiny"


def test_a_shipped_simulator_is_served_by_its_name_and_nothing_is_recorded_into_the_package(
    simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shelf")
    simulator.save(tmp_path / "shelf" / "toy")
    (tmp_path / "shelf" / "toy" / "card.json").touch()
    monkeypatch.chdir(tmp_path)
    served = []
    monkeypatch.setattr(Player, "serve", lambda self, listener: served.append(self) or listener.close())
    for overrides in ([], ["run=toy"]):
        play_command("play", [*overrides, "port=0", "browser=false", "device=cpu"])
        assert "the learned arm of toy is at http://127.0.0.1:" in capsys.readouterr().out
    assert {player._out for player in served} == {Path("runs/toy/play")}
    assert all(np.array_equal(player._simulator.starts, simulator.starts) for player in served)
    assert default_out(Path("runs/mine")) == Path("runs/mine/play")


@pytest.mark.parametrize("override", ["port=70000", "port=-1", "rate=-2", "steps=0"])
def test_values_that_make_no_sense_are_refused(override: str):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{key} must be"):
        compose("play", PlayConfig, ["run=x", override])


def answer(kind: str, **headers: str) -> list[dict]:
    """What `OwnPagesOnly` sends back; {"type": "let through"} stands for all that lies behind it."""
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": f"{kind}.connect"}

    async def app(scope, receive, send) -> None:
        await send({"type": "let through"})

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(OwnPagesOnly(app)({"type": kind, "headers": pairs}, receive, send))
    return sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_other_sites_are_refused(kind: str):
    here = "127.0.0.1:8420"
    for ours in ({}, {"origin": f"http://{here}"}):
        assert answer(kind, host=here, **ours) == [{"type": "let through"}]
    refusal = {"http": ("status", 403), "websocket": ("code", 1008)}[kind]
    for theirs in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:3000",
        f"https://{here}",
        "http://localhost:8420",
    ):
        first = answer(kind, host=here, origin=theirs)[0]
        assert refusal in first.items()


def test_the_servers_own_start_and_end_are_let_through():
    assert answer("lifespan") == [{"type": "let through"}]


def test_a_disk_that_is_full_when_pages_close_is_told_in_the_terminal(
    play, simulator, tmp_path, monkeypatch, capsys
):
    play.start_recording()
    play.press(0)
    folder = play.recording_folder

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(play_recording.np, "savez", full)
    player = Player(simulator, tmp_path, PlayConfig(run="toy"))
    player._pages.append(SimpleNamespace(session=play, stop_recording=play.stop_recording))
    player.close()
    said = capsys.readouterr().err
    assert str(folder) in said and "the disk is full" in said
    assert player.unfinished == [folder] and player.recorded == []
