"""Images beside a whole grid of rotations and shifts: eq. 2 as products of matrices."""

from collections.abc import Callable

import torch

from cryohydra._device import is_fused
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.mirrors import Mirrors, mirror_
from cryohydra.inference.evidence import exponentiate_
from cryohydra.inference.pairs import ClassRuns


class SummedOverShifts:
    """Pairs of an image and a class at every rotation of a grid, shifts summed out."""

    log_mass: Float[Tensor, "n q"]
    """Log likelihood ratio to noise alone, summed over the shifts by their prior; contrast is taken as one."""
    peak: Float[Tensor, "n q"]
    """That of the likeliest shift, its prior included."""

    def __init__(
        self,
        mirrors: Mirrors,
        peak: Float[Tensor, "4 n c"],
        log_mass: Float[Tensor, "4 n c"],
        shift_at: Callable[[Tensor, Tensor, Tensor], Tensor],
    ):
        """Bring them into the grid's order.

        Args:
            peak: In the order of `Mirrors.rotation_index`.
            log_mass: The same.
            shift_at: The likeliest shift by such an index.
        """
        self._mirrors, self._shift_at = mirrors, shift_at
        self.peak, self.log_mass = mirrors.to_grid_order(peak), mirrors.to_grid_order(log_mass)

    def best_shift(self, rotation_index: Int[Tensor, "n m"]) -> Int[Tensor, "n m"]:
        """The likeliest shift of each pair at some rotations."""
        row, column = self._mirrors.place(rotation_index)
        pair = torch.arange(len(rotation_index), device=rotation_index.device)[:, None]
        return self._shift_at(row, pair, column)


class WholeGridComparison:
    """The slices of K classes on a whole grid, ready to be compared with images."""

    def __init__(self, slices: Float[Tensor, "k c p"], mirrors: Mirrors, dtype: torch.dtype):
        """Split them.

        Args:
            slices: Of the first of each four rotations in `Mirrors.rotation_index`; the others mirror them.
            dtype: In which images and slices are multiplied.
        """
        self._mirrors, self._is_fused = mirrors, is_fused(slices.device, dtype)
        parts = mirrors.split(slices)
        # The prior of shifts rides along as one more point, where every slice is one: even in both, so with those.
        one = torch.zeros_like(parts[..., :1])
        one[0] = 1
        self._factor = torch.cat([parts, one], dim=3).to(dtype).movedim(1, 0)
        self._half_square = 0.5 * mirrors.split(slices.square()).movedim(1, 0).transpose(2, 3)

    def numbers_per_pair(self, num_shifts: int) -> int:
        """How many numbers are worked on at a time for an image and a class."""
        num_columns, num_points = self._factor.shape[2:]
        if self._is_fused:
            # Its results, and the image at every shift while it is split.
            return 16 * num_columns + 24 * num_points * num_shifts
        return 4 * num_columns * num_shifts

    def compare(
        self,
        score: Float[Tensor, "n s p"],
        power: Float[Tensor, "n p"],
        log_prior: Float[Tensor, "s"],
        runs: ClassRuns,
    ) -> SummedOverShifts:
        """Compare images, see `WeightedImages`, moved back by each shift, with one class each.

        Args:
            log_prior: Of each shift.
            runs: Which images are compared with which class.
        """
        parts = self._mirrors.split(score)
        # Small numbers stay what they are in few digits; what all shifts share is added in all digits.
        shared = log_prior.amax()
        prior = torch.zeros_like(parts[..., :1])
        prior[0] = (log_prior - shared)[:, None]
        images = torch.cat([parts, prior], dim=3).to(self._factor.dtype)
        of_rotation = shared - self._of_rotation(power, runs)
        if self._is_fused:
            # Here, since not every machine has Triton.
            from cryohydra.inference.whole_grid_kernel import sum_over_shifts

            peak, log_mass, best = sum_over_shifts(images, self._factor, of_rotation, runs)
            return SummedOverShifts(self._mirrors, peak, log_mass, lambda *at: best[at].long())
        relative, peaks = [], []
        for factor, own in zip(self._factor, runs.of_class, strict=True):
            if own.start == own.stop:
                continue
            product = mirror_((images[:, own].flatten(1, 2) @ factor.transpose(1, 2)).float())
            log_likelihood = product.unflatten(1, (-1, len(log_prior))).transpose(2, 3)
            highest = log_likelihood.amax(3)
            relative.append(exponentiate_(log_likelihood, highest))
            peaks.append(highest)
        peak = torch.cat(peaks, dim=1) + of_rotation
        everywhere = torch.cat(relative, dim=1) if len(relative) > 1 else relative[0]
        log_mass = peak + everywhere.sum(3).log()
        return SummedOverShifts(self._mirrors, peak, log_mass, lambda *at: everywhere[at].argmax(-1))

    def _of_rotation(self, power: Float[Tensor, "n p"], runs: ClassRuns) -> Float[Tensor, "4 n c"]:
        """Half of <power, slice^2>, which all shifts share."""
        parts = self._mirrors.split(power)
        products = [
            parts[:, own] @ half_square for half_square, own in zip(self._half_square, runs.of_class, strict=True)
        ]
        return mirror_(torch.cat(products, dim=1))
