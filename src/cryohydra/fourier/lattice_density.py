"""Between densities in the voxels of the images and their coefficients on an oversampled lattice."""

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.band import largest_radius
from cryohydra.fourier.hartley import hartley_to_volume, volume_to_hartley
from cryohydra.fourier.lattice import Lattice


def density_of_backprojection(lattice: Lattice, values: Float[Tensor, "n n n"]) -> Float[Tensor, "d d d"]:
    """The density that was backprojected, the spreading to the lattice's points undone."""
    box_size, padded_size = lattice.box_size, lattice.oversampling * lattice.box_size
    # Beyond the band the lattice holds nothing, and may be larger than the padded box.
    reach = lattice.oversampling * min(lattice.radius, largest_radius(box_size))
    known = _around(values.shape[0] // 2, reach)
    inner = _around(padded_size // 2, reach)
    padded = values.new_zeros(padded_size, padded_size, padded_size)
    padded[inner, inner, inner] = values[known, known, known]
    margin = (padded_size - box_size) // 2
    middle = slice(margin, margin + box_size)
    # Images and volumes are scaled by their box, the padded one by its own.
    density = hartley_to_volume(padded)[middle, middle, middle] * (box_size / padded_size)
    triangle = torch.sinc((torch.arange(box_size, device=values.device) - box_size // 2) / padded_size).square()
    return density / (triangle[:, None, None] * triangle[:, None] * triangle)


def density_on_lattice(lattice: Lattice, density: Float[Tensor, "d d d"]) -> Float[Tensor, "n n n"]:
    """The density's coefficients on a lattice, zero beyond its radius: a low pass with a sharp edge."""
    box_size = lattice.box_size
    assert density.shape[-1] == box_size
    padded_size = lattice.oversampling * box_size
    margin = (padded_size - box_size) // 2
    padded = torch.nn.functional.pad(density, (margin,) * 6)
    hartley = volume_to_hartley(padded) * (padded_size / box_size)
    reach = lattice.oversampling * min(lattice.radius, largest_radius(box_size))
    values = density.new_zeros(lattice.shape)
    known, inner = _around(lattice.size // 2, reach), _around(padded_size // 2, reach)
    values[known, known, known] = hartley[inner, inner, inner]
    return torch.where(lattice.distance(density.device) <= lattice.radius, values, 0.0)


def _around(centre: int, reach: int) -> slice:
    return slice(centre - reach, centre + reach + 1)
