"""Tokenizer, latent actions and dynamics: what each must carry, and what it must not see."""

import pytest
import torch

from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.latent_action import (
    BOUND,
    LatentActionConfig,
    LatentActionModel,
    evaluate_latent_actions,
)
from robosim.world_model.metrics import moving_mask, pooled_psnr
from robosim.world_model.noise import sample_uniform
from robosim.world_model.quantise import FSQ, VectorQuantiser, kmeans
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig


@pytest.mark.parametrize("levels", [(8, 6, 5, 5), (3,), (2, 7)])
def test_fsq_numbers_every_code_once(levels):
    fsq = FSQ(levels)
    tokens = torch.arange(fsq.num_codes)
    codes = fsq.codes(tokens)
    assert torch.equal(fsq.index(codes), tokens)
    assert codes.abs().max() <= 1 and len(codes.unique(dim=0)) == fsq.num_codes


def test_fsq_rounds_onto_its_codes_and_lets_the_gradient_through():
    fsq = FSQ((8, 6, 5, 5))
    z = torch.randn(500, 4, requires_grad=True)
    codes = fsq(z)
    torch.testing.assert_close(codes, fsq.codes(fsq.index(codes)))
    codes.sum().backward()
    assert (z.grad > 0).all()


def test_vector_quantiser_moves_its_codes_to_the_data():
    torch.manual_seed(0)
    quantiser = VectorQuantiser(4, 2)
    data = torch.tensor([[0.9, 0.9], [-0.9, 0.9], [0.9, -0.9], [-0.9, -0.9]]).repeat(8, 1)
    optimiser = torch.optim.Adam(quantiser.parameters(), 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        code, index, loss = quantiser(data)
        loss.backward()
        optimiser.step()
    assert len(index.unique()) >= 3 and (code - data).abs().mean() < 0.3


def test_kmeans_finds_separate_clouds():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    generator = torch.Generator().manual_seed(0)
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    found = kmeans(points, 3, seed=0)
    assert torch.cdist(centres, found).min(1).values.max() < 0.1


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_tokenizer_learns_to_reconstruct(kind, video):
    torch.manual_seed(0)
    config = TokenizerConfig(kind=kind, channels=8, transformer=STConfig(dim=32, heads=2, layers=1, window=1))
    model = Tokenizer(config, 16)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        loss, metrics = model({"frames": video})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(metrics["psnr_db"].item())
    assert losses[-1] > losses[0] + 5
    tokens = model.eval().encode(video)
    assert tokens.shape == (8, 7, 4) and int(tokens.max()) < model.num_codes
    assert model.decode(tokens).shape == video.shape
    assert torch.equal(model.encode(video[2, 3]), tokens[2, 3]), "a frame's tokens depend on the frame alone"


def test_tokenizer_names_the_frame_size_it_reads():
    model = Tokenizer(TokenizerConfig(channels=8), 16)
    with pytest.raises(ValueError, match="16×16×3, got 24×24×3"):
        model.encode(torch.zeros(1, 24, 24, 3, dtype=torch.uint8))


@pytest.mark.parametrize("code", ["noise", "fsq", "vq"])
@pytest.mark.parametrize("forward_model", ["warp", "direct"])
def test_latent_actions_are_bounded_and_trainable(code, forward_model, video):
    torch.manual_seed(0)
    config = LatentActionConfig(code=code, forward_model=forward_model, channels=8, blocks=1)
    model = LatentActionModel(config, 16)
    pairs = video[:, 2:4]
    loss, _ = model({"frames": pairs, "noise_seed": torch.arange(8)})
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    latent = model.eval().infer(pairs[:, 0], pairs[:, 1])
    assert latent.shape == (8, 5) and latent.abs().max() <= max(BOUND, 1.0) + 1e-6
    assert model.predict(pairs[:, 0], latent).shape == pairs[:, 0].shape


def test_warp_starts_as_repeat_last(video):
    model = LatentActionModel(LatentActionConfig(channels=8, blocks=1), 16).eval()
    frame = video[:, 0].float() / 255
    torch.testing.assert_close(model.predict(frame, torch.randn(8, 5)), frame, atol=1e-5, rtol=0)


def test_trained_latent_actions_carry_the_motion():
    """Squares that move by different amounts: shuffled latent actions must predict clearly worse."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    frames = torch.full((256, 2, 16, 16, 3), 40, dtype=torch.uint8)
    for i in range(256):
        at = torch.randint(3, 9, (2,), generator=generator)
        by = torch.randint(-2, 3, (2,), generator=generator)
        for t in range(2):
            y, x = (at + t * by).tolist()
            frames[i, t, y : y + 5, x : x + 5] = torch.tensor([220, 120, 30], dtype=torch.uint8)
    model = LatentActionModel(LatentActionConfig(channels=16, blocks=2), 16)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(250):
        rows = torch.randint(0, 224, (48,), generator=generator)
        loss, _ = model({"frames": frames[rows], "noise_seed": rows + 1000 * step})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    figures = evaluate_latent_actions(model, frames[224:])
    assert figures["psnr_db"] > figures["repeat_last_psnr_db"] + 2
    assert figures["psnr_db"] > figures["shuffled_psnr_db"] + 3


def make_dynamics(**changes) -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(STConfig(dim=32, heads=2, layers=2, window=3), **changes)
    return Dynamics(config, (4, 3), 4, 2)


def make_batch(samples: int = 6, time: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "tokens": torch.randint(0, 12, (samples, time, 4), generator=generator),
        "latent_action": torch.randn(samples, time, 2, generator=generator),
        "draft": torch.randn(samples, time, 4, 4, generator=generator),
        "noise_seed": torch.arange(samples) + 10,
    }


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize("prediction", ["codes", "digits"])
def test_dynamics_overfits_a_batch(draft, prediction):
    model, batch = make_dynamics(draft=draft, prediction=prediction), make_batch()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        loss, _ = model(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_training_masks_leave_frames_clean_and_belong_to_the_sample():
    model = make_dynamics(clean_share=0.4)
    mask = model.training_mask(torch.arange(400), 6)
    assert not mask[:, 0].any()
    clean = (~mask[:, 1:].any(-1)).float().mean().item()
    assert 0.4 < clean < 0.6  # the asked share, and the frames whose low rate hid nothing
    alone = model.training_mask(torch.tensor([17]), 6)
    assert torch.equal(alone[0], mask[17])


def test_corruption_replaces_some_visible_tokens_by_the_draft():
    model, batch = make_dynamics(corruption=0.5), make_batch(64)
    corrupted = model.corrupt(batch["tokens"], batch["draft"], batch["noise_seed"])
    changed = (corrupted != batch["tokens"]).float().mean((0, 2))
    assert changed[0] == 0 and 0.05 < changed[1:].mean() < 0.4
    assert corrupted.min() >= 0 and corrupted.max() < 12


def test_pooled_psnr_and_moving_pixels():
    true = torch.zeros(2, 4, 4, 3)
    predicted = true.clone()
    predicted[0] += 0.1
    assert pooled_psnr(predicted, true) == pytest.approx(
        10 * torch.log10(torch.tensor(200.0)).item(), abs=1e-3
    )
    assert pooled_psnr((predicted * 255).byte(), (true * 255).byte()) == pytest.approx(23.2, abs=0.1)
    moved = true.clone()
    moved[0, 1, 2, 0] = 0.05
    moved[1, 0, 0, 1] = 0.03
    mask = moving_mask(moved, true)
    assert mask.sum() == 1 and mask[0, 1, 2]
    assert pooled_psnr(true, moved, mask) == pytest.approx(
        -10 * torch.log10(torch.tensor(0.0025 / 3)).item(), abs=1e-3
    )


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    together = sample_uniform(torch.tensor([5, 6, 7]), (3, 2), salt=1)
    assert torch.equal(sample_uniform(torch.tensor([6]), (3, 2), salt=1)[0], together[1])
    assert not torch.equal(sample_uniform(torch.tensor([6]), (3, 2), salt=2)[0], together[1])


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: STConfig(dim=130, heads=4), "130 must split into 4 heads"),
        (lambda: STConfig(window=0), "window"),
        (lambda: TokenizerConfig(levels=(8, 1)), "levels"),
        (lambda: TokenizerConfig(levels=(8,) * 6), "32768 codes"),
        (lambda: LatentActionConfig(code="fsq", dim=4), "one level a dimension"),
    ],
)
def test_impossible_configurations_are_refused_before_anything_is_trained(make, names):
    with pytest.raises(ValueError, match=names):
        make()
