"""Tokenizers: each choice learns, codes a video the same at once and frame by frame, and says what it can't do."""

import pytest
import torch

from robosim.world_model.st_transformer import STConfig
from robosim.world_model.tokenizer import Tokenizer, TokenizerConfig, evaluate_tokenizer

ALONE = STConfig(dim=32, heads=2, layers=2, window=1)
PAST = STConfig(dim=32, heads=2, layers=2, window=3)

CHOICES = {
    "conv": {},
    "conv, patch 4": {"patch": 4},
    "conv, patch 16": {"patch": 16},
    "conv, vq": {"quantiser": "vq", "codes": 64, "code_dim": 8},
    "vit": {"kind": "vit"},
    "vit, patch 4, convolutional stem": {"kind": "vit", "patch": 4, "stem": "conv"},
    "vit, patch 16, convolutional stem": {"kind": "vit", "patch": 16, "stem": "conv"},
    "vit, vq": {"kind": "vit", "quantiser": "vq", "codes": 64, "code_dim": 8},
    "st-vivit": {"kind": "vit", "encoder": PAST, "decoder": PAST},
    "st-vivit, patch 4, vq": {
        "kind": "vit", "patch": 4, "encoder": PAST, "decoder": PAST, "quantiser": "vq", "codes": 64, "code_dim": 8
    },
    "past in the encoder alone": {"kind": "vit", "encoder": PAST},
    "past in the decoder alone": {"kind": "vit", "stem": "conv", "decoder": PAST},
}  # fmt: skip
TEMPORAL = [name for name, choice in CHOICES.items() if PAST in choice.values()]
TIMELESS = [name for name in CHOICES if name not in TEMPORAL]


def make(name: str, size: int = 16) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(
        TokenizerConfig(**({"channels": 8, "encoder": ALONE, "decoder": ALONE} | CHOICES[name])), size
    )


@pytest.fixture
def clips(video) -> torch.Tensor:
    return video[:3, :5]


def train(model: Tokenizer, clips: torch.Tensor, steps: int) -> list[float]:
    """The PSNR of every step."""
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    gained = []
    for _ in range(steps):
        loss, metrics = model({"frames": clips})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        gained.append(metrics["psnr_db"].item())
    model.eval()
    return gained


def shaken(name: str) -> Tokenizer:
    """With weights so large that attention isn't flat and different pictures have different tokens."""
    model = make(name)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_learns_and_comes_back_from_its_weights(name, clips):
    model = make(name)
    gained = train(model, clips, 40)
    assert gained[-1] > gained[0] + 4
    tokens = model.encode_clips(clips)
    assert tokens.shape == (3, 5, (16 // model.config.patch) ** 2)
    assert tokens.min() >= 0 and tokens.max() < model.num_codes and len(tokens.unique()) > 3
    assert model.codes(tokens).shape == (*tokens.shape, model.code_dim)
    decoded = model.decode_clips(tokens)
    assert decoded.shape == clips.shape and decoded.min() >= 0 and decoded.max() <= 1
    twin = Tokenizer(model.config, 16).eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.encode_clips(clips), tokens)
    assert torch.equal(twin.decode_clips(tokens), decoded)


@pytest.mark.parametrize("name", TIMELESS)
def test_without_a_past_a_frames_tokens_depend_on_the_frame_alone(name, clips):
    model = shaken(name)
    tokens = model.encode(clips)
    assert not model.temporal
    assert torch.equal(model.encode(clips[2, 3]), tokens[2, 3])
    assert torch.equal(model.encode_clips(clips), tokens)
    torch.testing.assert_close(model.decode_clips(tokens), model.decode(tokens))


@pytest.mark.parametrize("name", TEMPORAL)
def test_with_a_past_a_frame_alone_is_the_first_of_a_clip(name, clips):
    model = shaken(name)
    tokens = model.encode_clips(clips)
    assert model.temporal
    assert torch.equal(model.encode(clips[:, 0]), tokens[:, 0])
    torch.testing.assert_close(model.decode(tokens[:, 0]), model.decode_clips(tokens)[:, 0])
    whole, single = model.decode_clips(tokens), model.decode(model.encode(clips))
    assert (whole - single)[:, 1:].abs().max() > 1e-3


@pytest.mark.parametrize("name", ["conv", "vit, vq", *TEMPORAL])
@torch.no_grad()
def test_a_video_frame_by_frame_is_coded_as_at_once(name, clips):
    """Five frames, the window being three: the caches must forget as the band does."""
    model = shaken(name)
    features = model.quantiser.normalised(model.encoder(clips.float() / 255))
    tokens = model.encode_clips(clips)
    codes, decoded = model.codes(tokens), model.decode_clips(tokens)
    state, coder = model.new_state(3), model.new_state(3)
    for t in range(clips.shape[1]):
        guess = model.features_next(clips[:, (t + 2) % 5], state, commit=False)  # must leave no trace
        stepped = model.features_next(clips[:, t], state, commit=True)
        torch.testing.assert_close(stepped, features[:, t], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(guess, stepped, atol=1e-3)
        assert torch.equal(model.encode_next(clips[:, t], coder, commit=True), tokens[:, t])
        pixels = model.decode_next(codes[:, t], state)
        torch.testing.assert_close(pixels, decoded[:, t], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["conv", "st-vivit"])
@torch.no_grad()
def test_a_state_branches_and_its_rows_start_again(name, clips):
    model = shaken(name)
    tokens = model.encode_clips(clips)
    codes = model.codes(tokens)
    state = model.new_state(3)
    for t in range(4):
        model.features_next(clips[:, t], state, commit=True)
        model.decode_next(codes[:, t], state)
    branch, part = state.copy(), state.take_rows(torch.tensor([2, 0]))
    state.put_rows(torch.tensor([1]), model.new_state(1))
    ahead = model.decode_next(codes[:, 4], state)
    whole = model.decode_clips(tokens)
    others = [0, 2]
    torch.testing.assert_close(ahead[others], whole[others, 4], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ahead[1], model.decode(tokens[1, 4]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.decode_next(codes[:, 4], branch), whole[:, 4], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.decode_next(codes[[2, 0], 4], part), whole[[2, 0], 4], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["conv", "vit, vq"])
@torch.no_grad()
def test_the_expected_code_is_the_mean_over_all_codes(name):
    model = shaken(name)
    logits = torch.randn(2, 3, model.num_codes, generator=torch.Generator().manual_seed(0)) * 3
    codes = model.codes(torch.arange(model.num_codes))
    mean = (logits.softmax(-1)[..., None] * codes).sum(-2)
    torch.testing.assert_close(model.expected_codes([logits]), mean)
    sure = torch.nn.functional.one_hot(torch.tensor([5, 0, 17]), model.num_codes) * 1e4
    torch.testing.assert_close(model.expected_codes([sure]), codes[[5, 0, 17]])


@torch.no_grad()
def test_expected_codes_by_digits_are_those_of_the_whole_code():
    model = shaken("conv")
    generator = torch.Generator().manual_seed(0)
    digits = [torch.randn(4, level, generator=generator) for level in model.digit_levels]
    whole = digits[0]
    for digit in digits[1:]:  # the first digit changes fastest
        whole = (digit[..., :, None] + whole[..., None, :]).flatten(-2)
    torch.testing.assert_close(
        model.expected_codes(digits), model.expected_codes([whole]), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("quantiser", ["fsq", "vq"])
def test_codes_do_not_collapse(quantiser):
    """Frames of plain random colours need many codes; a transformer alone would put them all onto one."""
    torch.manual_seed(0)
    small = STConfig(dim=16, heads=2, layers=1, window=1)
    config = TokenizerConfig(
        kind="vit", patch=16, encoder=small, decoder=small, foreground_weight=0.0,
        quantiser=quantiser, levels=(6, 4), codes=24, code_dim=4,
    )  # fmt: skip
    model = Tokenizer(config, 16)
    colours = torch.randint(0, 256, (64, 1, 1, 1, 3), dtype=torch.uint8).expand(64, 1, 16, 16, 3)
    train(model, colours, 100)
    assert len(model.encode(colours).unique()) >= (16 if quantiser == "vq" else 10)


def test_evaluation_reports_the_cold_first_frame_only_where_time_matters(video):
    alone, temporal = make("vit"), make("st-vivit")
    figures = evaluate_tokenizer(temporal, video, horizon=2)
    first = temporal.decode(temporal.encode(video[:, 0]))
    error = (first - video[:, 0] / 255).square().mean()
    assert figures["cold_psnr_db"] == pytest.approx(-10 * torch.log10(error).item(), abs=1e-3)
    assert "cold_psnr_db" not in evaluate_tokenizer(alone, video, horizon=2)


def test_the_weight_is_the_number_of_frames(video):
    model = make("conv, vq")
    assert model({"frames": video})[1]["weight"] == 8 * 7


def test_tokenizer_names_the_frame_size_it_reads():
    model = make("conv")
    with pytest.raises(ValueError, match="16×16×3, got 24×24×3"):
        model.encode(torch.zeros(1, 24, 24, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="size 20 must be a multiple of the tokenizer's patch 8"):
        make("conv", size=20)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"patch": 5}, "patch must be one of 4, 8, 16, got 5"),
        ({"levels": (8, 1)}, "levels"),
        ({"levels": (8,) * 6}, "32768 codes"),
        ({"codes": 2**16}, "codes must be 2 to 32768"),
        ({"channels": 12}, "multiple of 8"),
    ],
)
def test_impossible_configurations_are_refused(changes, names):
    with pytest.raises(ValueError, match=names):
        TokenizerConfig(**changes)
