"""The policy by itself: what it reads, what it remembers, what it learns from, and its checkpoint."""

from __future__ import annotations

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot_policy_robosim.keypoint_network import KeypointNetwork, soft_argmax


def test_soft_argmax_finds_a_peak_between_cells():
    scores = torch.full((1, 1, 8, 8), -20.0)
    scores[0, 0, 2, 5] = scores[0, 0, 2, 6] = 0.0  # cell centres at x = .375 and .625, y = -.375
    assert torch.allclose(soft_argmax(scores)[0, 0], torch.tensor([0.5, -0.375]), atol=1e-4)


@pytest.mark.slow
def test_the_network_learns_where_a_dot_is_from_few_pictures():
    torch.manual_seed(0)
    network = KeypointNetwork(outputs=2, bound=1.5, channels=16, keypoints=8, hidden=64)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)

    def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        corner = torch.randint(2, 28, (count, 2))
        image = 0.3 * torch.rand(count, 3, 32, 32)
        for picture, (x, y) in zip(image, corner.tolist(), strict=True):
            picture[0, y : y + 3, x : x + 3] = 1.0
        return image, (corner + 1.5) / 16 - 1

    image, where = pictures(160)
    for step in range(200):
        rows = torch.arange(32) + 32 * step % 160
        loss = (network(image[rows]) - where[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    new_image, new_where = pictures(64)
    error = (network(new_image) - new_where).abs().mean()
    assert error < 0.125  # two pixels of 32; the best constant is off by 0.4
    assert network(new_image).abs().max() < 1.5


def test_the_latent_action_reads_pixels_alone(policy, make_batch):
    batch = make_batch(3)
    latent = policy.predict_latent(batch)
    blind = {"observation.images.front": batch["observation.images.front"]}
    assert torch.equal(policy.predict_latent(blind), latent)
    assert not torch.equal(policy.predict_latent(make_batch(3, seed=1)), latent)


def test_commands_start_at_the_joints_and_follow_the_previous_command(policy, make_batch):
    first, second = make_batch(2), make_batch(2, seed=1)
    joints = first["observation.state"]
    command = policy.select_action(first)
    assert torch.equal(
        command, policy.adapter.latent_to_command(policy.predict_latent(first), joints, joints)
    )
    again = policy.select_action(second)
    expected = policy.adapter.latent_to_command(
        policy.predict_latent(second), command, second["observation.state"]
    )
    assert torch.equal(again, expected)
    policy.reset()
    assert torch.equal(policy.select_action(first), command)


def test_reset_of_one_row_leaves_the_other(policy, make_batch):
    batch = make_batch(2)
    fresh = policy.select_action(batch)
    moved = policy.select_action(batch)
    policy.reset()
    policy.select_action(batch)
    policy.reset(torch.tensor([True, False]))
    mixed = policy.select_action(batch)
    assert torch.equal(mixed[0], fresh[0]) and torch.equal(mixed[1], moved[1])
    assert not torch.equal(fresh[0], moved[0])


def test_rows_do_not_see_each_other(policy, make_batch):
    batch = make_batch(3)
    policy.select_action(batch)
    together = policy.select_action(batch)
    for row in range(3):
        policy.reset()
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        policy.select_action(alone)
        assert torch.allclose(policy.select_action(alone), together[row : row + 1], atol=1e-6)


def test_another_batch_size_without_reset_is_refused(policy, make_batch):
    policy.select_action(make_batch(2))
    with pytest.raises(ValueError, match=r"3 rows, the one before had 2: call reset"):
        policy.select_action(make_batch(3))


def test_cloning_prefers_latent_actions_and_weighs_rows(policy, make_batch):
    batch = make_batch(2) | {"action": torch.full((2, 2, 4), torch.nan)}
    target = policy.predict_latent(batch).detach()
    batch["latent_action"] = target + torch.tensor([[0.0], [2.0]])
    loss, metrics = policy(batch)
    assert loss.item() == pytest.approx(2.0) and metrics["bc_loss"] == pytest.approx(2.0)
    rows, _ = policy(batch, reduction="none")
    assert rows.tolist() == pytest.approx([0.0, 4.0], abs=1e-5)
    assert policy(batch | {"weight": torch.tensor([2.0, 0.0])})[0].item() == pytest.approx(0.0, abs=1e-5)


def test_cloning_on_commands_reaches_the_network_through_the_adapter(policy, make_batch):
    batch = make_batch(2)
    joints = batch["observation.state"]
    wanted = policy.adapter.latent_to_command(policy.predict_latent(batch), joints, joints).detach()
    batch["action"] = torch.stack([torch.full_like(wanted, 9.0), wanted], dim=1)
    batch["action_is_pad"] = torch.tensor(
        [[True, False]] * 2
    )  # first frames: the command before is the joints
    assert policy(batch)[0].item() == pytest.approx(0.0, abs=1e-6)
    batch["action_is_pad"] = torch.zeros(2, 2, dtype=torch.bool)
    batch["action"] = torch.stack([joints, wanted + 0.1], dim=1)
    loss, _ = policy(batch)
    assert loss.item() == pytest.approx(0.1, abs=1e-5)
    loss.backward()
    assert all(p.grad is None for p in policy.adapter.parameters())
    assert sum(p.grad.abs().sum() for p in policy.get_optim_params()) > 0


def test_checkpoint_comes_back_through_lerobot_with_its_adapter(policy, make_batch, tmp_path):
    policy.save_pretrained(tmp_path)
    for processor in make_pre_post_processors(policy.config):
        processor.save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    assert config.type == "robosim_latent" and config.adapter == {"num_joints": 4}
    loaded = get_policy_class(config.type).from_pretrained(tmp_path, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(tmp_path))
    batch = make_batch(2)
    command = after(loaded.select_action(before(batch)))
    assert torch.equal(command, policy.select_action(batch))
    for name, tensor in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors"}


def test_a_missing_camera_is_named(config):
    config.camera = "wrist"
    with pytest.raises(ValueError, match=r"needs observation\.images\.wrist; .* observation\.images\.front"):
        config.validate_features()
