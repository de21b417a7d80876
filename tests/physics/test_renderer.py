"""Pictures: repeatable, independent of their batch, true to size and distance, and named."""

from __future__ import annotations

import numpy as np
import pytest

from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import PANDA
from robosim.physics.env import PhysicsEnv
from robosim.physics.recording import draw_start
from robosim.physics.rendering.pictures import LAYERS
from robosim.physics.rendering.renderer import Renderer
from robosim.physics.scene import Scene, build_scene
from robosim.physics.simulation import Simulation
from robosim.physics.tasks.soft_push import SoftPush

STARTS = 6


@pytest.fixture(scope="module")
def task():
    return SoftPush(PANDA)


@pytest.fixture(scope="module")
def push_scene(task) -> Scene:
    return build_scene(PANDA, task.props())


@pytest.fixture(scope="module")
def states(task, push_scene, kinematics):
    """`visible` [6, P] of seeded starts."""
    simulation, states = Simulation(push_scene), []
    for seed in range(STARTS):
        simulation.reset(draw_start(task, push_scene, kinematics, seed))
        states.append(simulation.visible)
    return np.stack(states)


@pytest.fixture(scope="module")
def renderer(push_scene):
    return Renderer(push_scene, 64, cameras=push_scene.cameras)


@pytest.fixture(scope="module")
def pictures(renderer, states):
    return renderer.render_layers(states)


def test_pictures_repeat_and_do_not_depend_on_their_batch(push_scene, renderer, states, pictures):
    again = Renderer(push_scene, 64, cameras=push_scene.cameras).render_layers(states)
    for camera, picture in pictures.items():
        for layer in LAYERS:
            expected = getattr(picture, layer)
            assert np.array_equal(getattr(again[camera], layer), expected)
            for row in (0, 3, 5):
                alone = renderer.render_layers(states[row : row + 1])[camera]
                assert np.array_equal(getattr(alone, layer)[0], expected[row])


def test_one_camera_sees_what_it_sees_among_several(push_scene, states, pictures):
    for camera in push_scene.cameras:
        alone = Renderer(push_scene, 64, cameras=(camera,)).render(states[:2])
        assert list(alone) == [camera]
        assert np.array_equal(alone[camera], pictures[camera].rgb[:2])


@pytest.mark.parametrize("size", [64, 128, 256])
def test_sizes(push_scene, states, size):
    picture = Renderer(push_scene, size).render_layers(states[:1])["front"]
    assert picture.rgb.shape == (1, size, size, 3) and picture.rgb.dtype == np.uint8
    assert picture.depth.shape == (1, size, size) and picture.depth.dtype == np.float32
    assert picture.segmentation.shape == (1, size, size) and picture.segmentation.dtype == np.int32


def test_only_the_layers_asked_for_are_made(renderer, states):
    picture = renderer.render_layers(states[:1], ("depth",))["front"]
    assert picture.row(0).depth.shape == (64, 64)
    with pytest.raises(ValueError, match="without rgb; it has depth"):
        _ = picture.rgb


def test_antialiasing_is_the_mean_of_four_rays(push_scene, states, pictures):
    """Exactly so at outlines; within a surface the ray through the middle gives nearly the same."""
    fine = Renderer(push_scene, 128, antialias=False).render(states)["front"].astype(int)
    boxes = (fine.reshape(STARTS, 64, 2, 64, 2, 3).sum(axis=(2, 4)) + 2) >> 2
    difference = np.abs(boxes - pictures["front"].rgb.astype(int)).max(axis=-1)
    label = pictures["front"].segmentation
    outline = label[:, :, 1:] != label[:, :, :-1]
    assert (
        outline.any() and not difference[:, :, 1:][outline].any() and not difference[:, :, :-1][outline].any()
    )
    assert 10 * np.log10(255**2 / np.mean(difference**2.0)) > 44
    assert (difference > 8).mean() < 0.002


def test_depth_is_measured_along_the_optical_axis(push_scene, states, pictures):
    """Of pixels on the table, against the plane z = 0 seen from where the camera stands."""
    camera, label = push_scene.cameras.index("front"), pictures["front"].segmentation[0]
    model = push_scene.model
    across = np.tan(np.radians(model.cam_fovy[camera]) / 2) * ((np.arange(64) + 0.5) / 32 - 1)
    x, y = np.meshgrid(across, -across)
    downwards = model.cam_mat0[camera].reshape(3, 3)[2] @ np.stack([x, y, -np.ones_like(x)]).reshape(3, -1)
    expected = (-model.cam_pos0[camera][2] / downwards).reshape(64, 64)
    table = label == 1
    assert table.mean() > 0.3
    assert np.abs(pictures["front"].depth[0] - expected)[table].max() < 1e-4
    assert (label == 0).any() and (pictures["front"].depth[0][label == 0] == 0).all()


def test_segmentation_names_what_is_there(renderer, states, pictures):
    assert renderer.labels == ("background", "table", "arm", "block", "marker")
    for row in range(STARTS):
        label, rgb = pictures["front"].segmentation[row], pictures["front"].rgb[row].astype(int)
        shares = np.bincount(label.ravel(), minlength=5) / label.size
        assert shares[1] > 0.3 and shares[2] > 0.04 and shares[3] > 0.002 and shares[4] > 0.002
        red, blue = rgb[..., 0] - rgb[..., 2], rgb[..., 2] - rgb[..., 0]
        assert np.median(red[label == 3]) > 60 and np.median(blue[label == 4]) > 60
    assert (pictures["wrist"].segmentation == 2).any() and (pictures["wrist"].segmentation == 1).any()


def test_a_marker_that_moves_changes_its_own_pixels_only(push_scene, renderer, states, pictures):
    moved = states[:1].copy()
    moved[0, push_scene.model.nq + 1] += 0.05
    after = renderer.render_layers(moved)["front"]
    before = pictures["front"].row(0)
    changed = before.segmentation != after.segmentation[0]
    assert changed.any()
    assert ((before.segmentation == 4) | (after.segmentation[0] == 4))[changed].all()


def test_the_table_top_that_things_rest_on_is_not_seen(push_scene):
    model = push_scene.model
    assert model.geom("top").group[0] == 4
    simulation = Simulation(push_scene)
    # Over the table's far edge there is nothing, though the invisible plane goes on there.
    label = Renderer(push_scene, 64).render_layers(simulation.visible[None])["front"].segmentation[0]
    assert (label[0] == 0).any()


def test_an_environment_shows_every_layer_of_a_row():
    env = PhysicsEnv(task="soft_push", num_envs=2)
    observation, _ = env.reset(seed=3)
    seen = env.look(1)["front"]
    assert np.array_equal(seen.rgb, observation["pixels"]["front"][1])
    assert seen.depth.shape == seen.segmentation.shape == (64, 64)
    assert env.segmentation_labels(1)[seen.segmentation[-1, 0]] == "table"


def test_an_environment_without_pictures_says_so():
    env = PhysicsEnv(task="reach", render_pixels=False)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="render_pixels=False"):
        env.look(0)


def test_provenance_names_the_renderer(renderer):
    provenance = renderer.provenance()
    assert provenance["name"] == "mujoco-warp" and provenance["versions"]["mujoco"].startswith("4.")


def test_wrong_names_are_answered_with_the_valid_ones(push_scene, renderer, states):
    with pytest.raises(ConfigError, match=r"camera 'side'.*front"):
        Renderer(push_scene, 32, cameras=("side",))
    with pytest.raises(ConfigError, match=r"renderer 'vulkan'.*warp, opengl"):
        Renderer(push_scene, 32, kind="vulkan")
    with pytest.raises(ConfigError, match=r"layer 'normals'.*depth"):
        renderer.render_layers(states[:1], ("normals",))  # pyright: ignore[reportArgumentType]
