"""Where maps climb from nothing: a lattice, what confines density on it, and what maps leave unexplained of images."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, to_frequency, to_real_space
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import density_mask, particle_mask, ratio
from cryohydra.physics.noise import shell_means
from cryohydra.training.state import TrainingState
from cryohydra.training.team import SharedBatch

_LEAST_SHARE = 0.02
"""See `ClassSums.solve`. No Wiener filter besides: with one, images stayed at the poses that they began with."""


@dataclass(frozen=True)
class Ground:
    """What all maps of a stage share."""

    lattice: Lattice
    band: Band
    """The widest."""
    mask: Float[Tensor, "n n n"]
    """Where density may be, on the lattice's coarse voxels."""
    distance: Float[Tensor, "n n n"]
    """Of the lattice's points from zero frequency, in Fourier pixels."""
    shells: Int[Tensor, "n n n"]

    @classmethod
    def of(cls, state: TrainingState, radius: int) -> "Ground":
        """A lattice for the images' box, up to a radius in Fourier pixels."""
        lattice = Lattice(state.images.box_size, radius)
        distance = lattice.distance(state.device)
        shells = distance.round().long().clamp(max=radius + 1)
        return cls(lattice, state.band(radius), particle_mask(lattice, state.device), distance, shells)

    def maps_of(
        self, numerator: Float[Tensor, "k n3"], denominator: Float[Tensor, "k n3"], radius: int
    ) -> Float[Tensor, "k n n n"]:
        """What sums over images come to, up to a radius in Fourier pixels and confined to its own density."""
        in_band = self.distance <= radius
        values = ratio(numerator, denominator, self.shells.flatten(), _LEAST_SHARE).unflatten(1, in_band.shape)
        density = confined(self.lattice, torch.where(in_band, values, 0.0))
        return torch.where(in_band, to_frequency(density * self.mask), 0.0)


def confined(lattice: Lattice, maps: Float[Tensor, "k n n n"]) -> Float[Tensor, "k n n n"]:
    """Maps in real space without what lies outside their density and what is less than nothing.

    Most of a map's sphere is empty, and all of it takes up noise, in which images of a small complex then find their
    poses (solvent flattening, Wang, Methods Enzymol. 1985).
    """
    density = to_real_space(maps)
    return density * density_mask(lattice, maps) * (density > 0)


def unexplained_power(state: TrainingState, ground: Ground, index: Int[Tensor, "b"]) -> Float[Tensor, "r"]:
    """All the power of images over that of the noise in each shell, 1 or more: what no map explains yet."""
    batch = SharedBatch(state.team, len(index), state.generator)
    power = batch.mean(power_over_noise(state.weighted(state.team.share(index), ground.band)))
    return shell_means(power[None], ground.band, ground.band.radius + 1)[0].clamp(min=1)


def followed(
    unexplained: Float[Tensor, "r"], residual: Float[Tensor, "p"], band: Band, memory: float
) -> Float[Tensor, "r"]:
    """How much power over that of the noise maps leave in each shell, after one more step; never less than the noise's.

    This is the noise re-estimated in every step (the M step of its variance, Scheres, J. Mol. Biol. 2012):
    at first all of the images' power, at the end little more than the noise.

    Args:
        residual: What the step's images leave at each frequency.
        memory: Part of what was left before that is still believed.
    """
    shells = shell_means(residual[None], band, band.radius + 1)[0].clamp(min=1)
    seen = unexplained[: len(shells)]
    return torch.cat([torch.lerp(shells, seen, memory), unexplained[len(shells) :]])


def power_over_noise(images: WeightedImages) -> Float[Tensor, "b p"]:
    """Each image's power over that of the noise at each frequency, from the score's and the CTF's."""
    return (images.score.square() / images.power.clamp(min=1e-20)).mean(1)
