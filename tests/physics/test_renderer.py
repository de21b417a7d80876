"""Pictures: repeatable, independent of their batch, and showing what a policy must see."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.physics.recording import start_generator
from robosim.physics.renderer import Renderer, wp
from robosim.physics.robots import PANDA
from robosim.physics.scene import ARM_PREFIX, build_scene
from robosim.physics.simulation import Simulation
from robosim.physics.tasks import get_task


@pytest.fixture(scope="module")
def states(scene, kinematics):
    """qpos [12, nq] and markers [12, 3] of seeded starts of both tasks."""
    simulation, qpos, marker = Simulation(scene), [], []
    for seed in range(12):
        task = get_task(("reach", "soft_push")[seed % 2])
        simulation.reset(task.sample(start_generator(seed), kinematics))
        qpos.append(simulation.qpos.copy())
        marker.append(simulation.read().marker)
    return np.stack(qpos), np.stack(marker)


@pytest.fixture(scope="module")
def renderer(scene):
    return Renderer(scene, 64)


@pytest.fixture(scope="module")
def frames(renderer, states):
    return renderer.render(*states)["front"]


def test_pictures_do_not_depend_on_their_batch(renderer, states, frames):
    qpos, marker = states
    assert frames.shape == (12, 64, 64, 3) and frames.dtype == np.uint8
    assert np.array_equal(renderer.render(qpos, marker)["front"], frames)
    for row in (0, 3, 6):
        assert np.array_equal(
            renderer.render(qpos[row : row + 1], marker[row : row + 1])["front"][0], frames[row]
        )


def test_body_and_marker_stand_out(frames):
    red, green, blue = np.moveaxis(frames.astype(int), -1, 0)
    body = ((red > 120) & (green < 60) & (blue < 60)).sum(axis=(1, 2))
    marker = ((blue > 120) & (red < 60) & (green < 110)).sum(axis=(1, 2))
    assert np.median(body) > 40 and np.median(marker) > 40
    assert (body > 10).all() and (marker > 10).all()


def test_the_arm_fills_a_tenth_of_the_picture(states):
    painted = build_scene(PANDA)
    of_arm = [painted.model.body(body).name.startswith(ARM_PREFIX) for body in painted.model.geom_bodyid]
    painted.model.geom_matid[of_arm] = -1
    painted.model.geom_rgba[of_arm] = (1.0, 0.0, 1.0, 1.0)
    red, green, blue = np.moveaxis(Renderer(painted, 64).render(*states)["front"].astype(int), -1, 0)
    arm = (np.minimum(red, blue) > 2 * green + 10).mean(axis=(1, 2))
    assert arm.mean() > 0.1
    assert arm.min() > 0.04


def test_antialiasing_averages_the_double_size(scene, states, frames):
    fine = Renderer(scene, 128, antialias=False).render(*states)["front"].astype(float)
    boxes = fine.reshape(12, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(boxes - frames).max() <= 1.0


def test_one_marker_moves_one_thing(renderer, states):
    qpos, marker = states
    moved = marker.copy()
    moved[:, 1] = -moved[:, 1]
    before, after = (renderer.render(qpos, place)["front"][:1].astype(int) for place in (marker, moved))
    changed = (np.abs(before - after) > 8).any(axis=-1).mean()
    assert 0.005 < changed < 0.12


def test_compilation_is_announced_once_a_machine(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wp.config, "kernel_cache_dir", str(tmp_path))
    Renderer(scene, 32)
    assert "compiling the renderer" in capsys.readouterr().err
    Renderer(scene, 48)
    assert capsys.readouterr().err == ""


def test_provenance_names_the_renderer(renderer):
    provenance = renderer.provenance()
    assert provenance["name"] == "mujoco-warp" and provenance["versions"]["mujoco"].startswith("4.")


def test_unknown_camera_is_named(scene):
    with pytest.raises(ValueError, match=r"wrist.*front"):
        Renderer(scene, 32, cameras=("wrist",))
