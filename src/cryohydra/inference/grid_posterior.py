"""Soft assignment of images to the poses of a grid, and its transpose: eq. 2 as matrix products.

With CTF and noise folded into the images, the likelihoods of all shifts and rotations are one product of matrices; what
each slice of the grid gathers of the images is the transposed product.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from cryohydra._device import chunks, matrix_dtype
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.mirrors import Mirrors
from cryohydra.inference.evidence import exponentiate_
from cryohydra.inference.pairs import ImagesOfClasses
from cryohydra.inference.whole_grid import WholeGridComparison


@dataclass(frozen=True)
class Compared:
    """Images at every shift of a grid beside slices at every rotation of one."""

    slices: Float[Tensor, "k q p"]
    score: Float[Tensor, "b s p"]
    """Of images moved back by each shift, see `WeightedImages`."""
    power: Float[Tensor, "b p"]
    log_prior: Float[Tensor, "s"]
    """Of each shift; its exponentials sum to one."""


RotationWeights = Callable[[Tensor, Tensor], Tensor]
"""Log weights of the rotations of each class, from their posterior in each image and class and from the evidence. They
count in what slices gather; evidence stays what it is."""


class GridPosterior(ABC):
    """How likely the poses of a grid are for each image, in each class; contrast is taken as one."""

    log_evidence: Float[Tensor, "b k"]
    """Over that of noise alone, summed over rotations (not their mean) and over the shifts by their prior."""
    rotation_index: Int[Tensor, "b k"]
    """The likeliest; of a class that an image is not compared with, any."""
    shift_index: Int[Tensor, "b k"]
    """That of the likeliest rotation."""

    @abstractmethod
    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers: score and power of the images, weighed by `share` and the posterior of the pose."""

    @abstractmethod
    def mass_of_shifts(self, share: Float[Tensor, "b k"]) -> Float[Tensor, "s"]:
        """Part of the posterior of all images at each shift."""


class ExhaustivePosterior(GridPosterior):
    """Over all rotations of a grid."""

    def __init__(self, compared: Compared, weigh_rotations: RotationWeights | None = None):
        """Compare."""
        slices, score, power, log_prior = compared.slices, compared.score, compared.power, compared.log_prior
        self._score, self._power = score, power
        num_rotations = slices.shape[1]
        # The prior rides along as one more point, where every slice is one.
        with_prior = torch.cat([score, log_prior[:, None].expand(len(score), -1, -1)], dim=-1)
        self._relative, peaks, bests = [], [], []
        for cut in slices:
            with_one = pad(cut, (0, 1), value=1.0).T.expand(len(score), -1, -1)
            log_likelihood = torch.baddbmm((power @ cut.square().T)[:, None], with_prior, with_one, beta=-0.5)
            peak, best = log_likelihood.flatten(1).max(1)
            self._relative.append(exponentiate_(log_likelihood.flatten(1), peak).view_as(log_likelihood))
            peaks.append(peak)
            bests.append(best)
        self._total = torch.stack([relative.sum((1, 2)) for relative in self._relative], dim=1)
        self.log_evidence = torch.stack(peaks, dim=1) + self._total.log()
        best = torch.stack(bests, dim=1)
        self.rotation_index = best % num_rotations
        self.shift_index = torch.div(best, num_rotations, rounding_mode="floor")
        if weigh_rotations is not None:
            of_rotation = torch.stack([relative.sum(1) for relative in self._relative], dim=1)
            weight = weigh_rotations(of_rotation / self._total[:, :, None], self.log_evidence).exp()
            self._relative = [relative * one for relative, one in zip(self._relative, weight, strict=True)]
            self._total = torch.einsum("bkq,kq->bk", of_rotation, weight)

    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers."""
        weight = (share / self._total).unbind(1)
        numerator = [
            relative.flatten(0, 1).T @ (one[:, None, None] * self._score).flatten(0, 1)
            for relative, one in zip(self._relative, weight, strict=True)
        ]
        denominator = [
            relative.sum(1).T @ (one[:, None] * self._power)
            for relative, one in zip(self._relative, weight, strict=True)
        ]
        return torch.stack(numerator), torch.stack(denominator)

    def mass_of_shifts(self, share: Float[Tensor, "b k"]) -> Float[Tensor, "s"]:
        """Part of the posterior of all images at each shift."""
        weight = (share / self._total).unbind(1)
        of_class = [one @ relative.sum(2) for relative, one in zip(self._relative, weight, strict=True)]
        return torch.stack(of_class).sum(0) / share.sum()


def heaviest(posterior: Float[Tensor, "b n"], most: int, mass: float) -> Int[Tensor, "b c"]:
    """The likeliest poses of each image: where a batch has the signal for it, they hold nearly all.

    Args:
        most: For each image, at most, and no more than hold `mass` of the mean image's posterior.
    """
    held, index = posterior.topk(min(most, posterior.shape[1]), dim=1)
    return index[:, : int((held.cumsum(1).mean(0) < mass).sum()) + 1]


def drawn(posterior: Float[Tensor, "b n"], generator: torch.Generator) -> Int[Tensor, "b 1"]:
    """One pose of each image, by its probability.

    Args:
        generator: On the CPU.
    """
    chance = torch.rand(len(posterior), 1, generator=generator).to(posterior.device)
    up_to = posterior.cumsum(1)
    return torch.searchsorted(up_to, chance * up_to[:, -1:]).clamp(max=posterior.shape[1] - 1)


class StreamedPosterior(GridPosterior):
    """Over all rotations of a grid, of which only some are kept: what a fine grid gives does not fit in memory.

    Evidence is that of all poses. What slices gather is left to those kept of all classes together, as if they held
    all.
    """

    def __init__(
        self,
        compared: Compared,
        mirrors: Mirrors,
        balance: Callable[[Tensor], Tensor],
        most: int,
        mass: float,
        weigh_rotations: RotationWeights | None = None,
    ):
        """Compare.

        Args:
            mirrors: Of the grid whose slices are compared, all of them.
            balance: Log weights of the classes under which poses are weighed, from the evidence.
            most: Poses kept of each image, at most, the heaviest of all classes.
            mass: Part of the mean image's posterior that is enough to be held by them.
        """
        num_rotations = compared.slices.shape[1]
        assert mirrors.rotation_index.numel() == num_rotations, "slices of a whole grid"
        log_mass, self.rotation_index, self.shift_index = stream(compared, mirrors)
        self.log_evidence = log_mass.logsumexp(2)
        log_weight = None
        if weigh_rotations is not None:
            log_weight = weigh_rotations(torch.softmax(log_mass, dim=2), self.log_evidence)
            log_mass = log_mass + log_weight
        weighed = (log_mass + balance(self.log_evidence)[:, None]).flatten(1)
        index = heaviest(torch.softmax(weighed, dim=1), most, mass)
        class_index = torch.div(index, num_rotations, rounding_mode="floor")
        self._kept = PrunedPosterior(compared, class_index, index % num_rotations, log_weight)

    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers."""
        return self._kept.sums(self._kept.known(share))

    def mass_of_shifts(self, share: Float[Tensor, "b k"]) -> Float[Tensor, "s"]:
        """Part of the posterior of all images at each shift."""
        return self._kept.mass_of_shifts(self._kept.known(share))


def stream(
    compared: Compared, mirrors: Mirrors
) -> tuple[Float[Tensor, "b k q"], Int[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Log likelihood of each rotation over all shifts, and the likeliest rotation and shift."""
    slices, score, power = compared.slices, compared.score, compared.power
    device, pairs = slices.device, ImagesOfClasses.all(len(score), len(slices), slices.device)
    comparison = WholeGridComparison(slices[:, mirrors.rotation_index[0]], mirrors, matrix_dtype(device))
    found = []
    for rows in chunks(len(pairs), comparison.numbers_per_pair(score.shape[1]), device):
        image = pairs.image[rows]
        over_shifts = comparison.compare(score[image], power[image], compared.log_prior, pairs.runs.within(rows))
        best = over_shifts.peak.argmax(1, keepdim=True)
        found.append((over_shifts.log_mass, best[:, 0], over_shifts.best_shift(best)[:, 0]))
    log_mass, rotation, shift = (
        torch.cat(column).unflatten(0, (len(slices), -1)).movedim(0, 1) for column in zip(*found, strict=True)
    )
    return log_mass, rotation, shift


class PrunedPosterior(GridPosterior):
    """Over a few classes and rotations for each image, the others having none of the posterior."""

    def __init__(
        self,
        compared: Compared,
        class_index: Int[Tensor, "b c"],
        rotation_index: Int[Tensor, "b c"],
        log_weight: Float[Tensor, "k q"] | None = None,
    ):
        """Compare.

        Args:
            class_index: Of what each image is compared with.
            rotation_index: The same; none twice in a class.
            log_weight: Of rotations, see `RotationWeights`; None for all alike.
        """
        slices, score, power, log_prior = compared.slices, compared.score, compared.power, compared.log_prior
        self._score, self._power, self._class, self._shape = score, power, class_index, slices.shape
        self._buffer = slices.new_empty(0)
        self._slice = class_index * slices.shape[1] + rotation_index
        all_slices = slices.flatten(0, 1)
        half_power = 0.5 * torch.cat([power @ of_class.square().T for of_class in slices], dim=1)
        constant = half_power.gather(1, self._slice)
        log_likelihood = score.new_empty(*score.shape[:2], class_index.shape[1])
        for rows in self._rows():
            # Whole rows into one place, again and again: gathered anew they would take three times as long.
            gathered = self._gather(all_slices, rows)
            torch.bmm(score[rows], gathered.transpose(1, 2), out=log_likelihood[rows])
        log_likelihood += log_prior[:, None] - constant[:, None]
        highest, best_shift = log_likelihood.max(1)
        is_its = class_index[:, None] == torch.arange(len(slices), device=class_index.device)[:, None]
        of_class, best = torch.where(is_its, highest[:, None], -torch.inf).max(2)
        self.rotation_index = rotation_index.gather(1, best)
        self.shift_index = best_shift.gather(1, best)
        # One scale for all classes of an image: beside the likeliest, what underflows is nothing.
        peak = of_class.amax(1)
        self._relative = exponentiate_(log_likelihood.flatten(1), peak).view_as(log_likelihood)
        self._total = torch.zeros_like(of_class).scatter_add_(1, class_index, self._relative.sum(1))
        self.log_evidence = peak[:, None] + self._total.clamp(min=_NOTHING).log()
        if log_weight is not None:
            self._relative = self._relative * log_weight.flatten()[self._slice].exp()[:, None]
            self._total = torch.zeros_like(of_class).scatter_add_(1, class_index, self._relative.sum(1))

    def sums(self, share: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "k q p"], Float[Tensor, "k q p"]]:
        """What each slice gathers."""
        num_images, num_slices = len(share), self._shape[0] * self._shape[1]
        weight = self._weight(share)
        numerator = share.new_zeros(num_slices, self._shape[2])
        for rows in self._rows():
            weighed = (self._relative[rows] * weight[rows, None]).transpose(1, 2)
            numerator.index_add_(0, self._slice[rows].flatten(), (weighed @ self._score[rows]).flatten(0, 1))
        of_slice = share.new_zeros(num_images, num_slices).scatter_(1, self._slice, self._relative.sum(1) * weight)
        denominator = of_slice.T @ self._power
        return numerator.unflatten(0, self._shape[:2]), denominator.unflatten(0, self._shape[:2])

    def mass_of_shifts(self, share: Float[Tensor, "b k"]) -> Float[Tensor, "s"]:
        """Part of the posterior of all images at each shift."""
        return torch.einsum("bsc,bc->s", self._relative, self._weight(share)) / share.sum()

    def known(self, share: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Shares of the classes that each image is compared with, as if there were no others."""
        left = torch.zeros_like(share).scatter_(1, self._class, 1.0) * share
        return left * (share.sum(1, keepdim=True) / left.sum(1, keepdim=True).clamp(min=_NOTHING))

    def _weight(self, share: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        return (share / self._total.clamp(min=_NOTHING)).gather(1, self._class)

    def _gather(self, all_slices: Float[Tensor, "n p"], rows: slice) -> Float[Tensor, "r c p"]:
        """The slices that some images are compared with."""
        which = self._slice[rows]
        if self._buffer.numel() < which.numel() * self._shape[2]:
            self._buffer = all_slices.new_empty(which.numel(), self._shape[2])
        gathered = self._buffer[: which.numel()]
        torch.index_select(all_slices, 0, which.flatten(), out=gathered)
        return gathered.view(*which.shape, -1)

    def _rows(self) -> list[slice]:
        return chunks(len(self._slice), self._slice.shape[1] * self._shape[2], self._score.device)


_NOTHING = 1e-22
"""exp(-50), as for the least that `exponentiate_` leaves: of a class that an image is not compared with."""
