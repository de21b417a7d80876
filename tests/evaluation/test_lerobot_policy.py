import numpy as np
import pytest

from robosim.errors import CheckpointError
from robosim.evaluation.policies import LeRobotPolicy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy that isn't robosim's own, saved the way LeRobot saves: with its normalising processors."""
    import torch
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    features = {
        "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
    }
    config = ACTConfig(
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (3,))},
        pretrained_backbone_weights=None,
        chunk_size=4,
        n_action_steps=2,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        use_vae=False,
        device="cpu",
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy") / "pretrained_model"
    ACTPolicy(config).save_pretrained(folder)
    ones = {"mean": torch.zeros(3), "std": torch.ones(3)}
    images = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
    shifted = {"mean": torch.full((3,), 100.0), "std": torch.full((3,), 0.01)}
    stats = {"observation.images.front": images, "observation.state": ones, "action": shifted}
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder)
    return folder


def observation(rows: int) -> dict:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8)
    return {"pixels": {"front": frames}, "agent_pos": generator.normal(size=(rows, 3)).astype(np.float32)}


def test_any_registered_policy_acts_with_its_processors(checkpoint):
    policy = LeRobotPolicy(checkpoint)
    policy.reset(3)
    first = policy.act(observation(3), ["reach"] * 3)
    assert first.shape == (3, 3) and first.dtype == np.float32
    assert first == pytest.approx(100, abs=1), "the post-processor puts actions back into the data's units"
    second = policy.act(observation(3), ["reach"] * 3)
    policy.reset(3)
    np.testing.assert_array_equal(policy.act(observation(3), ["reach"] * 3), first)
    assert not np.array_equal(first, second), "a chunk's second action follows the first"


def test_a_missing_or_damaged_policy_is_named(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing.*robosim pretrain"):
        LeRobotPolicy(tmp_path)
    (tmp_path / "config.json").write_text('{"type": "nobody"}')
    with pytest.raises(CheckpointError, match="can't be read"):
        LeRobotPolicy(tmp_path)
