"""Images that fit nothing."""

import math
from dataclasses import replace

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.inference.junk import junk_log_odds, junk_probability
from cryohydra.inference.pose_search import CoarseToFineSearch, SearchPlan
from cryohydra.inference.shift_prior import ShiftPrior


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


def test_its_share_is_found(generator: torch.Generator) -> None:
    evidence = _evidence(generator, 16_000, 4_000, 2.0)
    assert float(torch.sigmoid(junk_log_odds(evidence))) == pytest.approx(0.2, abs=0.02)


def test_there_need_be_none(generator: torch.Generator) -> None:
    assert junk_probability(_evidence(generator, 2_000, 0, 6.0)).max() < 0.5


def test_all_may_be(generator: torch.Generator) -> None:
    assert junk_probability(_evidence(generator, 0, 2_000, 6.0)).min() > 0.5


def test_empty_images_are_told_from_images_with_much_noise(blobs, take_images) -> None:
    """A fifth of the images shows nothing; in the others noise is so strong that the search is not sure of all."""
    band, num_images, num_empty = Band(32, 7), 400, 80
    images = take_images(blobs, band, num_images, signal=28.0).weighted
    noise = torch.randn(images.score.shape, generator=torch.Generator().manual_seed(2)) * images.power.sqrt()
    is_empty = torch.arange(num_images) % 5 == 0
    images = replace(images, score=torch.where(is_empty[:, None, None], noise, images.score))
    plan = SearchPlan(base_level=2, radii=(7,), shifts=ShiftPrior.uninformed(0.0), shift_step_px=1.0)
    equal = torch.full((2,), -math.log(2))
    found = CoarseToFineSearch(plan).search(blobs, images, band, equal)
    probability = junk_probability(torch.logsumexp(found.log_evidence + equal, dim=1))
    assert float(probability.sum()) == pytest.approx(num_empty, abs=12)
    assert int(((probability > 0.5) != is_empty).sum()) < 0.05 * num_images
    assert float(probability[is_empty].median()) > 0.95
