"""A machine without GPU, OpenGL or a usable kernel cache: a sentence that says what to do, and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robosim.errors import UnsupportedError
from robosim.physics.recording import Recorder
from robosim.physics.rendering import warp_kernels
from robosim.physics.rendering.renderer import Renderer
from robosim.physics.rendering.warp_kernels import wp
from robosim.physics.scene import Scene

DRAW = """
from robosim.errors import RobosimError
try:
    from robosim.physics.recording import Recorder
    from robosim.physics.rendering.renderer import Renderer
    from robosim.physics.simulation import Simulation
    scene = Recorder("panda", None).setting("reach", 0).scene
    picture = Renderer(scene, 32, kind={kind!r}).render(Simulation(scene).visible[None])["front"]
    print("drawn", picture.std() > 10)
except RobosimError as error:
    print(type(error).__name__, error)
"""


def draw(kind: str = "warp", **environment: str) -> str:
    """What a fresh process with these environment variables says when it draws a picture."""
    known = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", DRAW.format(kind=kind)],
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def plain_scene() -> Scene:
    return Recorder("panda", None).setting("reach", 0).scene


@pytest.fixture(scope="module")
def soft_start():
    """A scene with a soft thing, and `visible` [1, P] of its start."""
    recorder = Recorder("panda", None)
    setting = recorder.setting("soft_push", 0)
    return setting.scene, recorder.simulate(setting, "stopped", 0).visible[:1]


@pytest.fixture
def cold(tmp_path, monkeypatch, plain_scene) -> Path:
    """A folder of kernels without stamps, of a process that has them loaded."""
    Renderer(plain_scene, 16)
    monkeypatch.setattr(wp.config, "kernel_cache_dir", str(tmp_path))
    return tmp_path


def test_compilation_is_announced_and_timed_once_a_machine(plain_scene, cold, capsys):
    Renderer(plain_scene, 32)
    told = capsys.readouterr()
    assert told.out == "" and "compiling the renderer" in told.err and str(cold) in told.err
    assert "compiled the renderer in" in told.err and "seconds" in told.err
    Renderer(plain_scene, 48, cameras=plain_scene.cameras)
    assert capsys.readouterr().err == ""


def test_an_interrupted_compilation_leaves_no_stamp(cold, capsys):
    with pytest.raises(KeyboardInterrupt), warp_kernels.compiling("key"):
        raise KeyboardInterrupt
    assert not (cold / "robosim-key").exists()
    with warp_kernels.compiling("key"):
        pass
    assert (cold / "robosim-key").exists()
    assert capsys.readouterr().err.count("compiling the renderer") == 2


def test_of_a_cold_pool_one_process_speaks(cold):
    """The others wait for it, and find the work done."""
    code = f"""
import time
from robosim.physics.rendering.warp_kernels import compiling, wp
wp.config.kernel_cache_dir = {str(cold)!r}
with compiling("pool"):
    time.sleep(0.5)
"""
    start = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=60)[1] for process in start)
    assert said.count("compiling the renderer") == 1


def test_a_cache_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    said = draw(WARP_CACHE_PATH=str(tmp_path / "file" / "cache"))
    assert said.startswith("UnsupportedError") and "WARP_CACHE_PATH" in said and "Not a directory" in said


def test_a_cache_folder_that_cannot_be_written(plain_scene, cold, monkeypatch):
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(30, "Read-only file system", str(cold / "wp_module"))

    monkeypatch.setattr("robosim.physics.rendering.warp_renderer.mjw.put_model", refuse)
    with pytest.raises(UnsupportedError, match=r"Read-only file system.*WARP_CACHE_PATH"):
        Renderer(plain_scene, 32)


def test_kernels_that_do_not_load_are_named(plain_scene, cold, monkeypatch):
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise Exception("Failed to load CPU module")

    monkeypatch.setattr("robosim.physics.rendering.warp_renderer.mjw.put_model", refuse)
    with pytest.raises(UnsupportedError, match=r"don't load.*delete that folder"):
        Renderer(plain_scene, 32)


@pytest.mark.slow
def test_a_damaged_cache_is_named(plain_scene, tmp_path):
    Renderer(plain_scene, 32)
    shutil.copytree(Path(wp.config.kernel_cache_dir or ""), tmp_path / wp.config.version)
    for kernel in tmp_path.rglob("*.o"):
        kernel.write_bytes(b"not a kernel")
    said = draw(WARP_CACHE_PATH=str(tmp_path))
    assert said.startswith("UnsupportedError") and "delete that folder" in said and str(tmp_path) in said


def test_a_machine_without_gpu_or_display_draws():
    assert draw(CUDA_VISIBLE_DEVICES="") == "drawn True"


def test_an_opengl_that_does_not_exist_is_named():
    said = draw(MUJOCO_GL="nonsense")
    assert said.startswith("UnsupportedError") and "unset" in said and "MUJOCO_GL='nonsense'" in said


def test_opengl_where_there_is_none_says_what_to_install(plain_scene, monkeypatch):
    def refuse(*_args: object) -> None:
        raise ImportError("libEGL.so.1: cannot open shared object file")

    monkeypatch.setattr("robosim.physics.rendering.opengl_renderer.mujoco.Renderer", refuse)
    with pytest.raises(UnsupportedError, match=r"libEGL.*apt install libegl1.*MUJOCO_GL=egl.*renderer=warp"):
        Renderer(plain_scene, 32, kind="opengl")


def test_opengl_agrees_with_ray_tracing(soft_start):
    scene, visible = soft_start
    try:
        drawn = Renderer(scene, 128, kind="opengl")
    except UnsupportedError as error:
        pytest.skip(str(error))
    traced = Renderer(scene, 128)
    assert drawn.labels == traced.labels
    one, other = drawn.render_layers(visible)["front"], traced.render_layers(visible)["front"]
    same = one.segmentation == other.segmentation
    assert same.mean() > 0.99
    # OpenGL draws round shapes as facets: millimetres.
    away = np.abs(one.depth - other.depth)[same]
    assert np.percentile(away, 80) < 1e-5 and np.percentile(away, 99) < 0.01
    assert np.abs(one.rgb.astype(int) - other.rgb).mean() < 8
    assert drawn.provenance()["name"] == "mujoco-opengl"
