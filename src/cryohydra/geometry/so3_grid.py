"""Nested grids over SO(3): HEALPix directions times equal in-plane angles.

References:
    Yershova et al., Generating uniform incremental grids on SO(3), IJRR 2010.
"""

import functools
import math

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.geometry.healpix import num_pixels, pixel_to_angles
from cryohydra.geometry.rotations import euler_to_matrix

CHILDREN_PER_ROTATION = 8


def num_in_plane(level: int) -> int:
    """Number of in-plane angles at a level."""
    return 6 * 2**level


def num_rotations(level: int) -> int:
    """Number of rotations at a level: 72, 576, 4608, ..."""
    return num_pixels(level) * num_in_plane(level)


def angular_step(level: int) -> float:
    """In-plane step at a level in radians: 60 degrees at level 0, halved at each next one."""
    return 2 * math.pi / num_in_plane(level)


def level_for_step(step: float) -> int:
    """The coarsest level whose angular step is not above `step` radians."""
    return max(0, math.ceil(math.log2(2 * math.pi / 6 / step) - 1e-9))


def grid_rotations(level: int, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotations of a level's cells, as matrices that act on rows.

    Args:
        index: In [0, num_rotations(level)).
    """
    polar_azimuth = pixel_to_angles(level, index // num_in_plane(level))
    # Half a step off zero: the two children of an angle lie evenly around it.
    psi = (index % num_in_plane(level) + 0.5) * angular_step(level)
    return euler_to_matrix(torch.stack([polar_azimuth[..., 1], polar_azimuth[..., 0], psi], dim=-1))


@functools.cache
def all_rotations(level: int, device: torch.device | str = "cpu") -> Float[Tensor, "q 3 3"]:
    """All rotations of a level."""
    return grid_rotations(level, torch.arange(num_rotations(level), device=device))


def child_indices(level: int, index: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch 8"]:
    """Indices, on level + 1, of the eight cells into which each cell divides."""
    angles = num_in_plane(level)
    pixel, angle = index // angles, index % angles
    offset = torch.arange(8, device=index.device)
    return (4 * pixel[..., None] + offset // 2) * (2 * angles) + 2 * angle[..., None] + offset % 2


@functools.cache
def mirrored_indices(level: int, device: torch.device | str = "cpu") -> Int[Tensor, "4 c"]:
    """Rotations of a level in fours: a quarter of them, and those whose slices mirror theirs in y, in x and in both.

    Mirroring the plane of a slice in one axis turns it over: its direction becomes the opposite one.
    """
    angles, pixels = num_in_plane(level), torch.arange(num_pixels(level), device=device)
    polar, azimuth = pixel_to_angles(level, pixels).unbind(-1)
    across = polar.sin()
    direction = torch.stack([across * azimuth.cos(), across * azimuth.sin(), polar.cos()], dim=-1)
    opposite = (direction @ direction.T).argmin(1)[:, None]
    pixel, angle = pixels[:, None], torch.arange(angles, device=device)
    index = torch.stack(
        [
            pixel * angles + angle,
            opposite * angles + (angles - 1 - angle),
            opposite * angles + (angles // 2 - 1 - angle) % angles,
            pixel * angles + (angle + angles // 2) % angles,
        ]
    ).flatten(1)
    return index[:, index.argmin(0) == 0]
