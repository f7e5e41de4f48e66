"""Which particles make halves and parts, and which judge: whatever the order of a file."""

import pytest
import torch

from cryohydra.inference.partition import half_of, is_held_out, part_of

ROWS = torch.arange(200_000)


@pytest.mark.parametrize("period", [1, 2, 3, 8, 20, 21, 41, 100, 256])
def test_every_nth_row_is_spread_over_all_parts_and_judges(period: int) -> None:
    """Two datasets in turn, or micrographs of as many particles each: no part and no judges are of one alone."""
    some = ROWS[period // 2 :: period]
    for num_parts in (2, 8):
        count = torch.bincount(part_of(some, num_parts), minlength=num_parts)
        even = len(some) / num_parts
        assert int(count.min()) > 0.65 * even and int(count.max()) < 1.35 * even
    judges = is_held_out(some, len(ROWS))
    assert float(judges.float().mean()) == pytest.approx(0.01, abs=0.007)


def test_judges_are_of_all_parts() -> None:
    count = torch.bincount(part_of(ROWS[is_held_out(ROWS, len(ROWS))], 8), minlength=8)
    assert int(count.min()) > 200 and int(count.max()) < 300


def test_parts_are_equal_but_for_a_few_rows() -> None:
    for num_particles in (16, 100, 999):
        count = torch.bincount(part_of(torch.arange(num_particles), 8), minlength=8)
        assert int(count.max() - count.min()) <= 2 and int(count.min()) > 0


def test_halves_are_made_of_whole_parts() -> None:
    assert torch.equal(half_of(ROWS), part_of(ROWS, 8) // 4)


@pytest.mark.parametrize(("num_particles", "expected"), [(7, 0), (360, 18), (40_000, 2000), (1_000_000, 2000)])
def test_a_twentieth_judges_and_no_more_than_needed(num_particles: int, expected: int) -> None:
    rows = torch.arange(num_particles)
    held_out = is_held_out(rows, num_particles)
    assert int(held_out.sum()) == expected
    # Whether a particle judges depends on no other particle of the batch.
    torch.testing.assert_close(is_held_out(rows.flip(0)[:5], num_particles), held_out.flip(0)[:5])
