"""Whether single images tell two groups of particles of one class apart, or that they differ at all.

A network that gives each particle a conformation can lay particles out by the noise in their images. So how they
differ is found from one half of the particles and looked for in the images of the other half. Half of a motion is
told from the other half as two states are: what is asked is whether particles differ, not whether there is a gap.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.reconstruction import density_mask, particle_mask
from cryohydra.inference.variation import (
    PosedImages,
    components_of_residual,
    residual_of_mean,
    slices_of_maps,
    solve_components,
)

_CHANCE_OF_GROUPS, _CHANCE = 2.0, 1.0
"""Variance of positions that groups without structure may reach: one of the noise, and one at most because groups were
formed with all images, so that each half's average holds a little of the other half's noise. Of what one half shows to
differ without the other there is the noise alone."""
_NUM_COMPONENTS = 3
"""Found together, since the first is found sooner beside others than alone."""
_ERRORS = 2.0
"""Standard errors of the variance by which it must be larger than that."""


@dataclass(frozen=True)
class Separation:
    """How far images of one half lie apart along what the other half shows to differ."""

    variance: float
    """Of the images' positions, over the variance if groups were drawn by lot: 1 if they differ in nothing."""
    num_images: int
    chance: float
    """Variance that images of one structure may reach."""

    @classmethod
    def of_nothing(cls) -> "Separation":
        """Of too few images to tell."""
        return cls(1.0, 0, _CHANCE)

    @property
    def distance(self) -> float:
        """Between two groups of equal size, in standard deviations of one image's noise."""
        return 2 * math.sqrt(max(0.0, self.variance - 1))

    @property
    def is_told(self) -> bool:
        """Whether they differ by more than noise, and having been formed by it, can make them."""
        error = self.variance * math.sqrt(4 / max(self.num_images, 1))
        return self.variance - _ERRORS * error > self.chance


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
        images = self.images.at(rows.to(self.images.score.device))
        return self._held_against(images, side, self._difference, _CHANCE_OF_GROUPS, generator)

    def variety(self, generator: torch.Generator) -> Separation:
        """Hold each half of the images against the component along which those of the other half differ most.

        Images of two structures differ along it in the other half as well; of one structure it shows noise, whichever
        half is asked. There are to be four images at least.

        Args:
            generator: On the CPU.
        """

        def strongest(known: PosedImages, _: Float[Tensor, "m"]) -> Float[Tensor, "1 n n n"]:
            return components_of_residual(known, self.band, self.lattice, self.mask, _NUM_COMPONENTS, generator)[:1]

        order = torch.randperm(len(self.images), generator=generator)
        images = self.images.at(order.to(self.images.score.device))
        # As many on each side, in each half.
        side = torch.where(torch.arange(len(images)) // 2 % 2 == 0, 1.0, -1.0)
        return self._held_against(images, side, strongest, _CHANCE, generator)

    def _held_against(
        self,
        images: PosedImages,
        side: Float[Tensor, "m"],
        find: Callable[[PosedImages, Tensor], Tensor],
        chance: float,
        generator: torch.Generator,
    ) -> Separation:
        """Each half of the images against what `find` says of the other half and its sides, and sides drawn by lot."""
        first, second = (torch.arange(half, len(images), 2) for half in (0, 1))
        found, by_lot = [], []
        for known_rows, other_rows in ((first, second), (second, first)):
            known, other = (images.at(rows.to(images.score.device)) for rows in (known_rows, other_rows))
            given = side[known_rows]
            drawn = given[torch.randperm(len(given), generator=generator)]
            found.append(self._positions(other, find(known, given)))
            by_lot.append(self._positions(other, self._difference(known, drawn)))
        variance, expected = (float(torch.cat(positions).var()) for positions in (found, by_lot))
        return Separation(variance / expected, len(images), chance)

    def _difference(self, images: PosedImages, side: Float[Tensor, "m"]) -> Float[Tensor, "1 n n n"]:
        """How two groups of images differ: those on the side of 1 and those on that of -1."""
        coordinate = side[:, None].to(self.mask)
        certain = coordinate.new_zeros(len(coordinate), 1, 1)
        return solve_components(images, self.band, self.lattice, self.mask, coordinate, certain)

    def _positions(self, images: PosedImages, difference: Float[Tensor, "1 n n n"]) -> Float[Tensor, "m"]:
        """Where images lie along a difference, in units of their noise."""
        positions = []
        for some, cut in slices_of_maps(images, self.band, self.lattice, difference):
            along = (cut[0] * images.score[some]).sum((1, 2))
            information = (cut[0].square() * images.power[some]).sum((1, 2))
            positions.append(along / information.clamp(min=1e-20).sqrt())
        return torch.cat(positions)
