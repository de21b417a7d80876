"""Dynamics: what it must learn, and what its training masks and corruptions must keep to."""

import pytest
import torch

from robosim.world_model import quantise
from robosim.world_model.dynamics import Digits, Dynamics, DynamicsConfig
from robosim.world_model.st_transformer import STConfig

FSQ, VQ = (4, 3), (12,)

CODES = quantise.FSQ(FSQ).codes(torch.arange(12))


def make_dynamics(levels: tuple[int, ...] = FSQ, **changes) -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(STConfig(dim=32, heads=2, layers=2, window=3), **changes)
    return Dynamics(config, levels, 4, 2, CODES)


def make_batch(samples: int = 6, time: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "tokens": torch.randint(0, 12, (samples, time, 4), generator=generator),
        "latent_action": torch.randn(samples, time, 2, generator=generator),
        "draft": torch.randn(samples, time, 4, 4, generator=generator),
        "noise_seed": torch.arange(samples) + 10,
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"draft": False},
        {"prediction": "digits"},
        {"draft_prior": True},
        {"draft_prior": True, "prediction": "digits"},
        {"levels": VQ, "draft_prior": True, "mask_schedule": "whole"},
        {"injection": "prepend"},
        {"injection": "modulate", "prediction": "digits"},
        {"levels": VQ, "mask_schedule": "uniform", "clean_share": 0.0},
    ],
    ids=str,
)
def test_dynamics_overfits_a_batch(options):
    model, batch = make_dynamics(**options), make_batch()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        loss, _ = model(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("injection", ["add", "prepend", "modulate"])
def test_an_action_reaches_its_frame_and_none_before(injection):
    model, batch = make_dynamics(injection=injection, draft=False).eval(), make_batch(2)
    for name, parameter in model.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    hidden = torch.ones(2, 5, 4, dtype=torch.bool)
    has_past = torch.tensor([False, True, True, True, True]).expand(2, 5)

    def logits(action):
        x, condition = model.embed(batch["tokens"], hidden, action, None, has_past)
        return model.logits(model.of_tokens(model.body(x, condition)), None)[0]

    changed = batch["latent_action"].clone()
    changed[:, 3] += 1
    before, after = logits(batch["latent_action"]), logits(changed)
    assert before.shape == (2, 5, 4, 12)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert ((before[:, 3:] - after[:, 3:]).abs().amax((-1, -2)) > 1e-3).all()
    changed[:, 0] += 1  # nothing led to the first frame
    torch.testing.assert_close(logits(changed)[:, 0], before[:, 0])


def test_digits_are_the_numbers_of_their_token():
    digits, tokens = Digits((8, 6, 5, 5)), torch.arange(1200)
    parts = digits.split(tokens)
    assert [int(part.max()) for part in parts] == [7, 5, 4, 4] and digits.num_codes == 1200
    assert torch.equal(digits.join(parts), tokens)
    assert [int(part[9]) for part in parts] == [1, 1, 0, 0], "9 = 1 + 1 · 8"
    alone = Digits((1024,))
    assert torch.equal(alone.join(alone.split(tokens)), tokens)


def test_training_masks_leave_frames_clean_and_belong_to_the_sample():
    model = make_dynamics(clean_share=0.4)
    mask = model.training_mask(torch.arange(400), 6)
    assert not mask[:, 0].any()
    clean = (~mask[:, 1:].any(-1)).float().mean().item()
    assert 0.4 < clean < 0.6  # the asked share, and the frames whose low rate hid nothing
    alone = model.training_mask(torch.tensor([17]), 6)
    assert torch.equal(alone[0], mask[17])


@pytest.mark.parametrize(("schedule", "mean"), [("uniform", 0.75), ("cosine", 2 / torch.pi)])
def test_mask_rates_follow_the_schedule(schedule, mean):
    mask = make_dynamics(mask_schedule=schedule, clean_share=0.0).training_mask(torch.arange(2000), 6)[:, 1:]
    assert mask.float().mean().item() == pytest.approx(mean, abs=0.01)
    fully = mask.all(-1).float().mean().item()
    # ∫ p⁴ over the rates: U(0.5, 1) gives 31/80 on (1 − 1/32) / (5 · ½), the cosine 3/8.
    assert fully == pytest.approx(2 * (1 - 0.5**5) / 5 if schedule == "uniform" else 0.375, abs=0.02)


def test_a_batch_without_a_hidden_token_costs_nothing():
    model = make_dynamics(clean_share=1.0)
    loss, metrics = model(make_batch())
    loss.backward()
    assert loss.item() == 0 and metrics["weight"].item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_weight_puts_parts_of_a_batch_together():
    """Two halves, each weighted by its hidden tokens, have the loss of the whole: processes and micro-batches."""
    model, batch = make_dynamics(injection="modulate"), make_batch(6)
    whole, metrics = model(batch)
    halves = [model({name: value[rows] for name, value in batch.items()}) for rows in (slice(2), slice(2, 6))]
    total = sum(part["weight"] for _, part in halves)
    assert total == metrics["weight"] and len({int(part["weight"]) for _, part in halves}) == 2
    torch.testing.assert_close(sum(loss * part["weight"] for loss, part in halves) / total, whole)


def test_corruption_replaces_some_visible_tokens_by_the_draft():
    model, batch = make_dynamics(corruption=0.5), make_batch(64)
    drafted = torch.randint(0, 12, batch["tokens"].shape, generator=torch.Generator().manual_seed(3))
    codes = [digit - level // 2 for digit, level in zip(model.digits.split(drafted), FSQ, strict=True)]
    codes = torch.stack([code / (level // 2) for code, level in zip(codes, FSQ, strict=True)], -1)
    batch["draft"][..., 2:] = codes
    corrupted = model.corrupt(batch["tokens"], batch["draft"], batch["noise_seed"])
    changed = corrupted != batch["tokens"]
    share = changed.float().mean((0, 2))
    assert share[0] == 0 and 0.05 < share[1:].mean() < 0.4
    assert torch.equal(corrupted[changed], drafted[changed])


@pytest.mark.parametrize("options", [{"draft": False}, {"levels": VQ}], ids=str)
def test_corruption_without_drafted_digits_takes_any_token(options):
    model, batch = make_dynamics(corruption=0.5, **options), make_batch(64)
    draft = batch["draft"] if model.config.draft else None
    corrupted = model.corrupt(batch["tokens"], draft, batch["noise_seed"])
    changed = corrupted != batch["tokens"]
    share = changed.float().mean((0, 2))
    assert share[0] == 0 and 0.05 < share[1:].mean() < 0.4
    assert set(corrupted[changed].tolist()) == set(range(12)), "every token of the vocabulary, and no other"
    again = model.corrupt(
        batch["tokens"][5:6], None if draft is None else draft[5:6], batch["noise_seed"][5:6]
    )
    assert torch.equal(again[0], corrupted[5]), "it belongs to the sample"


def test_dynamics_builds_without_memory():
    with torch.device("meta"):
        model = make_dynamics(injection="modulate")
    assert all(p.is_meta for p in model.parameters()) and not list(model.buffers())
