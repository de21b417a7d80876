"""Latent actions: each choice carries the motion, stays in its bounds, and never needs another process's data."""

import pytest
import torch

from robosim.world_model.batch_norm import BatchNorm
from robosim.world_model.latent_action import (
    BOUND,
    LatentActionConfig,
    LatentActionModel,
    evaluate_latent_actions,
    evaluate_own_rollouts,
    infer_clip,
)
from robosim.world_model.metrics import moving_mask, pooled_psnr
from robosim.world_model.noise import sample_uniform
from robosim.world_model.st_transformer import STConfig

ALONE = STConfig(dim=16, heads=2, layers=1, window=1)
PAST = STConfig(dim=16, heads=2, layers=2, window=3)

KINDS = {
    "noise": {},
    "fsq": {"quantise": "fsq"},
    "discrete": {"kind": "discrete"},
}
NETWORKS = {
    "conv": {"channels": 8, "blocks": 1},
    "conv, chained": {"channels": 8, "blocks": 1, "chain": True},
    "transformer": {"network": "transformer", "patch": 4, "transformer": ALONE},
    "transformer with a past": {"network": "transformer", "patch": 4, "transformer": PAST},
}


def make(**changes) -> LatentActionModel:
    torch.manual_seed(0)
    return LatentActionModel(LatentActionConfig(**changes), 16)


def shaken(**changes) -> LatentActionModel:
    """With weights so large that everything the model reads shows in what it gives out."""
    model = make(**changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def squares(rows: int = 256, time: int = 2) -> torch.Tensor:
    """Clips uint8 [rows, time, 16, 16, 3] of a square that moves by an amount of its own."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.full((rows, time, 16, 16, 3), 40, dtype=torch.uint8)
    for i in range(rows):
        at = torch.randint(3, 9, (2,), generator=generator)
        by = torch.randint(-2, 3, (2,), generator=generator)
        for t in range(time):
            y, x = (at + t * by).clamp(0, 11).tolist()
            frames[i, t, y : y + 5, x : x + 5] = torch.tensor([220, 120, 30], dtype=torch.uint8)
    return frames


def train(model: LatentActionModel, frames: torch.Tensor, steps: int, batch: int = 48) -> list[float]:
    """The loss of every step."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for step in range(steps):
        rows = torch.randint(0, len(frames), (batch,), generator=generator)
        loss, _ = model({"frames": frames[rows], "noise_seed": rows + 1000 * step})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forward_model", ["warp", "direct"])
def test_every_choice_lowers_its_loss_and_comes_back_from_its_weights(network, kind, forward_model, video):
    model = make(forward_model=forward_model, **KINDS[kind], **NETWORKS[network])
    losses = train(model, video[:, 2:5], 12, batch=8)
    assert min(losses[-4:]) < losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    latents = model.infer_clips(video)
    assert latents.shape == (8, 6, 5) and latents.abs().max() <= BOUND + 1e-6
    predicted = model.predict(video[:, 2], latents[:, 2])
    assert predicted.shape == video[:, 2].shape and predicted.min() >= 0 and predicted.max() <= 1
    twin = LatentActionModel(model.config, 16).eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.infer_clips(video), latents)
    assert torch.equal(twin.predict(video[:, 2], latents[:, 2]), predicted)


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_only_a_transformer_with_a_past_looks_further_back_than_a_pair(network, video):
    model = shaken(**NETWORKS[network])
    clip, pair = model.infer_clips(video)[:, 4], model.infer(video[:, 4], video[:, 5])
    latents = torch.linspace(-1, 1, 8 * 6 * 5).view(8, 6, 5)
    in_clip = model.predict_clips(video[:, :-1], latents)[:, 4]
    alone = model.predict(video[:, 4], latents[:, 4])
    same = torch.allclose(clip, pair, atol=1e-4), torch.allclose(in_clip, alone, atol=1e-4)
    assert same == ((True, True) if not model.config.sees_past else (False, False))


@pytest.mark.parametrize("layer", ["by_whole", "fine", "refine"])
@torch.no_grad()
def test_the_whole_frame_and_full_resolution_have_their_say(layer, video):
    """From zero they learn to: the loss test sees their gradients. Here the prediction is another without them."""
    model, latent = shaken(channels=8, blocks=2), torch.linspace(-1, 1, 8 * 5).view(8, 5)
    with_it = model.predict(video[:, 2], latent)
    for parameter in getattr(model.forward_model, layer).parameters():
        parameter.zero_()
    assert (model.predict(video[:, 2], latent) - with_it).abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_a_latent_action_knows_no_later_frame(network, video):
    model, changed = shaken(**NETWORKS[network]), video.clone()
    changed[:, 4:] = changed[:, 4:].flip(2)
    a, b = model.infer_clips(video), model.infer_clips(changed)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert (a[:, 3] - b[:, 3]).abs().max() > 1e-3


def test_warp_starts_as_repeat_last(video):
    model = make(**NETWORKS["conv"]).eval()
    frame = video[:, 0].float() / 255
    torch.testing.assert_close(model.predict(frame, torch.randn(8, 5)), frame, atol=1e-5, rtol=0)


def test_trained_latent_actions_carry_the_motion():
    """Squares that move by different amounts: shuffled latent actions must predict clearly worse."""
    frames = squares()
    model = make(channels=8, blocks=1)
    train(model, frames[:224], 160)
    figures = evaluate_latent_actions(model, frames[224:])
    assert figures["psnr_db"] > figures["repeat_last_psnr_db"] + 2
    assert figures["psnr_db"] > figures["shuffled_psnr_db"] + 3


def test_discrete_latent_actions_use_all_their_codes():
    frames = squares()
    model = make(kind="discrete", channels=8, blocks=1)
    train(model, frames[:224], 60)
    figures = evaluate_latent_actions(model, frames[224:])
    assert figures["codes_used"] >= 6, "of 8, on 32 held-out pairs"
    assert "codes_used" not in evaluate_latent_actions(make(channels=8), frames[:8])


def test_snapping_gives_a_known_action_and_playable_ones_are_known():
    model = make(kind="discrete", **NETWORKS["conv"]).eval()
    model.choose_playable(torch.empty(0, 5), seed=0)
    assert torch.equal(model.playable, model.state_dict()["quantiser.codebook"])
    assert torch.equal(model.snap(model.playable), model.playable)
    near = model.playable[[3, 1]] + 1e-3
    assert torch.equal(model.snap(near), model.playable[[3, 1]])
    bounded = make(**NETWORKS["conv"])
    assert torch.equal(bounded.snap(near), near)
    bounded.choose_playable(torch.randn(50, 5), seed=0)
    assert len(bounded.playable.unique(dim=0)) == 8


def test_only_the_pairs_that_move_most_count(video):
    """Still pairs beside the others change nothing: neither the loss nor the statistics nor the codebook."""
    pairs = video[:, 2:4]
    still = video[:, :1].expand(-1, 2, -1, -1, -1)
    for network in ("conv", "transformer"):
        alone = make(kind="discrete", keep_pairs=1.0, **NETWORKS[network])
        beside = make(kind="discrete", keep_pairs=0.5, **NETWORKS[network])
        batch = {"frames": torch.cat([still, pairs]), "noise_seed": torch.arange(16)}
        loss, metrics = beside(batch)
        expected, _ = alone({"frames": pairs, "noise_seed": torch.arange(8)})
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(alone.norm.mean, beside.norm.mean)
        codebooks = (model.state_dict()["quantiser.codebook"] for model in (alone, beside))
        torch.testing.assert_close(*codebooks)
        assert metrics["weight"] == 8


@pytest.mark.parametrize("network", ["conv", "conv, chained"])
def test_a_process_whose_pairs_are_all_too_slow_takes_part_with_weight_zero(network, video, monkeypatch):
    model = make(kind="discrete", **NETWORKS[network])
    model({"frames": video[:, 2:4], "noise_seed": torch.arange(8)})  # so that the codebook has begun
    monkeypatch.setattr(model, "liveliest", lambda motion: torch.zeros_like(motion, dtype=torch.bool))
    loss, metrics = model({"frames": video[:, 2:4], "noise_seed": torch.arange(8)})
    loss.backward()
    assert loss.item() == 0 and metrics["weight"].item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_chain_of_one_pair_is_that_pair(video):
    """The same loss, statistics and weight, with the same share of the batch kept."""
    batch = {"frames": video[:, 2:4], "noise_seed": torch.arange(8)}
    pairs, chain = make(**NETWORKS["conv"]), make(**NETWORKS["conv, chained"])
    for model in (pairs, chain):
        torch.nn.init.normal_(model.forward_model.head.weight, std=0.2)
        torch.manual_seed(1)
    chain.load_state_dict(pairs.state_dict())
    (loss, metrics), (expected, of_pairs) = chain(batch), pairs(batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics, of_pairs)
    torch.testing.assert_close(chain.norm.mean, pairs.norm.mean)


def test_a_chain_sees_of_a_clips_frames_the_first_alone(video):
    """A new model repeats the last frame, so that its chain repeats the first: the loss is the distance to it."""
    model = make(keep_pairs=1.0, moving_weight=0.0, **NETWORKS["conv, chained"])
    loss, _ = model({"frames": video, "noise_seed": torch.arange(8)})
    frames = video.float() / 255
    torch.testing.assert_close(loss, (frames[:, 1:] - frames[:, :1]).square().mean(), atol=1e-5, rtol=1e-4)


def test_a_chain_is_what_predict_gives_frame_after_frame(video):
    model = shaken(noise=0.0, keep_pairs=1.0, moving_weight=0.0, **NETWORKS["conv, chained"])
    loss, metrics = model({"frames": video, "noise_seed": torch.arange(8)})
    latents, frame, errors = model.infer_clips(video), video[:, 0], []
    frame = frame[:, None].float().movedim(-1, -3) / 255
    for t in range(6):
        frame = model.forward_model(frame, latents[:, t : t + 1])
        errors.append((frame[:, 0].movedim(1, -1) - video[:, t + 1].float() / 255).square())
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    assert metrics["weight"] == 8


@pytest.mark.parametrize("restart", [0.5, 1.0])
def test_a_chain_begins_again_from_true_frames(video, restart):
    """A new model repeats what it is given: nearly always the frame before, or that of the last new beginning."""
    model = make(keep_pairs=1.0, moving_weight=0.0, **NETWORKS["conv, chained"])
    loss, _ = model({"frames": video, "noise_seed": torch.arange(8), "restart": torch.full((8,), restart)})
    frames = video.float() / 255
    afresh_BP = sample_uniform(torch.arange(8), (6,), salt=8) < restart
    assert afresh_BP.float().mean() > 0.3
    shown, errors = frames[:, 0], []
    for t in range(6):
        shown = torch.where(afresh_BP[:, t, None, None, None], frames[:, t], shown)
        errors.append((shown - frames[:, t + 1]).square())
    torch.testing.assert_close(loss, torch.stack(errors).mean(), atol=1e-5, rtol=1e-4)


def test_the_clips_of_a_chain_that_move_most_count(video):
    still = video[:, :1].expand(-1, 7, -1, -1, -1)
    alone, beside = (make(keep_pairs=kept, **NETWORKS["conv, chained"]) for kept in (1.0, 0.5))
    loss, metrics = beside({"frames": torch.cat([still, video]), "noise_seed": torch.arange(8).repeat(2)})
    expected, _ = alone({"frames": video, "noise_seed": torch.arange(8)})
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(alone.norm.mean, beside.norm.mean)
    assert metrics["weight"] == 8


def test_batch_norm_is_pytorchs():
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm1d(3, affine=False)
    for scale in (1.0, 4.0):
        x = torch.randn(10, 3) * scale + 2
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(ours(a), theirs(b))
        ours(a).pow(3).sum().backward()
        theirs(b).pow(3).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_clips_latent_actions_end_with_a_row_of_zeros(video):
    model = shaken(**NETWORKS["transformer with a past"])
    latent = infer_clip(model, video[0])
    torch.testing.assert_close(latent[:-1], model.infer_clips(video[:1])[0])
    assert latent.shape == (7, 5) and not latent[-1].any()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"quantise": "fsq", "dim": 4}, "one level a dimension"),
        ({"channels": 12}, "multiple of 8"),
        ({"codes": 1}, "codes at least 2"),
        ({"keep_pairs": 0.0}, "keep_pairs"),
        ({"chain": True, "network": "transformer", "transformer": PAST}, "got a window of 3"),
    ],
)
def test_impossible_configurations_are_refused(changes, names):
    with pytest.raises(ValueError, match=names):
        LatentActionConfig(**changes)


def test_frames_that_do_not_split_into_patches_are_refused():
    with pytest.raises(ValueError, match="size 24 must be a multiple of 16 for network=conv"):
        LatentActionModel(LatentActionConfig(), 24)


def test_own_rollouts_feed_on_their_own_frames():
    model, clips = shaken(channels=8, blocks=1), squares(4, 17)
    with torch.no_grad():
        latents = model.infer_clips(clips)
        frame = clips[:, 0]
        for step in range(4):
            frame = model.predict(frame, latents[:, step])
    figures = evaluate_own_rollouts(model, clips)
    assert list(figures) == ["1", "4", "8", "16"]
    moving = moving_mask(clips[:, 4], clips[:, 0])
    assert figures["4"] == pytest.approx(pooled_psnr(frame, clips[:, 4], moving))
    assert list(evaluate_own_rollouts(model, clips[:, :6])) == ["1", "4"]
