"""Parts of the gradient stage."""

import torch

from cryohydra.training.refinement import kl_from_standard_normal


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
