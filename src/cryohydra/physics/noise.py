"""The noise spectrum: variance of the noise at each frequency, per optics group."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band


@dataclass(frozen=True)
class NoiseSpectrum:
    """Variance of the noise at each Fourier pixel's radius, per optics group."""

    variance: Float[Tensor, "g r"]
    """At radius 0 .. box_size // 2."""

    def on(self, band: Band, group: Int[Tensor, "b t"]) -> Float[Tensor, "b t p"]:
        """The variance at each point of a band, for images of the given groups."""
        return self.variance[group][..., band.shells]

    @classmethod
    def white(cls, variance: float, num_groups: int, box_size: int) -> "NoiseSpectrum":
        """The same variance at all frequencies: pixels that do not know each other."""
        return cls(torch.full((num_groups, box_size // 2 + 1), variance))


def shell_means(values: Float[Tensor, "n p"], band: Band, num_shells: int) -> Float[Tensor, "n r"]:
    """Mean over each shell of a band; shells outside the band hold nan."""
    total = values.new_zeros(len(values), num_shells).index_add_(1, band.shells, values)
    return total / band.shell_sizes(num_shells)


def spectrum_of_corners(
    images: Float[Tensor, "n d d"], group: Int[Tensor, "n"], num_groups: int, particle_radius: float = 0.45
) -> NoiseSpectrum:
    """Estimate the noise from what lies outside the particle, before anything else is known.

    The area outside is cut out with a smooth edge, so the spectrum is smoothed over a Fourier pixel or two.

    Args:
        particle_radius: Of the disc left out, as a fraction of the box.
    """
    box_size = images.shape[-1]
    axis = (torch.arange(box_size, device=images.device) - box_size // 2) / box_size
    distance = (axis[:, None].square() + axis.square()).sqrt()
    outside = ((distance - particle_radius) / 0.04).clamp(0, 1)
    area = outside.square().mean()
    background = (images * outside).sum((-2, -1), keepdim=True) / outside.sum()
    power = torch.fft.fft2((images - background) * outside).abs().square() / box_size**2 / area
    frequency = torch.fft.fftfreq(box_size, 1 / box_size, device=images.device)
    shell = (frequency[:, None].square() + frequency.square()).sqrt().round().long().flatten()
    num_shells = box_size // 2 + 1
    inside = shell < num_shells
    per_group = torch.zeros(num_groups, num_shells, device=images.device)
    count = torch.zeros_like(per_group)
    flat = power.flatten(1)[:, inside]
    for g in range(num_groups):
        rows = flat[group == g]
        per_group[g].index_add_(0, shell[inside], rows.sum(0))
        count[g] = torch.bincount(shell[inside], minlength=num_shells) * len(rows)
    # A group without images, if there is one, takes the others' mean.
    pooled = per_group.sum(0) / count.sum(0)
    spectrum = torch.where(count > 0, per_group / count.clamp(min=1), pooled)
    # The subtracted background takes power from the lowest shells: they take their neighbour's.
    spectrum[:, :2] = spectrum[:, 2:3]
    return NoiseSpectrum(spectrum)
