"""Densities whose slices are known exactly, and images of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice, slice_frequencies
from cryohydra.geometry.rotations import random_rotations, rotation_vector_to_matrix
from cryohydra.geometry.so3_grid import grid_rotations
from cryohydra.inference.images import WeightedImages, weigh_images

BOX_SIZE = 32


class Blobs:
    """Gaussian blobs in a few classes: a source of slices without any interpolation."""

    def __init__(self, centres_px: torch.Tensor, weights: torch.Tensor, spread_px: float = 0.9):
        self.num_classes = len(centres_px)
        self.centres_px, self.weights, self.spread_px = centres_px, weights, spread_px

    def of_class(self, class_index: int, frequencies: torch.Tensor) -> torch.Tensor:
        """Hartley coefficients at frequencies in cycles per pixel."""
        phase = 2 * math.pi * frequencies @ self.centres_px[class_index].T
        falloff = (-2 * (math.pi * self.spread_px) ** 2 * frequencies.square().sum(-1)).exp()
        return ((phase.cos() + phase.sin()) @ self.weights[class_index]) * falloff / BOX_SIZE

    def on_grid(self, band: Band, rotations: torch.Tensor) -> torch.Tensor:
        """Every class's slice at every rotation."""
        return torch.stack([self.of_class(k, slice_frequencies(band, rotations)) for k in range(self.num_classes)])

    def of_candidates(self, band: Band, class_index: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """One slice for each pair of class and rotation."""
        every = self.on_grid(band, rotation)
        return every[class_index, torch.arange(len(rotation))]

    def of_cells(self, band: Band, class_index: torch.Tensor, level: int, rotation_index: torch.Tensor) -> torch.Tensor:
        """The same at rotations of a level's grid."""
        return self.of_candidates(band, class_index, grid_rotations(level, rotation_index))

    def with_tangents(
        self, band: Band, class_index: torch.Tensor, rotation: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One slice for each pair, and what a small turn adds to it, by central differences."""
        turns = rotation_vector_to_matrix(torch.cat([0.01 * torch.eye(3), -0.01 * torch.eye(3)]))
        cut = torch.stack([self.of_candidates(band, class_index, rotation @ turn) for turn in turns], dim=1)
        return self.of_candidates(band, class_index, rotation), (cut[:, :3] - cut[:, 3:]) / 0.02

    def on_lattice(self, lattice: Lattice) -> torch.Tensor:
        """Every class on the points of a lattice."""
        return torch.stack([self.of_class(k, lattice.points()) for k in range(self.num_classes)])

    def permuted(self, order: list[int]) -> "Blobs":
        """The same classes in another order."""
        return Blobs(self.centres_px[order], self.weights[order], self.spread_px)


@dataclass(frozen=True)
class Images:
    """Images with noise of variance one, and what is true of them."""

    weighted: WeightedImages
    rotation: torch.Tensor
    shift_px: torch.Tensor
    labels: torch.Tensor


@pytest.fixture(scope="session")
def blobs() -> Blobs:
    """Two classes without symmetry, all density within a quarter of the box of its centre."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(2, 7, 3, generator=generator), dim=-1)
    radius = 3 + 3.5 * torch.rand(2, 7, 1, generator=generator)
    return Blobs(direction * radius, 0.5 + torch.rand(2, 7, generator=generator))


@pytest.fixture(scope="session")
def take_images() -> Callable[..., Images]:
    """Photograph a density."""

    def take(
        density: Blobs, band: Band, num_images: int, *, signal: float, shift_std_px: float = 0.0, seed: int = 0
    ) -> Images:
        generator = torch.Generator().manual_seed(seed)
        rotation = random_rotations(num_images, generator)
        # Pairs of the same class: every part of the particles has images of all.
        labels = torch.arange(num_images) // 2 % density.num_classes
        shift = (shift_std_px * torch.randn(num_images, 2, generator=generator)).clamp(
            -2 * shift_std_px, 2 * shift_std_px
        )
        clean = shift_hartley(density.of_candidates(band, labels, rotation), band.frequencies, shift)
        # `signal` is the energy of an image: what a perfect prediction gains over noise is half of it.
        ctf = -(signal / clean.square().sum(1).mean()).sqrt() * torch.ones_like(clean)
        observed = ctf * clean + torch.randn(clean.shape, generator=generator)
        weighted = weigh_images(observed[:, None], ctf[:, None], torch.ones_like(clean)[:, None])
        return Images(weighted, rotation, shift, labels)

    return take
