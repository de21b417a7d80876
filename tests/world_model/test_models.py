"""What the three models share: drafts, picture metrics, noise, and the paper's sizes."""

import pytest
import torch

from robosim.world_model.draft import check_draft, draft_clips, draft_next
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel
from robosim.world_model.metrics import moving_mask, pooled_psnr
from robosim.world_model.noise import sample_uniform
from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig

ALONE = STConfig(dim=32, heads=2, layers=2, window=1)
PAST = STConfig(dim=32, heads=2, layers=2, window=3)


def make_parts(tokenizer: dict, latent_action: dict | None = None) -> tuple[Tokenizer, LatentActionModel]:
    """Untrained, with weights so large that a different input shows."""
    torch.manual_seed(0)
    parts = (
        Tokenizer(TokenizerConfig(channels=8, **tokenizer), 16),
        LatentActionModel(LatentActionConfig(channels=8, blocks=1, **(latent_action or {})), 16),
    )
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        part.eval()
    return parts


@pytest.mark.parametrize(
    "tokenizer",
    [
        {},
        {"kind": "vit", "encoder": ALONE, "decoder": ALONE, "quantiser": "vq", "codes": 32, "code_dim": 4},
        {"kind": "vit", "encoder": PAST, "decoder": PAST},
    ],
    ids=["conv", "vit, vq", "st-vivit"],
)
@torch.no_grad()
def test_drafts_of_clips_are_those_made_frame_by_frame(tokenizer, video):
    tokenizer, latent_action = make_parts(tokenizer)
    tokens, latents = tokenizer.encode_clips(video), torch.linspace(-1, 1, 8 * 7 * 5).view(8, 7, 5)
    drafts = draft_clips(tokenizer, latent_action, tokens, latents)
    assert drafts.shape == (8, 7, 4, 2 * tokenizer.code_dim) and not drafts[:, 0].any()
    state = tokenizer.new_state(8)
    for t in range(6):
        codes = tokenizer.codes(tokens[:, t])
        frames = tokenizer.decode_next(codes, state)
        streamed = draft_next(tokenizer, latent_action, codes, frames, latents[:, t], state)
        torch.testing.assert_close(streamed, drafts[:, t + 1], atol=1e-4, rtol=1e-4)
    assert (drafts[:, 2] - draft_clips(tokenizer, latent_action, tokens, -latents)[:, 2]).abs().max() > 1e-3


@torch.no_grad()
def test_where_the_draft_changes_nothing_the_present_codes_remain(video, monkeypatch):
    tokenizer, latent_action = make_parts({"kind": "vit", "encoder": PAST, "decoder": PAST})
    monkeypatch.setattr(latent_action, "predict", lambda frames, latent: frames)
    tokens = tokenizer.encode_clips(video)
    drafts = draft_clips(tokenizer, latent_action, tokens, torch.zeros(8, 7, 5))
    present = tokenizer.codes(tokens[:, 0])
    torch.testing.assert_close(drafts[:, 1, :, tokenizer.code_dim :], present, atol=1e-5, rtol=0)


def test_a_draft_needs_a_forward_model_of_one_frame():
    past = {"network": "transformer", "patch": 4, "transformer": PAST}
    check_draft(*make_parts({}, past | {"transformer": ALONE}))
    with pytest.raises(ValueError, match=r"transformer.window=1, got 3; or set dynamics.model.draft=false"):
        check_draft(*make_parts({}, past))
    small = Tokenizer(TokenizerConfig(channels=8), 8)
    with pytest.raises(ValueError, match="tokenizer of 8 px and latent actions of 16 px"):
        check_draft(small, make_parts({})[1])


def test_the_papers_sizes_build_without_memory():
    """Genie's table of sizes (arXiv 2402.15391): a tokenizer of 200M, latent actions of 300M and more."""
    encoder = STConfig(dim=512, heads=8, layers=12, window=16)
    decoder = STConfig(dim=1024, heads=16, layers=20, window=16)
    with torch.device("meta"):
        tokenizer = Tokenizer(
            TokenizerConfig(kind="vit", patch=4, quantiser="vq", encoder=encoder, decoder=decoder), 128
        )
        latent_action = LatentActionModel(
            LatentActionConfig(
                kind="discrete", dim=32, network="transformer", transformer=decoder, forward_model="direct"
            ),
            128,
        )
    assert tokenizer.num_tokens == 1024 and tokenizer.digit_levels == (1024,) and tokenizer.temporal
    assert 200e6 < sum(p.numel() for p in tokenizer.parameters()) < 450e6
    assert 300e6 < sum(p.numel() for p in latent_action.parameters()) < 700e6


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
