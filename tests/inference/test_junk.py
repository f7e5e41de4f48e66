"""Images that fit nothing."""

import pytest
import torch

from cryohydra.inference.junk import junk_probability


def _evidence(generator: torch.Generator, num_particles: int, num_junk: int, distance: float) -> torch.Tensor:
    """Log likelihood ratios of two normal distributions for draws of one or of the other, noise last."""
    draws = torch.randn(num_particles + num_junk, generator=generator)
    draws[:num_particles] += distance
    return distance * draws - distance**2 / 2


def test_its_probability_is_honest(generator: torch.Generator) -> None:
    evidence = _evidence(generator, 16_000, 4_000, 2.0)
    probability = junk_probability(evidence)
    is_junk = torch.arange(20_000) >= 16_000
    assert probability.mean() == pytest.approx(0.2, abs=0.02)  # five standard errors of the share
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (probability >= low) & (probability < high)
        assert float(is_junk[inside].float().mean()) == pytest.approx(float(probability[inside].mean()), abs=0.05)


def test_there_need_be_none(generator: torch.Generator) -> None:
    assert junk_probability(_evidence(generator, 2_000, 0, 6.0)).max() < 0.5


def test_all_may_be(generator: torch.Generator) -> None:
    assert junk_probability(_evidence(generator, 0, 2_000, 6.0)).min() > 0.5
