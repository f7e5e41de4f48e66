"""Images beside a whole grid of rotations and shifts: eq. 2 as products of matrices."""

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.mirrors import Mirrors, mirror_
from cryohydra.inference.evidence import exponentiate_


class SummedOverShifts:
    """Some images beside every rotation of a grid, shifts summed out."""

    log_mass: Float[Tensor, "b q"]
    """Log likelihood ratio to noise alone, summed over the shifts by their prior; contrast is taken as one."""
    peak: Float[Tensor, "b q"]
    """That of the likeliest shift, its prior included."""

    def __init__(self, log_likelihood: Float[Tensor, "4 b s c"], of_rotation: Float[Tensor, "4 b c"], mirrors: Mirrors):
        """Sum.

        Args:
            log_likelihood: With the prior of shifts, in the order of `Mirrors.rotation_index`; what it holds is lost.
            of_rotation: What is added at all shifts.
        """
        self._mirrors = mirrors
        highest = log_likelihood.amax(2)
        relative = exponentiate_(log_likelihood.transpose(2, 3), highest)
        peak = highest + of_rotation
        self.peak = mirrors.to_grid_order(peak)
        self.log_mass = mirrors.to_grid_order(peak + relative.sum(3).log())
        self._relative = relative

    def best_shift(self, rotation_index: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """The likeliest shift of each image at some rotations."""
        row, column = self._mirrors.place(rotation_index)
        image = torch.arange(len(rotation_index), device=rotation_index.device)[:, None]
        return self._relative[row, image, column].argmax(-1)


class WholeGridComparison:
    """The slices of one class on a whole grid, ready to be compared with images."""

    def __init__(self, slices: Float[Tensor, "c p"], mirrors: Mirrors, dtype: torch.dtype):
        """Split them.

        Args:
            slices: Of the first of each four rotations in `Mirrors.rotation_index`; the others mirror them.
            dtype: In which images and slices are multiplied.
        """
        self._mirrors = mirrors
        parts = mirrors.split(slices)
        # The prior of shifts rides along as one more point, where every slice is one: even in both, so with those.
        one = torch.zeros_like(parts[..., :1])
        one[0] = 1
        self._factor = torch.cat([parts, one], dim=2).to(dtype).transpose(1, 2)
        self._half_square = 0.5 * mirrors.split(slices.square()).transpose(1, 2)

    def compare(
        self, score: Float[Tensor, "b s p"], power: Float[Tensor, "b p"], log_prior: Float[Tensor, "s"]
    ) -> SummedOverShifts:
        """Compare images, see `WeightedImages`, moved back by each shift.

        Args:
            log_prior: Of each shift.
        """
        parts = self._mirrors.split(score)
        # Small numbers stay what they are in few digits; what all shifts share is added in all digits.
        shared = log_prior.amax()
        prior = torch.zeros_like(parts[..., :1])
        prior[0] = (log_prior - shared)[:, None]
        images = torch.cat([parts, prior], dim=3).to(self._factor.dtype)
        log_likelihood = mirror_((images.flatten(1, 2) @ self._factor).float()).unflatten(1, images.shape[1:3])
        of_rotation = shared - mirror_(self._mirrors.split(power) @ self._half_square)
        return SummedOverShifts(log_likelihood, of_rotation, self._mirrors)
