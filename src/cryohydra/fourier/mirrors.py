"""A grid's slices in fours that are one another's mirror images, and what that saves."""

import functools

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.geometry.so3_grid import mirrored_indices, num_rotations


class Mirrors:
    """The points of a band and the rotations of a whole grid, mirrored in y, in x and in both.

    Every function on the band is a sum of four, even or odd in x and in y. Mirrored, each keeps its form and may change
    its sign; two of different forms have no product. So the products of an image with four slices that mirror one
    another follow from four products over a quarter of the points.
    """

    rotation_index: Int[Tensor, "4 c"]
    """Rotations of the level in fours: a quarter of them, and those whose slices mirror theirs in y, x and both."""

    def __init__(self, band: Band, level: int, num_grids: int = 1):
        """Find them for the grid of a level.

        Args:
            num_grids: How many such grids stand beside one another, as those of several classes that are compared as
                one.
        """
        points, device = band.points, band.points.device
        side = 2 * band.radius + 1
        number = torch.full((side**2,), -1, device=device)
        number[(points[:, 1] + band.radius) * side + points[:, 0] + band.radius] = torch.arange(
            len(band), device=device
        )
        turns = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], device=device)
        corner = points[(points >= 0).all(1)]
        mirrored = turns[:, None] * corner + band.radius
        self._points = number[mirrored[..., 1] * side + mirrored[..., 0]]
        # A point on an axis is its own mirror image.
        num_same = torch.where(corner == 0, 2.0, 1.0).prod(1)
        self._weight = 0.5 / num_same.sqrt()
        first = num_rotations(level) * torch.arange(num_grids, device=device)[:, None]
        self.rotation_index = (first + mirrored_indices(level, device)[:, None]).flatten(1)
        self._order = self.rotation_index.flatten().argsort()

    def split(self, values: Float[Tensor, "*batch p"]) -> Float[Tensor, "4 *batch m"]:
        """Parts even in both, odd in y, odd in x and odd in both; their products add up to those of the whole.

        A part is zero on the axes in which it is odd.
        """
        return mirror_(values[..., self._points].movedim(-2, 0)).mul_(self._weight)

    def to_grid_order(self, in_fours: Float[Tensor, "4 *batch c"]) -> Float[Tensor, "*batch q"]:
        """Values of the rotations of the grid in its own order."""
        return in_fours.movedim(0, -2).flatten(-2)[..., self._order]

    def place(self, rotation_index: Int[Tensor, "*n"]) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
        """Row and column of rotations in `rotation_index`."""
        at, size = self._order[rotation_index], self.rotation_index.shape[1]
        return torch.div(at, size, rounding_mode="floor"), at % size


@functools.lru_cache(maxsize=8)
def mirrors_of(band: Band, level: int, num_grids: int = 1) -> Mirrors:
    """Those of a band and the grid of a level, or of several such grids, found once."""
    return Mirrors(band, level, num_grids)


def mirror_(parts: Float[Tensor, "4 *batch"]) -> Float[Tensor, "4 *batch"]:
    """Products of the four parts, in place turned into those with a slice and its mirror images in y, x and both.

    Of values at a point and its mirror images it makes the four parts, up to their scale.
    """
    for even, odd in ((parts[0::2], parts[1::2]), (parts[:2], parts[2:])):
        even.add_(odd)
        torch.add(even, odd, alpha=-2, out=odd)
    return parts
