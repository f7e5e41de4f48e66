"""Which particles judge."""

import pytest
import torch

from cryohydra.inference.held_out import is_held_out


@pytest.mark.parametrize(("num_particles", "expected"), [(7, 0), (360, 18), (40_000, 2000), (1_000_000, 2000)])
def test_a_twentieth_judges_and_no_more_than_needed(num_particles: int, expected: int) -> None:
    rows = torch.arange(num_particles)
    held_out = is_held_out(rows, num_particles)
    assert int(held_out.sum()) == expected
    # Whether a particle judges depends on no other particle of the batch.
    torch.testing.assert_close(is_held_out(rows.flip(0)[:5], num_particles), held_out.flip(0)[:5])
