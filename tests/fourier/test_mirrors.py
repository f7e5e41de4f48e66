"""Slices that mirror one another: which rotations have them, and what their products with an image have in common."""

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import slice_frequencies
from cryohydra.fourier.mirrors import Mirrors, mirror_
from cryohydra.geometry.rotations import random_rotations
from cryohydra.geometry.so3_grid import all_rotations, num_rotations

BAND = Band(20, 7)
SIGNS = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]])
"""Of x and y: nothing mirrored, y, x, both."""


def _mirrored(band: Band, values: torch.Tensor) -> torch.Tensor:
    """Values where each point's mirror images in nothing, y, x and both lie."""
    place = {tuple(point): number for number, point in enumerate(band.points.tolist())}
    orders = [[place[tuple(point)] for point in (band.points * sign).tolist()] for sign in SIGNS]
    return torch.stack([values[..., order] for order in orders])


def test_products_of_parts_add_up_to_those_of_the_whole(generator: torch.Generator) -> None:
    one, other = torch.randn(2, 5, len(BAND), generator=generator)
    mirrors = Mirrors(BAND, 0)
    found = (mirrors.split(one) * mirrors.split(other)).sum((0, 2))
    torch.testing.assert_close(found, (one * other).sum(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", range(4))
def test_mirroring_changes_no_more_than_the_signs_of_parts(which: int, generator: torch.Generator) -> None:
    values = torch.randn(3, len(BAND), generator=generator)
    mirrors = Mirrors(BAND, 0)
    parts = mirrors.split(values)
    sign = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])[which]
    torch.testing.assert_close(mirrors.split(_mirrored(BAND, values)[which]), sign[:, None, None] * parts)


def test_four_products_give_those_with_all_mirror_images(generator: torch.Generator) -> None:
    image, cut = torch.randn(2, len(BAND), generator=generator)
    mirrors = Mirrors(BAND, 0)
    products = (mirrors.split(image) * mirrors.split(cut)).sum(1)
    torch.testing.assert_close(mirror_(products), _mirrored(BAND, cut) @ image, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_rotation_of_a_grid_mirrors_three_others(level: int) -> None:
    mirrors = Mirrors(BAND, level)
    index = mirrors.rotation_index
    assert index.shape == (4, num_rotations(level) // 4)
    torch.testing.assert_close(index.flatten().sort().values, torch.arange(num_rotations(level)))
    frequencies = slice_frequencies(BAND, all_rotations(level))
    expected = _mirrored(BAND, frequencies[index[0]].movedim(1, 2)).movedim(3, 2)
    torch.testing.assert_close(frequencies[index], expected, atol=1e-6, rtol=0)


def test_values_in_fours_come_back_in_the_order_of_the_grid(generator: torch.Generator) -> None:
    mirrors = Mirrors(BAND, 1)
    values = torch.randn(2, num_rotations(1), generator=generator)
    torch.testing.assert_close(mirrors.to_grid_order(values[:, mirrors.rotation_index].movedim(1, 0)), values)
    row, column = mirrors.place(torch.tensor([[5, 100], [7, 0]]))
    torch.testing.assert_close(mirrors.rotation_index[row, column], torch.tensor([[5, 100], [7, 0]]))


def test_grids_side_by_side_keep_their_order(generator: torch.Generator) -> None:
    mirrors, num = Mirrors(BAND, 1, num_grids=3), num_rotations(1)
    values = torch.randn(2, 3 * num, generator=generator)
    torch.testing.assert_close(mirrors.to_grid_order(values[:, mirrors.rotation_index].movedim(1, 0)), values)
    # Those of the first grid in each four come first.
    torch.testing.assert_close(mirrors.rotation_index[:, : num // 4], Mirrors(BAND, 1).rotation_index)


@pytest.mark.parametrize("level", [0, 1])
def test_a_grid_that_is_turned_keeps_its_mirror_images(level: int, generator: torch.Generator) -> None:
    index = Mirrors(BAND, level).rotation_index
    frequencies = slice_frequencies(BAND, all_rotations(level) @ random_rotations(1, generator))
    expected = _mirrored(BAND, frequencies[index[0]].movedim(1, 2)).movedim(3, 2)
    torch.testing.assert_close(frequencies[index], expected, atol=1e-6, rtol=0)
