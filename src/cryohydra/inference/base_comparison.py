"""Images beside a whole grid of rotations and shifts: eq. 2 as products of matrices."""

from dataclasses import dataclass

import torch

from cryohydra._device import matrix_dtype
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.mirrors import Mirrors, mirror_
from cryohydra.inference.evidence import exponentiate_


@dataclass(frozen=True)
class OverShifts:
    """Some images beside every rotation of a grid, summed over shifts."""

    log_mass: Float[Tensor, "b q"]
    """Log likelihood ratio to noise alone, summed over the shifts by their prior; contrast is taken as one."""
    peak: Float[Tensor, "b q"]
    """That of the likeliest shift, its prior included."""
    _relative: Float[Tensor, "4 b s c"]
    _mirrors: Mirrors

    def best_shift(self, rotation_index: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """The likeliest shift of each image at some rotations."""
        row, column = self._mirrors.place(rotation_index)
        image = torch.arange(len(rotation_index), device=rotation_index.device)[:, None]
        return self._relative[row, image, :, column].argmax(-1)


class BaseComparison:
    """The slices of one class on a whole grid, ready to be compared with images."""

    def __init__(self, slices: Float[Tensor, "c p"], mirrors: Mirrors):
        """Split them.

        Args:
            slices: Of the first of each four rotations in `Mirrors.rotation_index`; the others mirror them.
        """
        self._mirrors = mirrors
        parts = mirrors.split(slices)
        # The prior of shifts rides along as one more point, where every slice is one: even in both, so with those.
        one = torch.zeros_like(parts[..., :1])
        one[0] = 1
        self._factor = torch.cat([parts, one], dim=2).to(matrix_dtype(slices.device)).transpose(1, 2)
        self._half_square = 0.5 * mirrors.split(slices.square()).transpose(1, 2)

    def over_shifts(
        self, score: Float[Tensor, "b s p"], power: Float[Tensor, "b p"], log_prior: Float[Tensor, "s"]
    ) -> OverShifts:
        """Compare images, see `WeightedImages`, moved back by each shift.

        Args:
            log_prior: Of each shift.
        """
        mirrors = self._mirrors
        parts = mirrors.split(score)
        prior = torch.zeros_like(parts[..., :1])
        prior[0] = log_prior[:, None]
        images = torch.cat([parts, prior], dim=3).to(self._factor.dtype)
        likelihood = mirror_((images.flatten(1, 2) @ self._factor).float()).unflatten(1, images.shape[1:3])
        highest = likelihood.amax(2)
        relative = exponentiate_(likelihood.transpose(2, 3), highest).transpose(2, 3)
        of_rotation = mirror_(mirrors.split(power) @ self._half_square)
        peak = highest - of_rotation
        log_mass = peak + relative.sum(2).log()
        return OverShifts(mirrors.all_rotations(log_mass), mirrors.all_rotations(peak), relative, mirrors)
