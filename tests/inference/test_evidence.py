"""Equations (2) to (4)."""

import math

import pytest
import torch

from cryohydra.inference.evidence import (
    CONTRAST_STD,
    carry_shares,
    effective_number,
    expected_contrast,
    exponentiate_,
    log_class_posterior,
    log_likelihood_over_contrast,
    negative_log_evidence,
)
from cryohydra.inference.likelihood import GaussianLikelihood, PixelMeanLikelihood


def test_evidence_of_a_single_class_is_its_likelihood(generator: torch.Generator) -> None:
    log_likelihood = 100 * torch.randn(5, 1, generator=generator)
    torch.testing.assert_close(negative_log_evidence(torch.zeros(1), log_likelihood), -log_likelihood[:, 0])


def test_permuted_classes_permute_posterior_and_keep_evidence(generator: torch.Generator) -> None:
    log_weight = torch.log_softmax(torch.randn(4, generator=generator), dim=0)
    log_likelihood = 5 * torch.randn(6, 4, generator=generator)
    order = [2, 0, 3, 1]
    posterior = log_class_posterior(log_weight, log_likelihood)
    torch.testing.assert_close(log_class_posterior(log_weight[order], log_likelihood[:, order]), posterior[:, order])
    torch.testing.assert_close(
        negative_log_evidence(log_weight[order], log_likelihood[:, order]),
        negative_log_evidence(log_weight, log_likelihood),
    )


def test_impossible_classes_leave_gradients_finite() -> None:
    log_likelihood = torch.tensor([[0.0, -1e4], [-1e4, -1e4]], requires_grad=True)
    negative_log_evidence(torch.tensor([0.5, 0.5]).log(), log_likelihood).sum().backward()
    assert log_likelihood.grad is not None
    # At ten thousand nats float32 has three decimals.
    torch.testing.assert_close(log_likelihood.grad, torch.tensor([[-1.0, 0.0], [-0.5, -0.5]]), atol=1e-3, rtol=0)


def test_contrast_is_integrated_over_its_prior() -> None:
    score, power = torch.tensor([3.0, -2.0, 40.0]), torch.tensor([4.0, 1.0, 35.0])
    contrast = torch.linspace(-4, 6, 20_001, dtype=torch.float64)
    prior = torch.distributions.Normal(1.0, CONTRAST_STD).log_prob(contrast)
    integrand = (score[:, None] * contrast - contrast.square() * power[:, None] / 2 + prior).exp()
    exact = torch.trapezoid(integrand, contrast)
    mean = torch.trapezoid(integrand * contrast, contrast) / exact
    torch.testing.assert_close(log_likelihood_over_contrast(score, power), exact.log().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(expected_contrast(score, power), mean.float(), rtol=1e-4, atol=1e-4)


def test_effective_number_is_between_one_and_all() -> None:
    probability = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(effective_number(probability), torch.tensor([4.0, 1.0]))


def test_exponentials_do_not_underflow() -> None:
    values = exponentiate_(torch.tensor([[0.0, -1.0, -1e9]]), torch.tensor([0.0]))
    torch.testing.assert_close(values[0, :2], torch.tensor([1.0, math.exp(-1)]))
    assert 0 < float(values[0, 2]) < 1e-20


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), PixelMeanLikelihood(0.5)])
def test_an_empty_prediction_is_as_likely_as_noise(likelihood, generator: torch.Generator) -> None:
    observed = torch.randn(3, 2, 50, generator=generator)
    noise = torch.ones_like(observed)
    # The contrast of nothing is nothing: its prior integrates to one.
    found = likelihood.log_likelihood(torch.zeros_like(observed), observed, noise)
    torch.testing.assert_close(found, torch.zeros(3), atol=1e-5, rtol=0)


def test_evidence_is_a_density_of_images(generator: torch.Generator) -> None:
    """The likelihood over noise, times that of noise, integrates to one over images of a single frequency."""
    observed = torch.linspace(-20, 20, 4001)[:, None, None]
    noise, predicted = torch.full_like(observed, 2.0), torch.full_like(observed, 1.5)
    of_noise = torch.distributions.Normal(0.0, noise.sqrt()).log_prob(observed).sum((1, 2))
    log_density = GaussianLikelihood().log_likelihood(predicted, observed, noise) + of_noise
    total = torch.trapezoid(log_density.exp(), observed[:, 0, 0])
    torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-4, rtol=0)


def test_published_likelihood_is_half_the_mean_squared_error() -> None:
    observed, predicted = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 0.0]]])
    found = PixelMeanLikelihood(2.0).log_likelihood(predicted, observed, torch.ones_like(observed))
    # Errors 0 and 4 against 1 and 4 of an empty prediction; mean -1/2, over -2 * 2^2.
    torch.testing.assert_close(found, torch.tensor([0.5 / 8]))


def test_a_class_passed_over_keeps_its_share() -> None:
    """However the band, and so the others' evidence, has changed."""
    log_weight = torch.tensor([0.2, 0.3, 0.5]).log()
    before = torch.tensor([[100.0, 99.0, 90.0], [1.0, 2.0, 3.0]])
    is_evaluated = torch.tensor([[True, True, False], [True, True, True]])
    now = torch.where(is_evaluated, before - 80, before)
    carried = carry_shares(now, before, is_evaluated, log_weight)
    shares = torch.softmax(log_weight + carried, dim=1)
    torch.testing.assert_close(shares, torch.softmax(log_weight + before, dim=1))
