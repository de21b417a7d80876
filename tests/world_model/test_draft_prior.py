"""The draft's prior: a Gaussian around both drafts, over codes or over digits."""

import pytest
import torch

from robosim.world_model.draft_prior import SHARPNESS, DraftPrior
from robosim.world_model.dynamics import Dynamics, DynamicsConfig
from robosim.world_model.quantise import FSQ
from robosim.world_model.st_transformer import STConfig

LEVELS = (4, 3)
QUANTISER = FSQ(LEVELS)
CODES = QUANTISER.codes(torch.arange(12))


def test_untrained_it_is_the_gaussian_around_both_drafts():
    torch.manual_seed(0)
    prior, draft = DraftPrior(CODES, 8), torch.randn(5, 4)
    (logits,) = prior(torch.randn(5, 8), draft, (12,))
    apart = sum((d[:, None] - CODES).square().sum(-1) for d in draft.chunk(2, -1))
    torch.testing.assert_close(logits.log_softmax(-1), (-SHARPNESS * apart).log_softmax(-1))


def test_over_digits_it_is_the_same_distribution():
    torch.manual_seed(1)
    prior, x, draft = DraftPrior(CODES, 8), torch.randn(5, 8), torch.randn(5, 4)
    torch.nn.init.normal_(prior.sharpness.weight)
    (whole,) = prior(x, draft, (12,))
    digits = [part.log_softmax(-1) for part in prior(x, draft, LEVELS)]
    first, second = QUANTISER.token_digits(torch.arange(12)).unbind(-1)
    joint = digits[0][:, first] + digits[1][:, second]
    torch.testing.assert_close(whole.log_softmax(-1), joint)


@pytest.mark.parametrize("prediction", ["codes", "digits"])
def test_an_untrained_dynamics_shows_its_draft(prediction):
    config = DynamicsConfig(
        STConfig(dim=16, heads=2, layers=1, window=2), draft_prior=True, prediction=prediction
    )
    model, wanted = Dynamics(config, LEVELS, 12, 2, CODES), torch.randperm(12)
    draft = CODES[wanted].repeat(1, 2)
    logits = model.logits(torch.randn(12, 16), draft)
    likeliest = [part.argmax(-1) for part in logits]
    assert torch.equal(model.digits.join(likeliest) if prediction == "digits" else likeliest[0], wanted)


def test_what_is_learned_can_outvote_the_draft_and_the_codes_are_no_weight():
    config = DynamicsConfig(STConfig(dim=16, heads=2, layers=1, window=2), draft_prior=True)
    model = Dynamics(config, LEVELS, 12, 2, CODES)
    torch.nn.init.constant_(model.head.bias[7:8], 100.0)
    assert (model.logits(torch.randn(3, 16), torch.zeros(3, 4))[0].argmax(-1) == 7).all()
    assert not any("codes" in name for name in model.state_dict())


def test_without_a_draft_there_is_no_prior():
    config = DynamicsConfig(STConfig(dim=16, heads=2, layers=1, window=2), draft=False, draft_prior=True)
    model = Dynamics(config, LEVELS, 12, 2, CODES)
    assert not any("draft" in name for name in model.state_dict())
    assert model.logits(torch.randn(3, 16), None)[0].shape == (3, 12)
