"""Images of one class at the poses that a run found."""

import numpy as np
import torch

from cryohydra._typing import Int, Tensor
from cryohydra.analysis.run import Run
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import image_to_hartley, shift_hartley
from cryohydra.inference.images import weigh_images
from cryohydra.inference.variation import PosedImages
from cryohydra.physics.ctf import contrast_transfer
from cryohydra.physics.noise import NoiseSpectrum, spectrum_of_corners

_AT_ONCE = 256
_MOST_FOR_NOISE = 512


def posed_images(
    run: Run, source: ParticleSource, class_index: int, rows: Int[np.ndarray, "m"], band: Band
) -> PosedImages:
    """Particles as members of a class, their shifts undone, weighed by the noise outside the particle.

    Args:
        rows: Of the run's latents, at least one; the source holds the particles in the same order.
        band: Of the images, on the device where they are wanted.

    Raises:
        UserError: If images cannot be read.
    """
    device = band.frequencies.device
    noise = _noise(source, torch.from_numpy(rows[:_MOST_FOR_NOISE]))
    parts = []
    for index in torch.from_numpy(rows).split(_AT_ONCE):
        optics = source.optics(index)
        observed = band.gather(image_to_hartley(source.images(index).to(device)))
        variance = NoiseSpectrum(noise.variance.to(device)).on(band, optics.group.to(device))
        weighted = weigh_images(observed, contrast_transfer(optics.to(device), band.frequencies), variance)
        of_these = index.numpy()
        shift_px = torch.from_numpy(run.latents.shift_px[of_these]).float().to(device)
        parts.append(
            PosedImages(
                score=shift_hartley(weighted.score, band.frequencies, -shift_px),
                power=weighted.power,
                rotation=torch.from_numpy(run.latents.rotation[of_these]).float().to(device),
                weight=torch.from_numpy(run.latents.class_probability[of_these, class_index]).float().to(device),
            )
        )
    return PosedImages(
        score=torch.cat([part.score for part in parts]),
        power=torch.cat([part.power for part in parts]),
        rotation=torch.cat([part.rotation for part in parts]),
        weight=torch.cat([part.weight for part in parts]),
    )


def _noise(source: ParticleSource, index: Int[Tensor, "m"]) -> NoiseSpectrum:
    images = [source.images(some).flatten(0, 1) for some in index.split(_AT_ONCE)]
    every = source.optics(torch.arange(len(source))).group
    return spectrum_of_corners(torch.cat(images), every[index].flatten(), int(every.max()) + 1)
