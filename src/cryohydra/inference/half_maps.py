"""Half maps of a class: its particles backprojected at full band, each half by itself."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.hartley import image_to_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.lattice_density import density_of_backprojection
from cryohydra.inference.images import weigh_images
from cryohydra.inference.reconstruction import ClassSums
from cryohydra.physics.ctf import contrast_transfer

_LEAST_PROBABILITY = 1e-3
"""Of a class: a search keeps no pose of particles that are less likely of it."""
_PIXELS_AT_ONCE = 2**21
_SHRINKAGE = 0.02
"""Of a shell's mean weight, added to every point of it: keeps points that hardly any slice met from being all noise."""

_SPHERE_EDGE_PX = 3.0


@dataclass(frozen=True)
class HalfSets:
    """What is known of particles that are backprojected, and which half each belongs to."""

    half: Int[Tensor, "n"]
    """0 or 1."""
    probability: Float[Tensor, "n k"]
    rotation: Float[Tensor, "n t k 3 3"]
    shift_px: Float[Tensor, "n t k 2"]
    """Where the particle is, in pixels of the images."""

    def members(self, class_index: int) -> Int[Tensor, "m"]:
        """Particles that count in a class."""
        return torch.nonzero(self.probability[:, class_index] >= _LEAST_PROBABILITY).flatten()

    @property
    def num_visits(self) -> int:
        """Images that are backprojected, over all classes."""
        return int((self.probability >= _LEAST_PROBABILITY).sum())

    def num_particles(self, class_index: int) -> tuple[float, float]:
        """Probabilities of a class summed over each half."""
        weight = self.probability[:, class_index]
        first, second = (float(weight[self.half == h].sum()) for h in (0, 1))
        return first, second


@dataclass(frozen=True)
class HalfMaps:
    """Densities of a class in the scale of the images, not filtered or sharpened, confined to the box's sphere only."""

    halves: Float[Tensor, "2 d d d"]
    whole: Float[Tensor, "d d d"]
    """Of all particles together."""


def backproject_halves(
    source: ParticleSource,
    sets: HalfSets,
    class_index: int,
    device: torch.device | str = "cpu",
    advanced: Callable[[int], None] = lambda count: None,
) -> HalfMaps:
    """Backproject a class: the sum of CTF times image over that of CTF squared, weighed by probability.

    Images are read as they are needed and not kept. Holds four lattices of (2 D)^3 numbers.
    """
    band = Band(source.box_size, largest_radius(source.box_size), torch.device(device))
    lattice = Lattice(source.box_size, band.radius)
    sums = ClassSums.empty(lattice, 1, device)
    at_once = max(1, _PIXELS_AT_ONCE // (source.num_tilts * source.box_size**2))
    for index in sets.members(class_index).split(at_once):
        observed = band.gather(image_to_hartley(source.images(index).to(device)))
        ctf = contrast_transfer(source.optics(index).to(device), band.frequencies)
        sums.add(
            weigh_images(observed, ctf, torch.ones_like(ctf)),
            band,
            sets.half[index].to(device),
            sets.probability[index, class_index, None].float().to(device),
            torch.zeros(len(index), 1, dtype=torch.long, device=device),
            sets.rotation[index, None, :, class_index].float().to(device),
            sets.shift_px[index, None, :, class_index].float().to(device),
        )
        advanced(len(index))
    return _densities(sums)


def _densities(sums: ClassSums) -> HalfMaps:
    lattice, (numerator, denominator) = sums.lattice, (sums.numerator[:, 0], sums.denominator[:, 0])
    distance = lattice.distance(numerator.device).flatten()
    shell = distance.round().long()
    count = torch.bincount(shell)
    sphere = _sphere(lattice.box_size, numerator.device)

    def density(above: Float[Tensor, "n3"], below: Float[Tensor, "n3"]) -> Float[Tensor, "d d d"]:
        mean = below.new_zeros(len(count)).index_add_(0, shell, below) / count
        values = above / (below + _SHRINKAGE * mean[shell] + 1e-20)
        values = torch.where(distance <= lattice.radius, values, 0.0)
        return (density_of_backprojection(lattice, values.view(lattice.shape)) * sphere).cpu()

    halves = [density(above, below) for above, below in zip(numerator, denominator, strict=True)]
    return HalfMaps(torch.stack(halves), density(numerator.sum(0), denominator.sum(0)))


def _sphere(box_size: int, device: torch.device) -> Float[Tensor, "d d d"]:
    """The ball that fits into the box, and an edge: not every view has seen what lies outside."""
    axis = torch.arange(box_size, device=device) - box_size // 2
    square = axis.square()
    distance = (square[:, None, None] + square[:, None] + square).sqrt()
    return (1 - (distance - box_size / 2) / _SPHERE_EDGE_PX).clamp(0, 1)
