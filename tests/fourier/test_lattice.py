"""Cutting slices out of lattices, and adding them back."""

import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import (
    Corners,
    GridSlicer,
    Lattice,
    add,
    cut,
    interpolate,
    interpolate_with_gradient,
    slice_frequencies,
    to_frequency,
    to_real_space,
)
from cryohydra.geometry.rotations import random_rotations
from cryohydra.geometry.so3_grid import all_rotations

LATTICE, BAND = Lattice(20, 5), Band(20, 5)


def test_a_grid_is_cut_as_single_slices_are(generator: torch.Generator) -> None:
    rotations = torch.cat([all_rotations(0), random_rotations(5, generator)])
    values = torch.randn(2, *LATTICE.shape, generator=generator)
    on_grid = GridSlicer(LATTICE, BAND, rotations).cut(values)
    frequencies = slice_frequencies(BAND, rotations)
    corners = Corners.around(LATTICE, frequencies.flatten(0, 1))
    singly = cut(values.flatten(1).T.contiguous(), corners).T.reshape(on_grid.shape)
    torch.testing.assert_close(on_grid, singly, atol=1e-4, rtol=1e-4)
    steps = frequencies * LATTICE.oversampling * LATTICE.box_size
    for k in range(2):
        of_one = interpolate(values, torch.full((len(rotations),), k), steps)
        torch.testing.assert_close(of_one, on_grid[k], atol=1e-4, rtol=1e-4)


def test_scattering_is_the_transpose_of_gathering(generator: torch.Generator) -> None:
    corners = Corners.around(LATTICE, slice_frequencies(BAND, random_rotations(3, generator)).flatten(0, 1))
    volume = torch.randn(LATTICE.size**3, 1, generator=generator)
    points = torch.randn(len(corners.index), generator=generator)
    total = torch.zeros(len(volume))
    add(total, corners, points)
    both = (cut(volume, corners)[:, 0] @ points, volume[:, 0] @ total)
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-3)


def test_gradients_are_those_of_what_interpolates(generator: torch.Generator) -> None:
    values = torch.randn(2, *LATTICE.shape, generator=generator)
    which = torch.tensor([1, 0, 1])
    steps = slice_frequencies(BAND, random_rotations(3, generator)) * LATTICE.oversampling * LATTICE.box_size
    steps.requires_grad_()
    found = interpolate(values, which, steps)
    (expected,) = torch.autograd.grad(found.sum(), steps)
    value, gradient = interpolate_with_gradient(values, which, steps.detach())
    torch.testing.assert_close(value, found.detach(), atol=1e-3, rtol=1e-3)
    # Where a point lies on a lattice plane, either side's difference is right.
    off_planes = (steps - steps.round()).abs().amin(-1) > 1e-3
    assert float(off_planes.float().mean()) > 0.9
    torch.testing.assert_close(gradient.movedim(1, -1)[off_planes], expected[off_planes], atol=2e-3, rtol=1e-3)


def test_weights_of_corners_sum_to_one(generator: torch.Generator) -> None:
    corners = Corners.around(LATTICE, slice_frequencies(BAND, random_rotations(3, generator)).flatten(0, 1))
    torch.testing.assert_close(corners.weight.sum(1), torch.ones(len(corners.weight)))
    assert int(corners.index.min()) >= 0 and int(corners.index.max()) < LATTICE.size**3


def test_real_space_and_back(generator: torch.Generator) -> None:
    values = torch.randn(1, *LATTICE.shape, generator=generator)
    torch.testing.assert_close(to_frequency(to_real_space(values)), values, atol=1e-4, rtol=1e-4)
