"""Labels without positions, with states that aren't joints, with commands that are motions: the drawn arm again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from robosim.adapter import (
    ActionAdapter,
    ActionAdapterConfig,
    AdapterBundle,
    FitConfig,
    LabelledEpisodes,
    evaluate_adapter,
    fit_adapter,
    load_adapter,
    save_adapter,
)
from robosim.errors import CheckpointError
from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from tests.adapter.conftest import BOUND

CONFIG = FitConfig(colours=16)

Relabel = Callable[[LabelledEpisodes], LabelledEpisodes]


def joint_targets(labels: LabelledEpisodes) -> LabelledEpisodes:
    """As of an arm whose recordings know no positions."""
    return replace(labels, points=[points[:, :0] for points in labels.points])


def tool_motions(labels: LabelledEpisodes) -> LabelledEpisodes:
    """Commands are motions of the tool in millimetres and a still gripper; states its place and two odd numbers."""
    tools = [points[:, :3] for points in labels.points]
    moved = [np.diff(tool, axis=0, append=tool[-1:]) * 1000 for tool in tools]
    commands = [np.pad(motion, ((0, 0), (0, 1)), constant_values=1.0) for motion in moved]
    states = [np.concatenate([tool, tool[:, :2] ** 2 * 50], 1) for tool in tools]
    return replace(joint_targets(labels), commands=commands, joints=states, states_are_joints=False)


def no_states(labels: LabelledEpisodes) -> LabelledEpisodes:
    motions = tool_motions(labels)
    return replace(motions, joints=[state[:, :0] for state in motions.joints])


def other_states(labels: LabelledEpisodes) -> LabelledEpisodes:
    """Targets of joints, beside states of as many numbers that aren't the joints."""
    states = [np.concatenate([points[:, :3]] * 3, 1)[:, :8] for points in labels.points]
    return replace(joint_targets(labels), joints=states, states_are_joints=False)


KINDS = {
    "joint_position": joint_targets,
    "ee_delta": tool_motions,
    "ee_delta without states": no_states,
    "joint_position beside other states": other_states,
}


def imported_spec(labels: LabelledEpisodes, kind: str) -> EnvSpec:
    commands, size = np.concatenate(labels.commands), labels.commands[0].shape[1]
    names, units = tuple(f"number{i}" for i in range(size)), ("unknown",) * size
    robot = RobotSpec("imported", names, units, tuple(commands.min(0)), tuple(commands.max(0)))
    tasks = (TaskSpec("imported", "", 30, 0.0, "none"),)
    states = names if labels.states_are_joints else tuple("xyzabcde")[: labels.joints[0].shape[1]]
    known = ("state", "action") if states else ("action",)
    return EnvSpec(
        robot,
        tasks,
        labels=known,
        state_names=states,
        action_kind="joint_position" if "joint" in kind else "ee_delta",
    )


@pytest.fixture(scope="module")
def fit(labels, held_out, make_episodes) -> Callable[[str], tuple[AdapterBundle, dict, LabelledEpisodes]]:
    """By kind: the fitted bundle, its held-out figures, the held-out episodes."""
    video = torch.from_numpy(np.concatenate(make_episodes(4, seed=200).frames))
    made: dict[str, tuple[AdapterBundle, dict, LabelledEpisodes]] = {}

    def fitted(kind: str) -> tuple[AdapterBundle, dict, LabelledEpisodes]:
        if kind not in made:
            own, others = KINDS[kind](labels), KINDS[kind](held_out)
            contract = imported_spec(own, kind)
            bundle, _ = fit_adapter(own, [], video, contract, BOUND, CONFIG)
            made[kind] = bundle, evaluate_adapter(bundle, others, contract), others
        return made[kind]

    return fitted


@pytest.mark.parametrize("kind", KINDS)
def test_commands_and_latents_tell_each_other(fit, kind):
    _, figures, _ = fit(kind)
    assert figures["command_error"] < 0.3 * figures["idle_command_error"]
    assert figures["command_error"] < 0.3 * figures["shuffled_command_error"]
    assert figures["latent_r2"] > 0.8
    assert min(figures["command_r2"].values()) > 0.8


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "without" not in kind])
def test_states_are_predicted_and_read(fit, kind):
    _, figures, _ = fit(kind)
    assert figures["next_state_error"] < 0.2 * figures["idle_next_state_error"]
    assert figures["probe_state_error"] < 0.3 * figures["mean_state_error"]


def test_what_the_picture_does_not_show_is_not_believed(fit, labels, make_episodes):
    bundle, _, _ = fit("ee_delta")
    assert bundle.probe.trust_O.min() > 0.8
    rng = np.random.default_rng(0)
    blind = tool_motions(labels)
    blind = replace(blind, joints=[rng.normal(size=state.shape) for state in blind.joints])
    video = torch.from_numpy(np.concatenate(make_episodes(2, seed=200).frames))
    probe = fit_adapter(blind, [], video, imported_spec(blind, "ee_delta"), BOUND, CONFIG)[0].probe
    assert probe.trust_O.max() < 0.2
    assert torch.equal(probe.read(video[:2]).trust, probe.trust_O)


def test_without_states_nothing_is_said_of_them(fit):
    bundle, figures, held_out = fit("ee_delta without states")
    assert not [name for name in figures if "state" in name]
    assert bundle.probe.read(torch.from_numpy(held_out.frames[0])).joints.shape == (
        len(held_out.frames[0]),
        0,
    )


def test_a_number_that_never_moves_is_not_counted(fit):
    _, figures, held_out = fit("ee_delta")
    assert held_out.commands[0].shape[1] == 4
    assert list(figures["command_r2"]) == ["number0", "number1", "number2"]


def test_a_shift_by_one_frame_is_noticed(fit):
    bundle, figures, held_out = fit("ee_delta")
    late = replace(held_out, latents=[np.roll(latents, 1, 0) for latents in held_out.latents])
    spec = imported_spec(held_out, "ee_delta")
    assert evaluate_adapter(bundle, late, spec)["command_error"] > 2 * figures["command_error"]


def test_motions_are_not_integrated(fit):
    """What was told before says nothing about a command that is a motion."""
    bundle, _, held_out = fit("ee_delta")
    rows, other = held_out.transitions(), torch.full((1, 4), 7.0)
    for call, given in (
        (bundle.adapter.latent_to_command, rows.latent_MA),
        (bundle.adapter.predict_joints, rows.command_MJ),
    ):
        once = call(given, rows.previous_command_MJ, rows.joints_MJ)
        assert torch.equal(once, call(given, other.expand(len(rows), -1), rows.joints_MJ))


def test_the_first_target_of_all_moves_nothing(fit):
    """Where states aren't the joints, nobody knows what the arm was told before."""
    bundle, _, held_out = fit("joint_position beside other states")
    adapter = bundle.adapter
    commands = torch.from_numpy(np.stack([told[0] for told in held_out.commands]))
    states = torch.from_numpy(np.stack([state[0] for state in held_out.joints]))
    unknown = adapter.first_command(states)
    latents = adapter.command_to_latent(commands, unknown, states)
    usual = adapter.usual_J.expand_as(commands)
    from_usual = adapter.command_to_latent(commands, usual, states)
    assert latents.abs().mean() < 0.3 * from_usual.abs().mean()
    stayed, moved = (adapter.predict_joints(commands, told, states) - states for told in (unknown, usual))
    assert stayed.abs().mean() < 0.2 * moved.abs().mean()
    assert adapter.latent_to_command(latents, unknown, states).isfinite().all()


def test_tasks_without_a_subject_are_not_judged(labels, held_out, make_episodes, spec):
    """A mixture's video may bring some; nothing that is infinite comes into the figures."""
    video = torch.from_numpy(np.concatenate(make_episodes(2, seed=200).frames))
    contract = replace(spec, tasks=(TaskSpec("imported", "", 30, 0.0, "none"), *spec.tasks))
    bundle, fitted = fit_adapter(labels, [], video, contract, BOUND, CONFIG)
    figures = evaluate_adapter(bundle, held_out, contract)
    names = {task.name for task in spec.tasks}
    assert bundle.judge is not None and set(bundle.judge.tasks) == names
    for judged in (figures["judge"], fitted["judge"]):
        assert set(judged) == names
        assert np.isfinite([list(values.values()) for values in judged.values()]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_answers_the_same(fit, kind, tmp_path):
    bundle, _, held_out = fit(kind)
    save_adapter(tmp_path, bundle)
    loaded, rows = load_adapter(tmp_path), held_out.transitions()
    assert loaded.judge is None and loaded.adapter.config == bundle.adapter.config
    inputs = (rows.previous_command_MJ, rows.joints_MJ)
    for name, given in (("latent_to_command", rows.latent_MA), ("predict_joints", rows.command_MJ)):
        ours, theirs = (getattr(one.adapter, name)(given, *inputs) for one in (bundle, loaded))
        assert torch.equal(ours, theirs)
    reading = loaded.probe.read(torch.from_numpy(held_out.frames[0]))
    assert all(place.isnan().all() for place in (reading.tool, reading.object, reading.goal))
    assert not reading.joints.isnan().any()


@pytest.mark.parametrize("version", [None, 1])
def test_folders_of_before_are_refused(fit, tmp_path, version):
    """Their maps are told something else, though their weights may be of the same sizes."""
    save_adapter(tmp_path, fit("ee_delta")[0])
    sizes = json.loads((tmp_path / "adapter.json").read_text())
    sizes = sizes | {"format": version} if version else {k: v for k, v in sizes.items() if k != "format"}
    (tmp_path / "adapter.json").write_text(json.dumps(sizes))
    with pytest.raises(CheckpointError, match="of another version; fit it again"):
        load_adapter(tmp_path)


def test_motions_need_the_size_of_a_state():
    with pytest.raises(ValueError, match="state_size"):
        ActionAdapter(ActionAdapterConfig(commands="motions"))


def test_states_of_another_size_are_named(fit):
    bundle, _, held_out = fit("ee_delta")
    rows = replace(held_out, joints=[state[:, :0] for state in held_out.joints]).transitions()
    with pytest.raises(ValueError, match="states of 5 numbers, the labels have 0"):
        bundle.adapter.fit(rows, imported_spec(held_out, "ee_delta").robot)
