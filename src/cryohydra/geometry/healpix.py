"""Directions of the HEALPix grid in nested order.

References:
    Gorski et al., HEALPix: a framework for high-resolution discretization, ApJ 2005.
"""

import math

import torch

from cryohydra._typing import Float, Int, Tensor

_RING_OF_FACE = (2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4)
_LONGITUDE_OF_FACE = (1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7)


def num_pixels(level: int) -> int:
    """Number of directions on the grid of 2**level pixels to a face's side."""
    return 12 * 4**level


def pixel_to_angles(level: int, pixel: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    """Polar angle in [0, pi] and azimuth in [0, 2 pi) of nested pixels, in radians.

    The children of pixel i at the next level are 4 i .. 4 i + 3.
    """
    sides = 2**level
    face, within = pixel // sides**2, pixel % sides**2
    x, y = _even_bits(within, level), _even_bits(within >> 1, level)
    ring = torch.tensor(_RING_OF_FACE, device=pixel.device)[face] * sides - x - y - 1
    in_north, in_south = ring < sides, ring > 3 * sides
    pixels_on_side = torch.where(in_north, ring, torch.where(in_south, 4 * sides - ring, sides))
    cap = pixels_on_side.double().square() / (3 * sides**2)
    belt = (2 * sides - ring).double() * 2 / (3 * sides)
    height = torch.where(in_north, 1 - cap, torch.where(in_south, cap - 1, belt))
    is_shifted = torch.where(in_north | in_south, torch.zeros_like(ring), (ring - sides) & 1)
    longitude = torch.tensor(_LONGITUDE_OF_FACE, device=pixel.device)[face]
    column = (longitude * pixels_on_side + x - y + 1 + is_shifted) / 2
    azimuth = (column - (is_shifted + 1) / 2) * (math.pi / 2) / pixels_on_side
    return torch.stack([torch.acos(height), azimuth.double() % (2 * math.pi)], dim=-1).float()


def _even_bits(value: Int[Tensor, "*batch"], count: int) -> Int[Tensor, "*batch"]:
    """Gather bits 0, 2, 4, ... of `value` into one number."""
    gathered = torch.zeros_like(value)
    for bit in range(count):
        gathered |= ((value >> (2 * bit)) & 1) << bit
    return gathered
