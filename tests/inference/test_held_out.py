"""Which particles judge, and how far shifts are searched."""

import pytest
import torch

from cryohydra.inference.held_out import is_held_out
from cryohydra.inference.shift_reach import mean_square_shift, reach_of_shifts


@pytest.mark.parametrize(("num_particles", "expected"), [(7, 0), (360, 18), (40_000, 2000), (1_000_000, 2000)])
def test_a_twentieth_judges_and_no_more_than_needed(num_particles: int, expected: int) -> None:
    rows = torch.arange(num_particles)
    held_out = is_held_out(rows, num_particles)
    assert int(held_out.sum()) == expected
    # Whether a particle judges depends on no other particle of the batch.
    torch.testing.assert_close(is_held_out(rows.flip(0)[:5], num_particles), held_out.flip(0)[:5])


def test_the_reach_holds_nearly_all_shifts(generator: torch.Generator) -> None:
    shift = 1.5 * torch.randn(5000, 2, generator=generator) + torch.tensor([1.0, -2.0])
    centre = (1.0, -2.0)
    reach = reach_of_shifts(float(mean_square_shift(shift, centre)), step_px=1.0, extent_px=20.0)
    is_reached = (shift - torch.tensor(centre)).norm(dim=-1) <= reach
    assert 0.98 < float(is_reached.float().mean()) <= 1.0
    assert reach < 6


def test_shifts_found_all_over_the_disc_are_searched_all_over_it(generator: torch.Generator) -> None:
    angle, radius = torch.rand(2, 5000, generator=generator)
    shift = 8 * radius.sqrt()[:, None] * torch.stack([(6.283 * angle).cos(), (6.283 * angle).sin()], dim=-1)
    assert reach_of_shifts(float(mean_square_shift(shift, (0.0, 0.0))), 2.0, 8.0) == 8.0
    assert reach_of_shifts(0.0, 2.0, 0.0) == 0.0
