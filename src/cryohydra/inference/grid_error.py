"""What a grid of poses leaves unsaid of slices between its points: noise to whoever compares on the grid."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.geometry.rotations import random_rotations, rotation_vector_to_matrix
from cryohydra.geometry.so3_grid import angular_step
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.slices import SliceSource
from cryohydra.physics.noise import shell_means

_NUM_SLICES = 64
"""Of each class: the mean over them is good to a few per cent."""


@dataclass(frozen=True)
class GridError:
    """How a slice in a random pose follows from that at the centre of the cell it lies in, shell by shell.

    Its expectation is the centre's slice times `kept`, what is left has the power `variance`: this much is added to the
    noise, so that frequencies that turn over within a cell count for little, and none has to be left out.
    """

    kept: Float[Tensor, "k p"]
    """Part of the amplitude, from 1 where the grid is fine to 0 where it says nothing."""
    variance: Float[Tensor, "k p"]
    """Per frequency, before the CTF."""

    @classmethod
    def of_grid(cls, slices: SliceSource, band: Band, level: int, shift_step_px: float) -> "GridError":
        """Measure it at a few poses, always the same ones.

        Args:
            level: Of the grid of rotations.
            shift_step_px: Of the grid of shifts; zero if nothing is shifted.
        """
        device = band.frequencies.device
        num_classes, generator = slices.num_classes, torch.Generator().manual_seed(0)
        rotation = random_rotations(_NUM_SLICES, generator).repeat(num_classes, 1, 1).to(device)
        within_cell = torch.rand(_NUM_SLICES, 5, generator=generator).repeat(num_classes, 1).to(device) - 0.5
        turn = rotation_vector_to_matrix(angular_step(level) * within_cell[:, :3])
        class_index = torch.arange(num_classes, device=device).repeat_interleave(_NUM_SLICES)
        centre = slices.of_candidates(band, class_index, rotation)
        nearby = slices.of_candidates(band, class_index, rotation @ turn)
        nearby = shift_hartley(nearby[:, None], band.frequencies, shift_step_px * within_cell[:, None, 3:])[:, 0]
        power, shared = (
            shell_means(product.unflatten(0, (num_classes, -1)).mean(1), band, band.radius + 1)
            for product in (centre.square(), centre * nearby)
        )
        kept = torch.nan_to_num(shared / power).clamp(0, 1)
        variance = (1 - kept.square()) * power
        return cls(kept[:, band.shells], variance[:, band.shells])

    def weigh(self, images: WeightedImages, class_index: Int[Tensor, "b"]) -> tuple[WeightedImages, Float[Tensor, "b"]]:
        """Images with this much more noise, in one class each, and what that adds to their log likelihood."""
        variance = self.variance[class_index][:, None]
        trust = 1 / (1 + images.power * variance)
        offset = 0.5 * (images.score.square() * variance * trust + trust.log()).sum((1, 2))
        return WeightedImages(images.score * trust, images.power * trust, images.constant), offset
