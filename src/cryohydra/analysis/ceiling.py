"""The best maps that a set of images allows: backprojections with true poses and labels."""

from collections.abc import Callable

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.data.simulated import Truth
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.hartley import image_to_hartley, shift_hartley
from cryohydra.fourier.lattice import Corners, Lattice, add, slice_frequencies
from cryohydra.fourier.lattice_density import density_of_backprojection
from cryohydra.physics.ctf import contrast_transfer

_PARTICLES_AT_ONCE = 32
_OVERSAMPLING = 2
# Of the mean weight in a shell: keeps points that hardly any slice has met from being all noise.
_SHRINKAGE = 0.05


def ceiling_maps(
    source: ParticleSource, truth: Truth, advanced: Callable[[int], None] = lambda count: None
) -> Float[Tensor, "k d d d"]:
    """Map of each true class, from all its images, each put where it belongs and weighted by its CTF.

    A class that moves comes out as the mean over its motion.
    """
    return torch.stack([_backproject(source, truth, k, advanced) for k in range(truth.num_classes)])


def _backproject(
    source: ParticleSource, truth: Truth, class_index: int, advanced: Callable[[int], None]
) -> Float[Tensor, "d d d"]:
    box_size = source.box_size
    band = Band(box_size, largest_radius(box_size))
    lattice = Lattice(box_size, band.radius, _OVERSAMPLING)
    weighted, weight = torch.zeros(2, *lattice.shape)
    rows = torch.from_numpy(np.flatnonzero((truth.labels == class_index) & ~truth.is_junk))
    for index in rows.split(_PARTICLES_AT_ONCE):
        rotation = torch.from_numpy(truth.rotation[index.numpy()]).float()
        shift = torch.from_numpy(truth.shift_px[index.numpy()]).float()
        observed = band.gather(image_to_hartley(source.images(index)))
        ctf = contrast_transfer(source.optics(index), band.frequencies)
        centred = shift_hartley(observed, band.frequencies, -shift)
        corners = Corners.around(lattice, slice_frequencies(band, rotation).flatten(0, 2))
        add(weighted.view(-1), corners, (ctf * centred).flatten())
        add(weight.view(-1), corners, ctf.square().flatten())
        advanced(len(index))
    shell = lattice.distance().round().long().flatten()
    mean = torch.bincount(shell, weights=weight.flatten().double()) / torch.bincount(shell).clamp(min=1)
    damped = weight + _SHRINKAGE * mean.float()[shell].reshape(lattice.shape) + 1e-6
    return density_of_backprojection(lattice, torch.where(lattice.distance() <= band.radius, weighted / damped, 0.0))
