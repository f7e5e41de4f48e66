"""Densities resized, cut and projected, to be looked at."""

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.hartley import hartley_to_volume, volume_to_hartley

SHOWN_BOX_SIZE = 96
"""Pixels of a density that is only looked at."""


def shrink_map(density: Float[Tensor, "d d d"], box_size: int) -> Float[Tensor, "n n n"]:
    """The same density in a smaller box of larger pixels: its low frequencies. Unchanged if it is small already.

    Args:
        box_size: Even.
    """
    full = density.shape[-1]
    if full <= box_size:
        return density
    first = full // 2 - box_size // 2
    kept = slice(first, first + box_size)
    # The centre of an even box is at D//2 in both, so cutting keeps every frequency in its place.
    hartley = volume_to_hartley(density)[kept, kept, kept].clone()
    # The edge at -n/2 has no partner at +n/2 and would mix directions.
    hartley[0], hartley[:, 0], hartley[:, :, 0] = 0, 0, 0
    return hartley_to_volume(hartley) * (box_size / full) ** 2


def enlarge_map(density: Float[Tensor, "d d d"], box_size: int) -> Float[Tensor, "n n n"]:
    """The same density in a box of more, smaller pixels, between which the old ones are interpolated.

    Unchanged if it is large already.

    Args:
        box_size: Even.
    """
    small = density.shape[-1]
    if small >= box_size:
        return density
    first = box_size // 2 - small // 2
    kept = slice(first, first + small)
    inner = volume_to_hartley(density)
    inner[0], inner[:, 0], inner[:, :, 0] = 0, 0, 0  # as in `shrink_map`
    hartley = density.new_zeros(box_size, box_size, box_size)
    hartley[kept, kept, kept] = inner
    return hartley_to_volume(hartley) * (box_size / small) ** 2


def central_slices(density: Float[Tensor, "d d d"]) -> Float[Tensor, "3 d d"]:
    """Cuts through the centre, perpendicular to z, y and x."""
    middle = density.shape[-1] // 2
    return torch.stack([density[middle], density[:, middle], density[:, :, middle]])


def projections(density: Float[Tensor, "d d d"]) -> Float[Tensor, "3 d d"]:
    """Sums along z, y and x, in pixels."""
    return torch.stack([density.sum(0), density.sum(1), density.sum(2)])
