"""The network from how joints move to the latent action: better where motions bend with the posture, and safe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robosim.adapter import ActionAdapter, ActionAdapterConfig, AdapterBundle, load_adapter, save_adapter
from robosim.adapter.fit import fit_commands
from robosim.adapter.motion_network import MotionNetwork
from robosim.adapter.ridge import BilinearRidge
from tests.adapter.conftest import BOUND

ROWS, EPISODES = 240, 12


def bent(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [M, 4] (a motion in the plane, a posture) and latent actions [M, 2]: that motion, turned."""
    generator = torch.Generator().manual_seed(seed)
    motion, posture = (torch.rand(ROWS, 2, generator=generator) * 2 - 1 for _ in range(2))
    angle = 3 * posture[:, 0] + posture[:, 1]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).unflatten(1, (2, 2))
    return torch.cat([motion, posture], 1), torch.tanh((turn @ motion[..., None])[..., 0]) * BOUND


def told(found: torch.Tensor, true: torch.Tensor) -> float:
    return 1 - ((found - true).square().sum() / (true - true.mean(0)).square().sum()).item()


def test_it_tells_left_out_and_new_motions_that_bend_with_the_posture():
    (x, latent), (new, wanted) = bent(0), bent(1)
    episode = torch.arange(ROWS) % EPISODES
    network = MotionNetwork(4, 2)
    left_out = told(network.fit(x, latent, episode, BOUND, 1.3), latent)
    ridge = BilinearRidge(2, 2, 2, speed=True)
    bilinear = ridge.fit(x[:, :2], x[:, 2:], torch.atanh(latent / BOUND), episode)
    assert left_out > 0.9 > told(torch.tanh(bilinear) * BOUND, latent) + 0.1
    assert told(torch.tanh(network(new)) * BOUND, wanted) == pytest.approx(left_out, abs=0.05)


def test_the_left_out_ones_never_saw_their_episode():
    """Latent actions drawn by lot: what was seen can be learned by heart, what was left out can't be told at all."""
    x, _ = bent(0)
    latent = torch.rand(ROWS, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    network = MotionNetwork(4, 2)
    assert told(network.fit(x, latent, torch.arange(ROWS) % EPISODES, BOUND, 1.3), latent) < 0
    assert told(torch.tanh(network(x)) * BOUND, latent) > 0.2
    alone = network.fit(x, latent, torch.zeros(ROWS), BOUND, 1.3)
    assert torch.equal(alone, torch.tanh(network(x)) * BOUND), "a single episode can't be left out"


def test_what_was_drawn_before_changes_nothing():
    x, latent = bent(0)
    episode, found = torch.arange(ROWS) % EPISODES, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = MotionNetwork(4, 2)
        found.append(network.fit(x, latent, episode, BOUND, 1.3))
        found.append(network(x))
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def test_beyond_the_labels_it_says_what_it_says_at_their_edge():
    x, latent = bent(0)
    network = MotionNetwork(4, 2)
    network.fit(x, latent, torch.arange(ROWS) % EPISODES, BOUND, 1.3)
    edge = network.mean_F + 1.3 * ((x - network.mean_F).abs().amax(0)) * x.sign()
    torch.testing.assert_close(network(1000 * x.sign()), network(edge))
    assert not torch.equal(network(edge), network(0.9 * edge))


def test_a_single_episode_decides_nothing(labels, spec):
    adapter, errors = fit_commands(labels.take([0]), spec, BOUND)
    assert adapter.config.latent_map == "ridge" and adapter.config.rank == 5 and errors["latent_r2"] <= 1


@pytest.mark.parametrize(("better", "kept"), [(True, "network"), (False, "ridge")])
def test_it_is_kept_where_left_out_episodes_speak_for_it(labels, spec, monkeypatch, better, kept):
    known = {"ridge": 0.7, "network": 0.8 if better else 0.7}
    monkeypatch.setattr(
        ActionAdapter, "fit", lambda self, *given: {"latent_r2": known[self.config.latent_map]}
    )
    adapter, errors = fit_commands(labels, spec, BOUND)
    assert adapter.config.latent_map == kept and errors == {"latent_r2": known[kept]}


def test_an_adapter_with_it_follows_and_is_saved_whole(labels, held_out, bundle, spec, tmp_path):
    adapter = ActionAdapter(ActionAdapterConfig(latent_map="network"))
    errors = adapter.fit(labels.transitions(), spec.robot)
    assert errors["latent_r2"] > 0.9
    save_adapter(tmp_path, AdapterBundle(adapter, bundle.probe, bundle.judge))
    again, rows = load_adapter(tmp_path).adapter, held_out.transitions()
    given = rows.command_MJ, rows.previous_command_MJ, rows.joints_MJ
    latent = adapter.command_to_latent(*given)
    assert torch.equal(again.command_to_latent(*given), latent)
    assert told(latent, rows.latent_MA) > 0.85 and latent.abs().max() <= BOUND


def test_states_that_are_not_the_joints_are_told_by_the_ridge():
    config = ActionAdapterConfig(latent_map="network")
    with pytest.raises(ValueError, match="latent_map=network needs commands that are targets"):
        ActionAdapter(replace(config, state_size=3))
