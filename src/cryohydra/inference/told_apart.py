"""Whether single images tell two groups of particles of one class apart.

A network that gives each particle a conformation can lay particles out by the noise in their images. So how the groups
differ is found from one half of their particles and looked for in the images of the other half. Half of a motion is
told from the other half as two states are: what is asked is whether groups differ, not whether there is a gap.
"""

import math
from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.reconstruction import density_mask, particle_mask
from cryohydra.inference.variation import PosedImages, residual_of_mean, slices_of_maps, solve_components

_CHANCE = 2.0
"""Variance of positions that groups without structure may reach: one of the noise, and one at most because groups were
formed with all images, so that each half's average holds a little of the other half's noise."""
_ERRORS = 2.0
"""Standard errors of the variance by which it must be larger than that."""


@dataclass(frozen=True)
class Separation:
    """How far images of one half lie apart along what the other half shows to differ."""

    variance: float
    """Of the images' positions, over the variance if groups were drawn by lot: 1 if they differ in nothing."""
    num_images: int

    @property
    def distance(self) -> float:
        """Between two groups of equal size, in standard deviations of one image's noise."""
        return 2 * math.sqrt(max(0.0, self.variance - 1))

    @property
    def is_told(self) -> bool:
        """Whether they differ by more than noise, and having been formed by it, can make them."""
        error = self.variance * math.sqrt(4 / max(self.num_images, 1))
        return self.variance - _ERRORS * error > _CHANCE


@dataclass(frozen=True)
class ClassResiduals:
    """What the mean map of a class leaves of its images."""

    images: PosedImages
    band: Band
    lattice: Lattice
    mask: Float[Tensor, "n n n"]
    """Where density is, on the lattice's coarse voxels."""

    @classmethod
    def of(cls, images: PosedImages, band: Band, lattice: Lattice, mean: Float[Tensor, "n n n"]) -> "ClassResiduals":
        """Take the mean map, on the lattice, off the images."""
        mask = particle_mask(lattice, mean.device) * density_mask(lattice, mean[None])[0]
        return cls(residual_of_mean(images, band, lattice, mean), band, lattice, mask)

    def separation(self, first: Int[Tensor, "m"], second: Int[Tensor, "n"], generator: torch.Generator) -> Separation:
        """Hold each half of two groups of at least two images against the difference that the other half shows.

        Args:
            first: Rows of the images; of the larger group as many as the smaller one has take part.
            generator: On the CPU.
        """
        size = min(len(first), len(second))
        picked = [group[torch.randperm(len(group), generator=generator)[:size]] for group in (first, second)]
        rows = torch.cat(picked)
        side = torch.cat([torch.ones(size), -torch.ones(size)])
        # Both groups are in an order of no meaning, so every other image is a half drawn by lot.
        half = torch.arange(2 * size) % 2
        by_lot = side[torch.randperm(2 * size, generator=generator)]
        found, chance = (self._variance(rows, given, half) for given in (side, by_lot))
        return Separation(found / chance, 2 * size)

    def _variance(self, rows: Int[Tensor, "m"], side: Float[Tensor, "m"], half: Int[Tensor, "m"]) -> float:
        """Of the images' positions along the difference of the sides in the other half, in units of their noise."""
        device = self.images.score.device
        positions = []
        for held in (0, 1):
            known = self.images.at(rows[half != held].to(device))
            coordinate = side[half != held, None].to(device)
            certain = coordinate.new_zeros(len(coordinate), 1, 1)
            difference = solve_components(known, self.band, self.lattice, self.mask, coordinate, certain)
            other = self.images.at(rows[half == held].to(device))
            for some, cut in slices_of_maps(other, self.band, self.lattice, difference):
                along = (cut[0] * other.score[some]).sum((1, 2))
                information = (cut[0].square() * other.power[some]).sum((1, 2))
                positions.append(along / information.clamp(min=1e-20).sqrt())
        return float(torch.cat(positions).var())
