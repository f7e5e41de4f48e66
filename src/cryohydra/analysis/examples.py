"""Particles beside what their class predicts of them."""

from dataclasses import dataclass

import numpy as np
import torch

from cryohydra._typing import Int
from cryohydra.analysis.pictures import picture_rows
from cryohydra.analysis.run import Run
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.hartley import hartley_to_image, image_to_hartley, shift_hartley
from cryohydra.fourier.lattice import slice_frequencies
from cryohydra.physics.ctf import contrast_transfer

_NUM_EXAMPLES = 6
_SMOOTH_RADIUS = 8
"""Fourier pixels that are left of an image so that the eye finds the particle: details of an eighth of the box."""


@dataclass(frozen=True)
class Examples:
    """Particles of one class, side by side, density bright."""

    picture: bytes
    """From above: images as they are, low-passed, and what the class predicts of them."""
    particles: Int[np.ndarray, "m"]
    """Their numbers in the input, from the left."""
    smooth_angstrom: float
    """Finest detail left in the second row."""


@torch.no_grad()
def show_examples(run: Run, source: ParticleSource, class_index: int, seed: int) -> Examples:
    """Show particles of a class, picked at random among those that are surer of it than most.

    Raises:
        UserError: If images cannot be read.
    """
    rows = _pick(run, class_index, seed)
    index = torch.from_numpy(rows)
    images = source.images(index)[:, 0]
    optics = source.optics(index)
    box_size = run.mixture.box_size
    band = Band(box_size, run.radius or largest_radius(box_size))
    rotation = torch.from_numpy(run.latents.rotation[rows, 0]).float()
    shift_px = torch.from_numpy(run.latents.shift_px[rows, 0]).float()
    z = torch.from_numpy(run.latents.conformation[rows]).float()
    field = run.mixture.field(class_index)
    cut = field(slice_frequencies(band, rotation).to(run.device), z.to(run.device)).cpu()
    transfer = contrast_transfer(optics, band.frequencies)[:, 0]
    predicted = shift_hartley(transfer * cut, band.frequencies, shift_px)  # eq. 1
    smooth = Band(box_size, min(_SMOOTH_RADIUS, largest_radius(box_size)))
    low = hartley_to_image(smooth.scatter(smooth.gather(image_to_hartley(images))))
    # The CTF makes density dark.
    return Examples(
        picture=picture_rows([-images, -low, -hartley_to_image(band.scatter(predicted))]),
        particles=run.latents.particle_index[rows],
        smooth_angstrom=box_size * run.pixel_size_angstrom / smooth.radius,
    )


def _pick(run: Run, class_index: int, seed: int) -> Int[np.ndarray, "m"]:
    members = run.members(class_index)
    probability = run.latents.class_probability[members, class_index]
    sure = members[probability >= np.median(probability)]
    return np.random.default_rng(seed).permutation(sure)[:_NUM_EXAMPLES]
