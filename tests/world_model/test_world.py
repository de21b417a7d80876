"""Rollouts: exact against the uncached model, causal in the actions, independent of the batch, branchable."""

import json
from itertools import pairwise

import pytest
import torch

from robosim.errors import CheckpointError
from robosim.world_model.decoding import SamplingConfig
from robosim.world_model.draft import draft_clips
from robosim.world_model.dynamics import has_past_like, led_to
from robosim.world_model.evaluate import evaluate_dynamics
from robosim.world_model.metrics import pooled_psnr
from robosim.world_model.world import WorldModel, seeded_generators
from tests.toy_run import write_toy_models
from tests.world_model.conftest import make_world

LATENTS = torch.linspace(-1.4, 1.4, 8 * 6 * 5).view(8, 6, 5)


KINDS = [
    *({"injection": i, "prediction": p} for i in ("add", "prepend", "modulate") for p in ("codes", "digits")),
    {"draft": False},
    {"draft_prior": True},
    {"draft_prior": True, "prediction": "digits"},
    {"quantiser": "vq"},
    {"temporal": True},
    {"temporal": True, "quantiser": "vq", "injection": "prepend"},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.no_grad()
def test_cached_logits_equal_the_uncached_forward_over_the_whole_history(video, kind):
    """The history is made by K refinement steps and a commit a frame; then all of it goes through at once."""
    world = make_world(**kind)
    dynamics = world.dynamics
    latents = torch.cat([world.infer_latents(video[:, :3]), LATENTS], 1)
    state = world.start(video[:, :3])
    tokens = [*world.tokenizer.encode_clips(video[:, :3]).unbind(1)]
    for t in range(2, latents.shape[1]):
        world.step(state, latents[:, t])
        tokens.append(state.tokens_BN)
    history = torch.stack(tokens, 1)
    assert history.shape[1] > 2 * dynamics.config.transformer.window, "the ring has gone round"
    present = world.draft(state, LATENTS[:, 0])
    cached_tokens = torch.zeros_like(state.tokens_BN)
    hidden = torch.arange(4).expand(8, 4) >= 2
    has_past = torch.ones(8, dtype=torch.bool)
    cached = dynamics.step(cached_tokens, hidden, LATENTS[:, 0], present, has_past, state.cache, commit=False)

    whole = torch.cat([history, cached_tokens[:, None]], 1)
    actions = torch.cat([latents, LATENTS[:, :1], LATENTS[:, :1]], 1)
    drafts = (
        draft_clips(world.tokenizer, world.latent_action, whole, actions) if present is not None else None
    )
    mask = torch.zeros_like(whole, dtype=torch.bool)
    mask[:, -1] = hidden
    x, condition = dynamics.embed(whole, mask, led_to(actions), drafts, has_past_like(whole))
    hidden = dynamics.of_tokens(dynamics.body(x, condition))[:, -1]
    uncached = dynamics.logits(hidden, None if drafts is None else drafts[:, -1])
    for ours, full in zip(cached, uncached, strict=True):
        assert (ours - full).abs().max() <= 1e-4 * full.abs().max()


@pytest.mark.parametrize("temporal", [False, True])
@torch.no_grad()
def test_frames_shown_one_by_one_equal_the_tokenizer_over_the_whole_clip(video, temporal):
    world = make_world(temporal=temporal)
    state = world.start(video[:, :1])
    tokens, frames = [state.tokens_BN], [state.frames]
    for t in range(6):
        world.step(state, LATENTS[:, t])
        tokens.append(state.tokens_BN)
        frames.append(state.frames)
    whole = world.tokenizer.decode_clips(torch.stack(tokens, 1))
    torch.testing.assert_close(torch.stack(frames, 1), whole, rtol=1e-4, atol=1e-4)
    alone = world.tokenizer.decode(tokens[-1])
    assert torch.allclose(alone, frames[-1], atol=1e-4) != temporal, "a temporal tokenizer looks back"


def test_a_known_frame_leaves_the_same_past_as_a_decoded_one(world, video):
    state = world.start(video[:2, :3])
    told = state.copy()
    for t in range(5):
        world.step(state, LATENTS[:2, t])
        world.take_known(told, state.tokens_BN, LATENTS[:2, t])
    assert torch.equal(told.frames, state.frames)
    torch.testing.assert_close(told.cache.keys, state.cache.keys)


def test_bfloat16_weights_play_and_stay_near_float32(world, video):
    world.sampling = SamplingConfig(steps=3, temperature=0.0)
    frames = [world.rollout(video[:2, :3], LATENTS[:2])]
    world.dynamics.bfloat16()
    frames.append(world.rollout(video[:2, :3], LATENTS[:2]))
    assert world.start(video[:2, :3]).cache.keys.dtype == torch.bfloat16
    assert (frames[0][:, 0] == frames[1][:, 0]).float().mean() > 0.5


def test_the_latent_action_changes_the_next_frame(world, video):
    still, moved = (world.rollout(video[:, :3], LATENTS * scale) for scale in (0.0, 1.0))
    assert (still.float() - moved.float()).abs().mean() > 1


def test_zeroed_action_injection_is_noticed(video):
    """Without the draft, the additive embedding is the only way in for the action."""
    world = make_world(draft=False)
    before = world.rollout(video[:, :3], LATENTS), world.rollout(video[:, :3], -LATENTS)
    assert not torch.equal(*before)
    for parameter in world.dynamics.embed_latent.parameters():
        parameter.zero_()
    after = world.rollout(video[:, :3], LATENTS), world.rollout(video[:, :3], -LATENTS)
    assert torch.equal(*after)


def test_delta_psnr_is_zero_exactly_where_latents_carry_nothing(video):
    world = make_world(draft=False)
    figures, predicted = evaluate_dynamics(world, video, context=2)
    assert predicted.shape == video[:, 2:].shape and figures["horizons"] == [1, 4]
    assert figures["delta_psnr_db"] != 0
    for parameter in world.dynamics.embed_latent.parameters():
        parameter.zero_()
    figures, _ = evaluate_dynamics(world, video, context=2)
    assert figures["delta_psnr_db"] == 0


def test_the_ceiling_of_a_temporal_tokenizer_sees_the_whole_clip(video):
    world = make_world(temporal=True)
    figures, _ = evaluate_dynamics(world, video, context=2)
    clips = world.reconstruct_clips(video)
    alone = world.decode_tokens(world.encode_frames(video))
    whole, cold = (pooled_psnr(frames[:, 5], video[:, 5]) for frames in (clips, alone))
    assert figures["ceiling_psnr_db"]["4"] == pytest.approx(whole) and abs(whole - cold) > 1e-3
    assert figures["repeat_last_psnr_db"]["1"] == pytest.approx(pooled_psnr(clips[:, 1], video[:, 2]))


def test_an_action_shows_in_the_very_next_frame(world, video):
    changed = LATENTS.clone()
    changed[:, 3] *= -1
    a, b = world.rollout(video[:, :3], LATENTS), world.rollout(video[:, :3], changed)
    assert not torch.equal(a[:, 3], b[:, 3])


@pytest.mark.parametrize("part", ["tokenizer", "latent_action", "dynamics"])
def test_a_model_of_another_version_says_how_to_make_it_again(part, tmp_path):
    run = tmp_path / "old"
    write_toy_models(run, make_world())
    path = run / part / "model.json"
    description = json.loads(path.read_text())
    description["config"]["transformers"] = description["config"].pop("channels", 8)
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=rf"another version.*transformers.*stage={part} out={run}"):
        WorldModel.load(run)


def test_batch_of_one_equals_batch_of_eight(world, video):
    together = world.rollout(video[:, :3], LATENTS)
    alone = [world.rollout(video[i : i + 1, :3], LATENTS[i : i + 1], seed=i) for i in range(8)]
    # A sum of floats in another order may flip a token that stood on the edge; noise of another row would flip most.
    assert (together == torch.cat(alone)).float().mean() > 0.9
    other = world.rollout(video[:1, :3], LATENTS[:1], seed=5)
    assert (together[:1] == other).float().mean() < 0.7


@pytest.mark.parametrize("temporal", [False, True])
def test_a_branch_goes_on_like_the_original_and_leaves_it_alone(video, temporal):
    world = make_world(temporal=temporal)
    state = world.start(video[:2, :3])
    branch = state.copy()
    ahead = [world.step(branch, LATENTS[:2, t]) for t in range(4)]
    again = [world.step(state, LATENTS[:2, t]) for t in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(ahead, again, strict=True))


@pytest.mark.parametrize("temporal", [False, True])
def test_rows_put_into_a_running_batch_are_as_if_alone(video, temporal):
    world = make_world(temporal=temporal)
    state = world.start(video[:3, :3])
    world.step(state, LATENTS[:3, 0])
    fresh = world.start(video[3:4, :2], generators=seeded_generators([7]))
    state.put_rows(torch.tensor([1]), fresh)
    expected = world.start(video[3:4, :2], generators=seeded_generators([7]))
    for t in range(3):
        frames = world.step(state, LATENTS[:3, t])
        assert torch.equal(frames[1:2], world.step(expected, LATENTS[1:2, t]))


def test_latents_between_context_frames_come_from_the_video(world, video):
    inferred = world.start(video[:2, :4])
    given = world.start(video[:2, :4], world.infer_latents(video[:2, :4]))
    other = world.start(video[:2, :4], torch.zeros(2, 3, 5))
    torch.testing.assert_close(inferred.cache.keys, given.cache.keys)
    assert not torch.allclose(inferred.cache.keys, other.cache.keys)


@torch.no_grad()
def test_revealed_tokens_are_fed_back_while_decoding(world, video, monkeypatch):
    """Each refinement step must see what the steps before it revealed, and keep it."""
    seen = []
    step = world.dynamics.step

    def spy(tokens, mask, *args, commit, **kwargs):
        seen.append((tokens.clone(), mask.clone(), commit))
        return step(tokens, mask, *args, commit=commit, **kwargs)

    monkeypatch.setattr(world.dynamics, "step", spy)
    state = world.start(video[:2, :1])
    seen.clear()
    world.sampling = SamplingConfig(steps=4)
    world.step(state, LATENTS[:2, 0])
    hidden = [mask.sum().item() for _, mask, _ in seen]
    assert hidden == sorted(hidden, reverse=True) and hidden[0] == mask_size(seen) and hidden[-1] == 0
    assert [commit for *_, commit in seen] == [False] * 4 + [True]
    for (before, mask, _), (after, _, _) in pairwise(seen[1:]):
        assert torch.equal(before[~mask], after[~mask])


def mask_size(seen) -> int:
    return seen[0][1].numel()


@torch.no_grad()
def test_decoding_commits_the_final_tokens(world, video):
    state = world.start(video[:2, :3])
    draft = world.draft(state, LATENTS[:2, 0])
    cache = state.cache.copy()
    world.step(state, LATENTS[:2, 0])
    visible = torch.zeros_like(state.tokens_BN, dtype=torch.bool)
    has_past = torch.ones(2, dtype=torch.bool)
    world.dynamics.step(state.tokens_BN, visible, LATENTS[:2, 0], draft, has_past, cache, commit=True)
    torch.testing.assert_close(cache.keys, state.cache.keys)
    assert cache.position.tolist() == state.cache.position.tolist() == [4, 4]
