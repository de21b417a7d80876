"""Growing chains: true frames to begin with, ever fewer from then on, none in the end."""

import pytest
import torch

from robosim.training.chains import GrowingChains
from robosim.training.loop import TrainConfig
from robosim.training.stages import LatentActionTraining, train_latent_action
from robosim.world_model.latent_action import LatentActionConfig
from tests.training.test_no_action_leak import make_run


def test_the_stage_trains_on_growing_chains(tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []
    make_run(run)
    monkeypatch.setattr(
        "robosim.training.stages.train",
        lambda model, batches, *rest: seen.extend(batches(s, slice(None)) for s in (0, 3)) or {},
    )
    model = LatentActionConfig(channels=8, blocks=1, chain=True)
    for start, end in ((None, 0.0), (0.5, 0.25)):
        steps = TrainConfig(steps=4, batch=3)
        config = LatentActionTraining(model, steps, clip_length=4, chain_start=start, chain_end=end)
        train_latent_action(config, run, 0, "cpu")
    assert "restart" not in seen[0]
    assert torch.equal(seen[2]["restart"], torch.ones(3))
    assert torch.equal(seen[3]["restart"], torch.full((3,), 0.25))
    assert torch.equal(seen[0]["frames"], seen[2]["frames"])


def batches(step: int, rows: slice) -> dict[str, torch.Tensor]:
    return {"noise_seed": torch.arange(6)[rows] + step}


def test_restarts_fall_from_all_to_none():
    chains = GrowingChains(batches, 0.5, 0.0, 100)
    shares = [chains.restart(step) for step in range(100)]
    assert shares[:50] == [1.0] * 50
    assert shares[74] == pytest.approx(0.5)
    assert shares[99] == 0.0
    assert shares == sorted(shares, reverse=True)


def test_some_restarts_can_be_left_to_the_end():
    chains = GrowingChains(batches, 0.5, 0.2, 100)
    shares = [chains.restart(step) for step in range(100)]
    assert shares[:50] == [1.0] * 50
    assert shares[74] == pytest.approx(0.6)
    assert shares[99] == pytest.approx(0.2)


def test_a_batch_is_the_same_but_for_its_restarts():
    batch = GrowingChains(batches, 0.0, 0.0, 10)(4, slice(2, 5))
    assert torch.equal(batch["noise_seed"], torch.tensor([6, 7, 8]))
    assert torch.equal(batch["restart"], torch.full((3,), 0.5))


@pytest.mark.parametrize(("chain", "start"), [(False, 0.5), (True, 1.0), (True, -0.1)])
def test_impossible_starts_are_refused(chain, start):
    with pytest.raises(ValueError, match="chain_start"):
        LatentActionTraining(LatentActionConfig(chain=chain), chain_start=start)


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.1), (0.5, -0.1), (None, 0.2)])
def test_impossible_ends_are_refused(start, end):
    with pytest.raises(ValueError, match="chain_end"):
        LatentActionTraining(LatentActionConfig(chain=True), chain_start=start, chain_end=end)
