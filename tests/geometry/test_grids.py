"""Grids over rotations and shifts."""

import pytest
import torch

from cryohydra.geometry.healpix import num_pixels, pixel_to_angles
from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.geometry.shift_grid import shift_grid
from cryohydra.geometry.so3_grid import (
    all_rotations,
    angular_step,
    child_indices,
    grid_rotations,
    level_for_step,
    num_rotations,
)


def nearest_angle(rotations, grid):
    trace = rotations.flatten(1) @ grid.flatten(1).T
    nearest = grid[trace.argmax(1)]
    return geodesic_angle(rotations, nearest)


def test_a_finer_grid_halves_the_distance(generator):
    rotations = random_rotations(300, generator)
    coarse = nearest_angle(rotations, all_rotations(0))
    fine = nearest_angle(rotations, all_rotations(1))
    assert float(fine.mean() / coarse.mean()) == pytest.approx(0.5, abs=0.06)
    # Cells reach about nine tenths of the step at their corners.
    assert float(fine.max()) < angular_step(1)


def test_children_lie_around_their_parent():
    index = torch.arange(num_rotations(0))
    parent = grid_rotations(0, index)[:, None]
    children = grid_rotations(1, child_indices(0, index))
    angle = geodesic_angle(parent.expand_as(children), children)
    assert float(angle.max()) < angular_step(0)


def test_every_cell_is_the_child_of_one():
    children = child_indices(1, torch.arange(num_rotations(1))).flatten()
    assert torch.equal(children.sort().values, torch.arange(num_rotations(2)))


def test_level_for_step():
    for level in range(5):
        assert level_for_step(angular_step(level)) == level
        assert level_for_step(angular_step(level) * 0.99) == level + 1


@pytest.mark.parametrize("level", [0, 1, 3])
def test_directions_are_evenly_spread(level):
    angles = pixel_to_angles(level, torch.arange(num_pixels(level)))
    polar, azimuth = angles.double().unbind(-1)
    direction = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], -1)
    torch.testing.assert_close(direction.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    moment = direction.T @ direction / len(direction)
    # Equal areas: close to a third on the diagonal already at twelve points.
    assert float((moment - torch.eye(3) / 3).abs().max()) < 0.06 / 4**level + 1e-6


def test_no_extent_is_one_shift():
    torch.testing.assert_close(shift_grid(0.0, 1.0, (2.0, -1.0)), torch.tensor([[2.0, -1.0]]))


def test_shifts_lie_in_a_disc_and_hold_its_centre():
    grid = shift_grid(5.0, 2.0)
    assert bool((grid.norm(dim=-1) <= 5).all())
    assert bool((grid == 0).all(-1).any())
    # x runs along the first column of the pair.
    assert {tuple(shift) for shift in grid.tolist()} >= {(4.0, 0.0), (0.0, -4.0), (2.0, 4.0)}
