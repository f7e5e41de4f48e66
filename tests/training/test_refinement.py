"""Parts of the gradient stage."""

import torch

from cryohydra.training.refinement import _with_carried_shares, kl_from_standard_normal


def test_divergence_is_zero_only_at_the_prior_and_positive_elsewhere() -> None:
    prior = kl_from_standard_normal(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    torch.testing.assert_close(prior, torch.zeros(1, 1))
    # N(10, 1) in four dimensions: 4 * 10^2 / 2.
    far = kl_from_standard_normal(torch.full((1, 1, 4), 10.0), torch.zeros(1, 1, 4))
    torch.testing.assert_close(far, torch.full((1, 1), 200.0))
    for log_std in (-1.0, 1.0):
        assert float(kl_from_standard_normal(torch.zeros(1, 1, 4), torch.full((1, 1, 4), log_std))) > 0


def test_divergence_agrees_with_torch(generator: torch.Generator) -> None:
    mean, log_std = torch.randn(3, 2, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_from_standard_normal(mean, log_std), expected)


def test_a_class_passed_over_keeps_its_share() -> None:
    """However the band, and so the others' evidence, has changed."""
    log_weight = torch.tensor([0.2, 0.3, 0.5]).log()
    before = torch.tensor([[100.0, 99.0, 90.0], [1.0, 2.0, 3.0]])
    is_evaluated = torch.tensor([[True, True, False], [True, True, True]])
    now = torch.where(is_evaluated, before - 80, before)
    carried = _with_carried_shares(now, before, is_evaluated, log_weight)
    shares = torch.softmax(log_weight + carried, dim=1)
    torch.testing.assert_close(shares, torch.softmax(log_weight + before, dim=1))
