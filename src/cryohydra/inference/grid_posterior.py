"""Soft assignment of images to the poses of a grid, and its transpose: eq. 2 as matrix products.

With CTF and noise folded into the images, the likelihoods of all shifts and rotations are one product of matrices; what
each slice of the grid gathers of the images is the transposed product.
"""

from abc import ABC, abstractmethod

import torch
from torch.nn.functional import pad

from cryohydra._typing import Float, Int, Tensor
from cryohydra.inference.evidence import exponentiate_


class GridPosterior(ABC):
    """How likely the poses of a grid are for each image, in each class; contrast is taken as one."""

    log_evidence: Float[Tensor, "b k"]
    """Over that of noise alone, summed over rotations (not their mean) and over the shifts by their prior."""
    rotation_index: Int[Tensor, "b k"]
    """The likeliest."""
    shift_index: Int[Tensor, "b k"]
    """That of the likeliest rotation."""
    shift_mass: Float[Tensor, "b k s"]
    """Part of the posterior at each shift; sums to one in each class."""

    @abstractmethod
    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers: score and power of the images, weighed by `share` and the posterior of the pose."""

    def _finish(self, peaks: list[Tensor], of_shift: list[Tensor], likeliest: list[tuple[Tensor, Tensor]]) -> None:
        mass = torch.stack(of_shift, dim=1)
        self._log_scale = torch.stack(peaks, dim=1)
        total = mass.sum(2)
        self.log_evidence = self._log_scale + total.log()
        self.shift_mass = mass / total[:, :, None]
        self.rotation_index, self.shift_index = (torch.stack(found, 1) for found in zip(*likeliest, strict=True))
        # Weights are kept relative to the highest; this makes them sum to one.
        self._normaliser = 1 / total


class ExhaustivePosterior(GridPosterior):
    """Over all rotations of a grid."""

    def __init__(
        self,
        slices: Float[Tensor, "k q p"],
        score: Float[Tensor, "b s p"],
        power: Float[Tensor, "b p"],
        log_prior: Float[Tensor, "s"],
    ):
        """Compare.

        Args:
            score: Of images moved back by each shift of the grid, see `WeightedImages`.
            log_prior: Of each shift; its exponentials sum to one.
        """
        self._score, self._power = score, power
        num_rotations = slices.shape[1]
        # The prior rides along as one more point, where every slice is one.
        with_prior = torch.cat([score, log_prior[:, None].expand(len(score), -1, -1)], dim=-1)
        self._relative = []
        peaks, of_shift, likeliest = [], [], []
        for of_class in slices:
            all_power = power @ of_class.square().T
            with_one = pad(of_class, (0, 1), value=1.0).T.expand(len(score), -1, -1)
            log_likelihood = torch.baddbmm(all_power[:, None], with_prior, with_one, beta=-0.5).flatten(1)
            peak, best = log_likelihood.max(1)
            relative = exponentiate_(log_likelihood, peak).unflatten(1, (-1, num_rotations))
            self._relative.append(relative)
            peaks.append(peak)
            of_shift.append(relative.sum(2))
            likeliest.append((best % num_rotations, torch.div(best, num_rotations, rounding_mode="floor")))
        self._finish(peaks, of_shift, likeliest)

    def heaviest(self, count: int) -> Int[Tensor, "b k c"]:
        """The rotations of each class that hold most of its posterior."""
        return torch.stack([relative.sum(1).topk(count, dim=1).indices for relative in self._relative], dim=1)

    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers."""
        weight = (share * self._normaliser).unbind(1)
        numerator = [
            relative.flatten(0, 1).T @ (one[:, None, None] * self._score).flatten(0, 1)
            for relative, one in zip(self._relative, weight, strict=True)
        ]
        denominator = [
            relative.sum(1).T @ (one[:, None] * self._power)
            for relative, one in zip(self._relative, weight, strict=True)
        ]
        return torch.stack(numerator), torch.stack(denominator)


class PrunedPosterior(GridPosterior):
    """Over a few rotations of a grid for each image and class, the others having none of the posterior."""

    def __init__(
        self,
        slices: Float[Tensor, "k q p"],
        score: Float[Tensor, "b s p"],
        power: Float[Tensor, "b p"],
        log_prior: Float[Tensor, "s"],
        rotation_index: Int[Tensor, "b k c"],
    ):
        """Compare, see `ExhaustivePosterior`.

        Args:
            rotation_index: Those that each image is compared with, none twice.
        """
        self._score, self._power, self._index = score, power, rotation_index
        self._num_rotations = slices.shape[1]
        self._relative = []
        peaks, of_shift, likeliest = [], [], []
        for k, of_class in enumerate(slices):
            cut = of_class[rotation_index[:, k]]
            all_power = (cut.square() @ power[:, :, None]).transpose(1, 2)
            log_likelihood = torch.baddbmm(all_power, score, cut.transpose(1, 2), beta=-0.5)
            log_likelihood += log_prior[:, None]
            peak, best = log_likelihood.flatten(1).max(1)
            relative = exponentiate_(log_likelihood.flatten(1), peak).view_as(log_likelihood)
            self._relative.append(relative)
            peaks.append(peak)
            of_shift.append(relative.sum(2))
            num_compared = cut.shape[1]
            rotation = rotation_index[:, k].take_along_dim(best[:, None] % num_compared, 1)[:, 0]
            likeliest.append((rotation, torch.div(best, num_compared, rounding_mode="floor")))
        self._finish(peaks, of_shift, likeliest)

    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers."""
        num_images = len(share)
        row = torch.arange(num_images, device=share.device)[:, None]
        numerator = share.new_zeros(len(self._relative), self._num_rotations, self._power.shape[1])
        denominator = torch.empty_like(numerator)
        for k, relative in enumerate(self._relative):
            weight, index = share[:, k] * self._normaliser[:, k], self._index[:, k]
            gathered = relative.transpose(1, 2) @ (weight[:, None, None] * self._score)
            numerator[k].index_add_(0, index.flatten(), gathered.flatten(0, 1))
            of_rotation = share.new_zeros(self._num_rotations, num_images)
            of_rotation[index, row] = relative.sum(1) * weight[:, None]
            denominator[k] = of_rotation @ self._power
        return numerator, denominator
