"""A class and a pose of each image, drawn by its posterior without a look at all poses.

What is compared with an image is a coarse grid of rotations, turned at random in every step, and where the image was
before. Drawn among these by their posterior, an image comes in the course of steps to each pose as often as that is
likely, as if a fine grid had been compared each time (a Markov chain with an independent sample of candidates that
keeps its place among them: Tjelmeland, Tech. Rep. Statistics 4/2004, NTNU Trondheim). Then it moves to one of a few
poses nearby, drawn in the same way.
"""

import math
from dataclasses import dataclass

import torch

from cryohydra._device import chunks, matrix_dtype
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.mirrors import mirrors_of
from cryohydra.geometry.rotations import random_rotations, rotation_vector_to_matrix
from cryohydra.geometry.shift_grid import shift_grid
from cryohydra.geometry.so3_grid import all_rotations, angular_step
from cryohydra.inference.even_views import log_weight_of_views, posterior_of_views
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.pairs import ImagesOfClasses
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import LatticeSlices
from cryohydra.inference.whole_grid import WholeGridComparison
from cryohydra.training.team import ALONE, SharedBatch, Team

_FINE_LEVEL = 2
"""Of the grid by which evidence is told."""
_SHIFTED_RADIUS = 8
"""In Fourier pixels: shifts that are drawn anew leave what is finer than that to those nearby."""
_NUM_NEAR = 8
"""Poses nearby, beside where an image is."""
_REACH = 0.45
"""How far those lie along each axis, in steps of the finer grid; for every other image half as far."""
_REACH_OF_SHIFTS = 1.12
"""How far shifts nearby lie, in steps of those beside the grid: 21 of half that step."""


@dataclass(frozen=True)
class Placement:
    """Where each image of a batch lies."""

    class_index: Int[Tensor, "b"]
    rotation: Float[Tensor, "b 3 3"]
    shift_px: Float[Tensor, "b 2"]
    """In addition to the shift that the input gives."""

    def share(self, team: Team) -> "Placement":
        """Where those that fall to this member of a team lie."""
        return Placement(*(team.share(one) for one in (self.class_index, self.rotation, self.shift_px)))


@dataclass(frozen=True)
class DrawnPoses:
    """What a draw leaves."""

    placement: Placement
    near_shifts: Float[Tensor, "b s 2"]
    of_shift: Float[Tensor, "b s"]
    """Posterior of these at the rotation drawn."""
    slices: Float[Tensor, "b p"]
    """Of its class, at that rotation."""


class TurnedGrid:
    """A batch of images before maps, seen from a grid of rotations turned at random, at shifts moved at random.

    What is told of images here is of those of this member of a team.
    """

    def __init__(
        self,
        source: LatticeSlices,
        images: WeightedImages,
        band: Band,
        shift_prior: ShiftPrior,
        level: int,
        batch: SharedBatch,
    ):
        """Compare every image with every map.

        Args:
            images: In the band; this member's share of the batch.
            level: Of the grid of rotations.
        """
        generator = batch.generator
        device = band.frequencies.device
        self._source, self._images, self._band = source, images, band
        self._shift_prior, self._batch = shift_prior, batch
        self._row = torch.arange(len(images), device=device)
        self._rotations = all_rotations(level, device) @ random_rotations(1, generator).to(device)
        step_px = shift_step(band, shift_prior)
        moved = (torch.rand(2, generator=generator).to(device) - 0.5) * step_px
        self._shifts = shift_prior.within(shift_prior.grid(step_px).to(device) + moved)
        # Log prior of a shift is its density times the area that it stands for; those nearby lie half as far apart.
        self._log_area = -torch.logsumexp(shift_prior.log_density(self._shifts), 0)
        log_of_shift = shift_prior.log_density(self._shifts) + self._log_area
        grid = _Grid(level, self._rotations, self._shifts, log_of_shift)
        self._log_mass = grid.log_mass(source, images, band, batch.team)
        near = shift_grid(_REACH_OF_SHIFTS * step_px, 0.5 * step_px) @ _turned_at_random(generator)
        self._near, self._log_near_area = near.to(device), self._log_area - math.log(4)
        if shift_prior.extent_px == 0:
            self._near, self._log_near_area = near.new_zeros(1, 2).to(device), self._log_area

    @property
    def log_evidence(self) -> Float[Tensor, "b k"]:
        """Of each class over that of noise alone: right in the mean over many grids, far from it in one."""
        return self._log_mass.logsumexp(2) - math.log(len(self._rotations))

    @property
    def likeliest(self) -> Float[Tensor, "b k 3 3"]:
        """Rotation of the grid in each class."""
        return self._rotations[self._log_mass.argmax(2)]

    def draw(self, before: Placement, log_prior: Float[Tensor, "b k"], balance: float) -> DrawnPoses:
        """Draw class and pose of each image by their posterior, maps looked at from all sides alike.

        Args:
            before: Where it was.
            log_prior: Of the classes of each image.
            balance: How much classes are pulled towards equal shares, from 0 to 1.
        """
        return self._nearby(self._anywhere(before, log_prior, balance))

    def _anywhere(self, before: Placement, log_prior: Float[Tensor, "b k"], balance: float) -> Placement:
        """From the grid, or where it was."""
        cell = (before.rotation.flatten(1) @ self._rotations.flatten(1).T).argmax(1)
        there = self._row, before.class_index, cell
        slices = self._cut(before.class_index, before.rotation[:, None])
        stay = self._compare(slices, self._around(before.shift_px))[:, 0].logsumexp(1) + self._log_near_area
        # Where an image was counts to the cell of the grid that it lies in.
        log_mass = self._log_mass.index_put(there, torch.logaddexp(self._log_mass[there], stay))
        num_rotations = len(self._rotations)
        # Of all members, since it is the whole batch that is to look even.
        likely, prior, of_view = self._batch.gather(
            log_mass.logsumexp(2), log_prior, posterior_of_views(torch.softmax(log_mass, 2))
        )
        balancing = balance * balancing_weights(likely + prior)
        share = torch.softmax(likely + (prior + balancing), 1)
        of_views = log_weight_of_views(of_view, share, num_rotations)
        log_weight = log_prior + balancing
        index = self._draw((log_mass + of_views + log_weight[:, :, None]).flatten(1))
        class_index, found = index // num_rotations, index % num_rotations
        is_there = (class_index == before.class_index) & (found == cell)
        stays = is_there & (self._chance() < (stay - log_mass[there]).exp())
        rotation = torch.where(stays[:, None, None], before.rotation, self._rotations[found])
        shifts = self._shifts.expand(len(index), -1, 2)
        at_shifts = self._compare(self._cut(class_index, rotation[:, None]), shifts)[:, 0]
        shift_px = torch.where(stays[:, None], before.shift_px, self._shifts[self._draw(at_shifts)])
        return Placement(class_index, rotation, shift_px)

    def _nearby(self, here: Placement) -> DrawnPoses:
        """One of a few poses around a pivot drawn around this one: as likely to lead there as back."""
        reach = torch.where(self._chance() < 0.5, 1.0, 0.5) * _REACH * angular_step(_FINE_LEVEL)
        turns = self._batch.normal(1 + _NUM_NEAR, 3).to(reach.device)
        to_pivot, from_pivot = rotation_vector_to_matrix(turns * reach[:, None, None]).split([1, _NUM_NEAR], dim=1)
        own = here.rotation[:, None]
        candidates = torch.cat([own, own @ to_pivot @ from_pivot], dim=1)
        # Shifts, around here: they lean to the middle of where they are likely, and maps are the sharper for it.
        slices, near_shifts = self._cut(here.class_index, candidates), self._around(here.shift_px)
        compared = self._compare(slices, near_shifts)
        chosen = self._row, self._draw(compared.logsumexp(2))
        at_chosen = compared[chosen]
        shift_px = near_shifts[self._row, self._draw(at_chosen)]
        return DrawnPoses(
            placement=Placement(here.class_index, candidates[chosen], shift_px),
            near_shifts=near_shifts,
            of_shift=torch.softmax(at_chosen, dim=1),
            slices=slices[chosen],
        )

    def _around(self, shift_px: Float[Tensor, "b 2"]) -> Float[Tensor, "b s 2"]:
        return self._shift_prior.within(shift_px[:, None] + self._near)

    def _chance(self) -> Float[Tensor, "b"]:
        return self._batch.uniform().to(self._row.device)

    def _draw(self, log_weight: Float[Tensor, "b n"]) -> Int[Tensor, "b"]:
        return draw_rows(log_weight, self._batch.uniform(1).to(log_weight.device))

    def _cut(self, class_index: Int[Tensor, "b"], rotation: Float[Tensor, "b c 3 3"]) -> Float[Tensor, "b c p"]:
        which = class_index[:, None].expand(rotation.shape[:2]).flatten()
        slices = self._source.of_candidates(self._band, which, rotation.flatten(0, 1))
        return slices.unflatten(0, rotation.shape[:2])

    def _compare(self, slices: Float[Tensor, "b c p"], shift_px: Float[Tensor, "b s 2"]) -> Float[Tensor, "b c s"]:
        """Log likelihood over that of noise alone, and the density of shifts over that at the centre."""
        images = self._images
        score = shift_hartley(images.score[:, 0, None], self._band.frequencies, -shift_px)
        half_power = 0.5 * torch.einsum("bp,bcp->bc", images.power[:, 0], slices.square())
        log_likelihood = torch.einsum("bsp,bcp->bcs", score, slices) - half_power[:, :, None]
        return log_likelihood + self._shift_prior.log_density(shift_px)[:, None]


def log_evidence_on_grid(
    source: LatticeSlices, images: WeightedImages, band: Band, shift_prior: ShiftPrior, team: Team = ALONE
) -> Float[Tensor, "b k"]:
    """Evidence of each class over that of noise alone, by all rotations of a grid and shifts as fine as the next.

    Args:
        images: This member's share.
    """
    device = band.frequencies.device
    rotations = all_rotations(_FINE_LEVEL, device)
    shifts = shift_prior.grid(0.5 * shift_step(band, shift_prior)).to(device)
    grid = _Grid(_FINE_LEVEL, rotations, shifts, shift_prior.log_probability(shifts))
    log_mass = grid.log_mass(source, images, band, team)
    return log_mass.logsumexp(2) - math.log(len(rotations))


def shift_step(band: Band, shift_prior: ShiftPrior) -> float:
    """Step in pixels of the shifts beside the turned grid: a quarter of the shortest wave, but no finer than useful.

    No more than two standard deviations of the prior along an axis: to 2 % a sum is then as good as an integral.
    """
    step_px = band.box_size / (4 * min(band.radius, _SHIFTED_RADIUS))
    if shift_prior.extent_px == 0:
        return step_px
    return min(step_px, 2 * (shift_prior.mean_square_px / 2) ** 0.5, shift_prior.extent_px / 1.5)


def draw_rows(log_weight: Float[Tensor, "b n"], chance: Float[Tensor, "b 1"]) -> Int[Tensor, "b"]:
    """One of each row, by weights whose logs are given.

    Args:
        chance: Drawn evenly from 0 to 1.
    """
    up_to = torch.softmax(log_weight, dim=1).cumsum(1)
    return torch.searchsorted(up_to, chance * up_to[:, -1:]).clamp(max=log_weight.shape[1] - 1)[:, 0]


def balancing_weights(evidence: Float[Tensor, "b k"], num_rounds: int = 10) -> Float[Tensor, "k"]:
    """Log weights under which a batch is shared equally between the classes (Sinkhorn)."""
    log_weight = evidence.new_zeros(evidence.shape[1])
    for _ in range(num_rounds):
        share = torch.softmax(evidence + log_weight, dim=1).mean(0)
        log_weight = log_weight - (share * len(log_weight) + 1e-6).log()
    return log_weight


def _turned_at_random(generator: torch.Generator) -> Float[Tensor, "2 2"]:
    angle = 2 * math.pi * float(torch.rand((), generator=generator))
    return torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


@dataclass(frozen=True)
class _Grid:
    """Rotations and shifts with which all images are compared."""

    level: int
    rotations: Float[Tensor, "q 3 3"]
    """Of a whole level, turned as one or not."""
    shifts: Float[Tensor, "s 2"]
    log_of_shift: Float[Tensor, "s"]
    """Their log probabilities."""

    def log_mass(self, source: LatticeSlices, images: WeightedImages, band: Band, team: Team) -> Float[Tensor, "b k q"]:
        """Log likelihood of each rotation over all shifts; slices are cut by all members of a team."""
        device = band.frequencies.device
        # A grid that is turned has its mirror images still: those are of the plane of the image.
        rotations = self.rotations[mirrors_of(band, self.level).rotation_index[0]]
        cut = source.at_rotations(band, team.dealt(rotations)).transpose(0, 1)
        slices = team.gather(cut, len(rotations)).transpose(0, 1)
        # All classes as one: each image is laid out but once.
        mirrors = mirrors_of(band, self.level, len(slices))
        comparison = WholeGridComparison(slices.flatten(0, 1)[None], mirrors, matrix_dtype(device))
        score = shift_hartley(images.score[:, 0, None], band.frequencies, -self.shifts[None])
        pairs = ImagesOfClasses.all(len(images), 1, device)
        log_mass = []
        for rows in chunks(len(pairs), comparison.numbers_per_pair(len(self.shifts)), device):
            image = pairs.image[rows]
            power = images.power[image, 0]
            runs = pairs.runs.within(rows)
            log_mass.append(comparison.compare(score[image], power, self.log_of_shift, runs).log_mass)
        return torch.cat(log_mass).unflatten(1, (len(slices), -1))
