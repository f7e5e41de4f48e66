"""Shifts are searched as far as particles are thought to lie."""

import pytest
import torch

from cryohydra.inference.shift_prior import ShiftPrior


def test_reach_covers_a_normal_spread_and_no_more_than_allowed(generator: torch.Generator) -> None:
    centre = (1.0, -2.0)
    shift = 1.5 * torch.randn(4000, 2, generator=generator) + torch.tensor(centre)
    prior = ShiftPrior.uninformed(20.0, centre)
    learned = prior.learned(float(prior.square_distance(shift).mean()))
    grid = learned.grid(1.0)
    assert float(learned.square_distance(grid).max()) ** 0.5 == pytest.approx(3 * 1.5 + 0.5, abs=0.6)
    assert len(grid) < len(prior.grid(1.0)) / 5


def test_nothing_but_the_centre_where_nothing_is_shifted() -> None:
    prior = ShiftPrior.uninformed(0.0, (1.0, 2.0))
    assert prior.grid(1.0).tolist() == [[1.0, 2.0]]
    assert float(prior.log_probability(prior.grid(1.0))) == 0.0


def test_the_prior_of_a_grid_sums_to_one_and_falls_as_a_normal_spread_does() -> None:
    prior = ShiftPrior.uninformed(6.0).learned(4.0)
    grid = prior.grid(0.5)
    log_probability = prior.log_probability(grid)
    assert float(log_probability.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    # Variance 2 along each axis: two pixels off, exp(-4 / (2 * 2)).
    at_two, at_zero = (log_probability[(grid == torch.tensor(point)).all(1)] for point in ([2.0, 0.0], [0.0, 0.0]))
    assert float(at_two - at_zero) == pytest.approx(-1.0, abs=1e-5)
