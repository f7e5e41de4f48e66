"""Images on their way from a source to the model: normalised, transformed and batched."""

from collections.abc import Iterator
from functools import cached_property

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.normalisation import Normalisation
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import image_to_hartley
from cryohydra.physics.ctf import Optics

_WINDOW_OUTER_RADIUS = 0.99


class PreparedImages:
    """The Hartley transforms of a source's images, made on the device of the band.

    Args:
        band: The widest in which images are compared.
        window_radius: Fraction of half the box within which images are kept as they are; from there a cosine
            falls to zero at 0.99. None keeps all. A window correlates the noise between frequencies.
    """

    def __init__(
        self,
        source: ParticleSource,
        normalisation: Normalisation,
        band: Band,
        window_radius: float | None = None,
    ):
        assert band.box_size == source.box_size
        self.box_size = source.box_size
        self.num_tilts = source.num_tilts
        self.pixel_size_angstrom = source.pixel_size_angstrom
        self.band = band
        self._source, self._normalisation = source, normalisation
        self._window = None if window_radius is None else soft_window(source.box_size, window_radius).to(band.device)

    def __len__(self) -> int:
        return len(self._source)

    def hartley(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        """Coefficients of the whole box."""
        # Only the pixels travel: a processor that transforms them would keep a GPU waiting.
        images = self._normalisation.apply(self._source.images(index.cpu()).to(self.band.device))
        return image_to_hartley(images if self._window is None else images * self._window)

    @cached_property
    def _optics(self) -> Optics:
        """A few numbers for each image: asked for batch by batch they would travel again and again."""
        return self._source.optics(torch.arange(len(self))).to(self.band.device)

    def optics(self, index: Int[Tensor, "b"]) -> Optics:
        """Optics of the images, on the device of the band."""
        return self._optics[index.to(self.band.device)]


def soft_window(box_size: int, radius: float) -> Float[Tensor, "d d"]:
    """One within `radius` half boxes of the centre, zero beyond 0.99, a cosine between."""
    axis = (torch.arange(box_size) - box_size // 2) / (box_size / 2)
    distance = torch.hypot(axis[:, None], axis[None, :])
    way_out = ((distance - radius) / max(_WINDOW_OUTER_RADIUS - radius, 1e-6)).clamp(0, 1)
    return (1 + torch.cos(torch.pi * way_out)) / 2


def shuffled_batches(num_particles: int, batch_size: int, generator: torch.Generator) -> Iterator[Int[Tensor, "b"]]:
    """Every particle once, in random order; the last batch may be smaller."""
    yield from torch.randperm(num_particles, generator=generator).split(batch_size)
