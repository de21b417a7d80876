"""Quantisers: every code reachable, gradients let through, and no collapse."""

import pytest
import torch

from robosim.world_model.quantise import FSQ, VectorQuantiser, kmeans


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
    codes, loss = fsq(z)
    torch.testing.assert_close(codes, fsq.codes(fsq.tokens(z)))
    assert (codes - fsq.normalised(z)).abs().max() <= 1 / 4 and loss == 0
    codes.sum().backward()
    assert z.grad is not None and (z.grad > 0).all()


def clouds(rows: int = 256, seed: int = 1) -> torch.Tensor:
    """Features [rows, 8] in 32 narrow clouds, far from the origin and from where codes begin."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)) + 3
    which = torch.randint(32, (rows,), generator=generator)
    return centres[which] + 0.01 * torch.randn(rows, 8, generator=generator)


@pytest.mark.parametrize("normalise", [True, False])
def test_vector_quantiser_finds_the_clouds_and_uses_every_code(normalise):
    torch.manual_seed(0)
    quantiser = VectorQuantiser(32, 8, normalise)
    for step in range(150):
        quantiser(clouds(seed=step))
    quantiser.eval()
    z = clouds(2000, seed=99)
    tokens = quantiser.tokens(z)
    assert len(tokens.unique()) >= 30
    features = quantiser.normalised(z)
    error = (quantiser.codes(tokens) - features).square().mean()
    assert error < 0.25 * features.var(0).mean(), "one code for all would leave all of the variance"


def test_features_that_move_away_take_the_codes_with_them():
    """A codebook without revival would be left behind with one code in use."""
    torch.manual_seed(0)
    quantiser = VectorQuantiser(32, 8, normalise=False)
    for step in range(200):
        quantiser(clouds(seed=step) * (1 if step < 20 else -2))
    assert len(quantiser.eval().tokens(-2 * clouds(2000)).unique()) >= 30


def test_vector_quantiser_lets_the_gradient_through_and_pulls_features_to_their_codes():
    torch.manual_seed(0)
    quantiser = VectorQuantiser(4, 8, normalise=False, commitment=1.0).eval()
    z = clouds(16).requires_grad_()
    codes, loss = quantiser(z)
    (through,) = torch.autograd.grad(codes.sum(), z, retain_graph=True)
    assert torch.equal(through, torch.ones_like(z))
    (pull,) = torch.autograd.grad(loss, z)
    assert ((z - 0.1 * pull - codes).norm(dim=-1) < (z - codes).norm(dim=-1)).all()


def test_a_trained_codebook_comes_back_and_goes_on_the_same():
    """All that a codebook becomes follows from its state dict and the batch: a resumed run is exact."""
    torch.manual_seed(0)
    first, second = VectorQuantiser(16, 8), VectorQuantiser(16, 8)
    for step in range(5):
        first(clouds(seed=step))
    second.load_state_dict(first.state_dict())
    for step in range(5, 40):
        first(clouds(seed=step))
        second(clouds(seed=step))
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_features_that_do_not_count_leave_no_trace():
    torch.manual_seed(0)
    alone = VectorQuantiser(8, 8)
    beside = VectorQuantiser(8, 8)
    beside.load_state_dict(alone.state_dict())
    z = clouds(64)
    counts = torch.arange(64) % 2 == 0
    _, loss_alone = alone(z[counts])
    _, loss_beside = beside(torch.where(counts[:, None], z, 100.0), counts)
    torch.testing.assert_close(loss_alone, loss_beside)
    torch.testing.assert_close(alone.codebook, beside.codebook)


def test_kmeans_finds_separate_clouds():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    generator = torch.Generator().manual_seed(0)
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    found = kmeans(points, 3, seed=0)
    assert torch.cdist(centres, found).min(1).values.max() < 0.1
