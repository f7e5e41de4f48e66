"""The mean and spread of images, by which they are brought to order one."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.data.source import ParticleSource

_CHUNK = 128


@dataclass(frozen=True)
class Normalisation:
    """An image is shown to the model as (image - mean) / std."""

    mean: float
    std: float

    def apply(self, images: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
        """Normalised images."""
        return (images - self.mean) / self.std


def measure_normalisation(
    source: ParticleSource, max_images: int = 1000, *, generator: torch.Generator
) -> Normalisation:
    """Mean and standard deviation of the pixels of up to `max_images` random images."""
    num_particles = max(1, min(len(source), max_images // source.num_tilts))
    chosen = torch.randperm(len(source), generator=generator)[:num_particles].sort().values
    total, total_square, count = 0.0, 0.0, 0
    # About the first image's mean: pixel values far from zero would cost digits in the squares.
    offset = source.images(chosen[:1]).double().mean().item()
    for index in chosen.split(_CHUNK):
        images = source.images(index).double() - offset
        total += images.sum().item()
        total_square += images.square().sum().item()
        count += images.numel()
    mean = total / count
    return Normalisation(mean=mean + offset, std=(total_square / count - mean**2) ** 0.5)
