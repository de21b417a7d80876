"""Augmented frames: the same for the same seed, alike in a whole clip, and never at play."""

from __future__ import annotations

import pytest
import torch

from robosim.world_model.augment import augment
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig


@pytest.fixture
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of two equal frames: a bright dot on a ramp, and weights that are 5 on the dot."""
    frames = torch.linspace(0.2, 0.6, 32).expand(3, 2, 32, 32)[..., None].repeat(1, 1, 1, 1, 3).contiguous()
    weight = torch.ones(3, 2, 32, 32, 1)
    frames[:, :, 12:18, 8:14] = 0.95
    weight[:, :, 12:18, 8:14] = 5
    return frames, weight


SEEDS = torch.tensor([5, 6, 7])


def test_a_row_depends_on_its_seed_alone(clip):
    frames, weight = clip
    together, _ = augment(frames, weight, SEEDS, 1.0)
    alone, _ = augment(frames[1:2], weight[1:2], SEEDS[1:2], 1.0)
    assert torch.equal(together[1:2], alone)
    assert not torch.allclose(together[0], together[1]) and not torch.allclose(together[0], frames[0])


def test_a_clip_is_changed_as_one_and_weights_move_with_their_pixels(clip):
    frames, weight = clip
    seen, moved = augment(frames, weight, SEEDS, 1.0)
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert seen.min() >= 0 and seen.max() <= 1 and moved.min() >= 1 - 1e-4 and moved.max() <= 5 + 1e-4
    for row in range(3):
        heavy = moved[row, 0, ..., 0] > 4.5
        assert heavy.any()
        # The dot is the brightest thing in every channel, whatever the tint.
        channel = seen[row, 0, ..., 0]
        assert channel[heavy].min() > channel[moved[row, 0, ..., 0] < 1.5].max()


def test_without_strength_nothing_changes(clip):
    frames, weight = clip
    seen, moved = augment(frames, weight, SEEDS, 0.0)
    assert torch.allclose(seen, frames, atol=1e-5) and torch.allclose(moved, weight, atol=1e-4)


def test_only_training_is_augmented():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(channels=8, augment=1.0), size=32)
    batch = {
        "frames": torch.randint(0, 256, (4, 1, 32, 32, 3), dtype=torch.uint8),
        "noise_seed": torch.arange(4),
    }
    losses = {tokenizer.train(mode) and tokenizer(batch)[0].item() for mode in (True, False)}
    assert len(losses) == 2
    tokenizer.eval()
    plain = Tokenizer(TokenizerConfig(channels=8), size=32).eval()
    plain.load_state_dict(tokenizer.state_dict())
    assert torch.equal(tokenizer.encode(batch["frames"][:, 0]), plain.encode(batch["frames"][:, 0]))


def test_another_strength_is_one_sentence():
    with pytest.raises(ValueError, match="augment must be between 0 and 1"):
        TokenizerConfig(augment=2.0)
