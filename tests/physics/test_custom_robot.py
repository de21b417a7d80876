"""Arms of one's own: the documented example, models that aren't ours, and what is said about mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import gymnasium
import mujoco_warp
import numpy as np
import pytest
import yaml

from robosim.checkpoint import content_name
from robosim.errors import ConfigError
from robosim.physics.arms.catalogue import get_robot, robot_of
from robosim.physics.env import PhysicsEnv
from robosim.physics.recording import Recorder
from robosim.physics.scene import Props, build_scene
from robosim.physics.tasks import make_spec
from robosim.spec import EnvSpec

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
DESK_ARM = EXAMPLES / "desk_arm.xml"
PUSHER = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "pusher_v5.xml"
ALOHA = Path(mujoco_warp.__file__).parent / "test_data" / "aloha_pot"

PUSHER_KEYS = """
name: pusher
joints: [r_shoulder_pan_joint, r_shoulder_lift_joint, r_upper_arm_roll_joint, r_elbow_flex_joint,
         r_forearm_roll_joint, r_wrist_flex_joint, r_wrist_roll_joint]
home: [0.5, 0.6, 1.1, -1.1, 0.9, -0.6, 0]
tool: {body: tips_arm, pos: [0.1, -0.1, 0]}   # the lower tip of its fork
base: {pos: [0, 0.6, 0.45]}
servo: {kp: 800, force: 120}
gravcomp: true
"""

ALOHA_KEYS = r"""
name: aloha_left
joints: [left\waist, left\shoulder, left\elbow, left\forearm_roll, left\wrist_angle, left\wrist_rotate]
home: [0.0, -0.6, 0.9, 0.0, 1.2, 0.0]
tool: left\gripper
gripper: {joints: [left\left_finger, left\right_finger], actuator: left\gripper, closed: 0.002, open: 0.037, gap: 0.07}
base: {pos: [0.469, 0.019, 0]}
cameras: {wrist: wrist_cam_left}
"""


@pytest.fixture
def pusher(tmp_path: Path) -> str:
    """Gymnasium's 7-joint arm: motors, no sites, a plane, an object and a goal on slides of their own."""
    (tmp_path / "pusher.xml").symlink_to(PUSHER)
    (tmp_path / "pusher.yaml").write_text(PUSHER_KEYS)
    return str(tmp_path / "pusher.xml")


@pytest.fixture
def aloha(tmp_path: Path) -> str:
    """Two ViperX of meshes on a table, with a pot."""
    if not (ALOHA / "scene.xml").exists():
        pytest.skip("this mujoco_warp comes without its test data")
    for file in ALOHA.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "scene.yaml").write_text(ALOHA_KEYS)
    return str(tmp_path / "scene.xml")


def share_of_successes(robot: str, task: str, seeds: range) -> float:
    recorder = Recorder(robot, size=None)
    tracks = [recorder.simulate(recorder.setting(task, seed), "expert", seed) for seed in seeds]
    assert all(track.warnings == 0 for track in tracks)
    return float(np.mean([track.success[-1] for track in tracks]))


def test_the_documented_example(capfd):
    robot = get_robot(str(DESK_ARM))
    assert robot.spec.joint_names == ("turn", "shoulder", "elbow", "pitch", "roll", "gripper")
    assert robot.spec.lower[0] == pytest.approx(np.radians(-170))  # degrees in the file survive the scene
    scene = build_scene(robot, Props(""))
    assert np.degrees(scene.model.joint("arm/turn").range) == pytest.approx([-170, 170])
    assert set(scene.cameras) == {"front", "wrist", "side"}
    assert scene.model.nlight == 1 and "arm/floor" not in [
        scene.model.geom(i).name for i in range(scene.model.ngeom)
    ]
    assert share_of_successes(str(DESK_ARM), "reach", range(4)) == 1.0
    assert capfd.readouterr().err == ""


def test_the_documented_yaml_is_the_one_in_the_page():
    page = (EXAMPLES.parent / "arms.md").read_text()
    shown = page.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(shown) == yaml.safe_load(DESK_ARM.with_suffix(".yaml").read_text())


def test_an_environment_of_the_example_steps_and_renders():
    spec = make_spec(robot=str(DESK_ARM), size=32, cameras=("front", "wrist"))
    env = PhysicsEnv(spec, "reach", num_envs=1)
    observation, _ = env.reset(seed=1)
    assert observation["agent_pos"].shape == (1, 6)
    for _ in range(3):
        observation, *_ = env.step(observation["agent_pos"])
    assert set(observation["pixels"]) == {"front", "wrist"}
    assert all(frames.std() > 5 for frames in observation["pixels"].values())


def test_a_dataset_finds_its_arm_again(monkeypatch, tmp_path: Path):
    spec = EnvSpec.from_json(make_spec(robot=str(DESK_ARM)).to_json())
    monkeypatch.chdir(tmp_path)
    assert robot_of(spec.robot) == get_robot(str(DESK_ARM))


def test_moved_files_are_the_same_arm_and_changed_ones_another(tmp_path: Path):
    spec = EnvSpec.from_json(make_spec(robot=str(DESK_ARM), size=16).to_json())
    moved = shutil.copy(DESK_ARM, tmp_path / "elsewhere.xml")
    shutil.copy(DESK_ARM.with_suffix(".yaml"), tmp_path / "elsewhere.yaml")
    env = PhysicsEnv(spec, task="reach", robot=str(moved))
    assert env.reset(seed=0)[0]["agent_pos"].shape == (1, 6)
    text = (tmp_path / "elsewhere.yaml").read_text()
    (tmp_path / "elsewhere.yaml").write_text(text.replace("1.75", "1.70"))
    with pytest.raises(ConfigError, match=r"isn't the arm that the dataset was recorded with.*collect again"):
        PhysicsEnv(spec, task="reach", robot=str(moved))


def test_files_that_the_model_names_belong_to_it(tmp_path: Path):
    arm, parts, mesh = tmp_path / "arm.xml", tmp_path / "parts.xml", tmp_path / "meshes" / "link.stl"
    mesh.parent.mkdir()
    arm.write_text('<mujoco><compiler meshdir="meshes"/><include file="parts.xml"/></mujoco>')
    parts.write_text('<mujoco><asset><mesh name="a" file="link.stl"/></asset></mujoco>')
    names = []
    for file, text in ((mesh, "one"), (mesh, "two"), (parts, parts.read_text().replace("a", "b"))):
        file.write_text(text)
        names.append(content_name(arm))
    assert len(set(names)) == 3


def test_a_model_that_is_not_ours_reaches(pusher: str):
    robot = get_robot(pusher)
    assert robot.gripper is None and robot.spec.num_joints == 7
    model = build_scene(robot, Props("")).model
    assert model.nq == 7 and model.nu == 7  # its object and goal stay behind
    assert share_of_successes(pusher, "reach", range(5)) == 1.0


def test_an_arm_without_gripper_offers_the_tasks_it_can_do(pusher: str):
    assert {task.name for task in make_spec(robot=pusher).tasks} >= {"reach", "soft_push"}
    assert "cube_pick" not in {task.name for task in make_spec(robot=pusher).tasks}


def test_a_model_of_meshes_on_a_crowded_table(aloha: str):
    robot = get_robot(aloha)
    scene = build_scene(robot, Props(""))
    assert scene.model.nq == 8 and scene.model.ncam == 2 and scene.model.nkey == 0
    assert scene.cameras == ("front", "wrist")
    solid = scene.model.geom_contype[scene.model.geom_bodyid > 0] > 0
    assert solid.any()
    assert set(scene.model.geom_conaffinity[scene.model.geom_bodyid > 0][solid]) == {12}
    assert share_of_successes(aloha, "reach", range(2)) == 1.0


@pytest.mark.slow
def test_experts_of_models_that_are_not_ours(pusher: str):
    assert share_of_successes(pusher, "reach", range(20)) >= 0.9
    assert share_of_successes(str(DESK_ARM), "soft_push", range(20)) >= 0.9
    assert share_of_successes(str(DESK_ARM), "cube_pick", range(20)) >= 0.9


def test_a_gripper_commanded_in_its_own_unit(tmp_path: Path):
    robot = edited(tmp_path, {"gripper": {"ctrl": [255, 0]}})
    loaded = get_robot(robot)
    targets = loaded.to_actuator(np.array([[0, 0, 0, 0, 0, 0.0], [0, 0, 0, 0, 0, 1.0]]))
    assert targets[:, -1] == pytest.approx([255, 0])


def edited(folder: Path, keys: dict, drop: tuple[str, ...] = (), model: tuple[str, str] = ("", "")) -> str:
    """The desk arm with keys changed (None removes), or text of its model replaced."""
    tree = yaml.safe_load(DESK_ARM.with_suffix(".yaml").read_text())
    for key, value in keys.items():
        tree[key] = (
            {**tree[key], **value} if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
        )
    tree = {key: value for key, value in tree.items() if key not in drop}
    text = DESK_ARM.read_text()
    assert model[0] in text
    (folder / "arm.xml").write_text(text.replace(*model))
    (folder / "arm.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "arm.xml")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"drop": ("tool",)}, "tool has no value"),
        ({"keys": {"joint": ["turn"]}}, "unknown key 'joint'; did you mean 'joints'"),
        (
            {"keys": {"joints": ["turn", "sholder", "elbow", "pitch", "roll"]}},
            "did you mean 'shoulder'.*valid: turn, ",
        ),
        ({"keys": {"tool": "tipp"}}, "unknown site as tool 'tipp'; did you mean 'tip'"),
        ({"keys": {"tool": {"body": "palm"}}}, "unknown body in tool.body 'palm'.*hand"),
        ({"keys": {"gripper": {"actuator": "finger"}}}, "unknown actuator.*did you mean 'fingers'"),
        ({"keys": {"gripper": {"open": 0.0}}}, "closed and open should differ"),
        ({"keys": {"cameras": {"wrist": "eye"}}}, "unknown camera 'eye'.*hand_view"),
        ({"keys": {"home": [0.0, 0.1]}}, "home has 2 angles, joints has 5"),
        (
            {"keys": {"home": [0.0, 0.1, 4.0, 1.29, 0.0]}},
            "home of 'elbow' is 4, outside its limits -0.1745 … 2.793",
        ),
        ({"keys": {"home": [0.0, 0.0, 0.0, 0.0, 0.0]}}, "around home.*choose another home"),
        ({"keys": {"workspace": {"centre": [2.0, 0.0], "scale": 0.3}}}, "reaches 0% of the workspace"),
        ({"keys": {"velocity": [1.0, 2.0]}}, "one a joint"),
        ({"keys": {"joints": ["turn", "left"], "home": [0.0, 0.0]}}, "'left' doesn't turn"),
        ({"model": (' range="-170 170"', "")}, "'turn' has no limits; give it range"),
        (
            {"model": ('<position name="turn" joint="turn"/>', "")},
            "'turn' has no position servo; add to the YAML servo",
        ),
        (
            {"model": ('kp="150"', 'kp="1"'), "keys": {"gravcomp": False}},
            "rad from where it is commanded.*servo.kp",
        ),
        ({"model": ("</mujoco>", "")}, "MuJoCo can't use arm.xml"),
    ],
)
def test_mistakes_say_what_where_and_what_to_do(tmp_path: Path, change: dict, says: str):
    path = edited(tmp_path, **{"keys": {}, **change})
    with pytest.raises(ConfigError, match=says) as error:
        get_robot(path)
    assert str(tmp_path / "arm.yaml") in str(error.value)


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"arm\.xml is missing"):
        get_robot(str(tmp_path / "arm.xml"))
    (tmp_path / "arm.xml").write_text(DESK_ARM.read_text())
    with pytest.raises(ConfigError, match=r"arm\.yaml is missing.*docs/arms.md"):
        get_robot(str(tmp_path / "arm.xml"))


def test_a_yaml_that_cannot_be_parsed(tmp_path: Path):
    path = edited(tmp_path, {})
    (tmp_path / "arm.yaml").write_text("joints: [turn\nhome: 3")
    with pytest.raises(ConfigError, match=r"arm\.yaml"):
        get_robot(path)


def test_servos_are_added_where_the_model_has_none(tmp_path: Path):
    path = edited(
        tmp_path, {"servo": {"kp": 150, "force": 4}}, model=('<position name="turn" joint="turn"/>', "")
    )
    robot = get_robot(path)
    model = build_scene(robot, Props("")).model
    added = model.actuator("arm/servo_turn")
    assert added.gainprm[0] == 150 and added.forcerange == pytest.approx([-4, 4])
    assert model.nu == 6


def test_a_changed_file_is_read_again(tmp_path: Path):
    path = edited(tmp_path, {})
    assert get_robot(path).velocity[0] == 2.0
    edited(tmp_path, {"velocity": 1.5})
    assert get_robot(path).velocity[0] == 1.5
