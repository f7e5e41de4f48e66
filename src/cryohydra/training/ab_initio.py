"""The first stage: structures from nothing, at low resolution.

Stochastic ascent of equation (4) in maps on a lattice. Every image of a small batch is compared with
all classes, rotations and shifts; the maps move along the posterior-weighted residual, preconditioned
by what has been seen of each frequency. The band grows while the grid keeps pace with it, and images are
weighed by what the maps leave unexplained of them, so that maps that know little decide little.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import GridSlicer, Lattice, correct_interpolation, to_frequency, to_real_space
from cryohydra.geometry.rotations import random_rotations
from cryohydra.geometry.shift_grid import shift_grid
from cryohydra.geometry.so3_grid import all_rotations, angular_step, child_indices, level_for_step
from cryohydra.inference.evidence import effective_number
from cryohydra.inference.grid_posterior import ExhaustivePosterior, GridPosterior, PrunedPosterior
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import ClassMaps, ClassSums, particle_mask
from cryohydra.inference.shift_reach import reach_of_shifts
from cryohydra.inference.slices import GridSlicers
from cryohydra.physics.noise import shell_means
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

RESOLVED = 2.1
"""A grid of step s resolves up to RESOLVED / s Fourier pixels of a particle half as wide as the box."""
_TOLERATED = 3.2
"""The same where what the grid misses counts as unexplained: a coarser one is enough."""
_LAST_EXHAUSTIVE_LEVEL = 1
"""Finer grids are compared only in the heaviest cells of the next coarser one."""
_NUM_PARENTS = 24
"""Such cells, for each image and class."""


@dataclass(frozen=True)
class Annealing:
    """How band, step and balance go from start to end."""

    num_steps: int = 400
    warm_share: float = 0.75
    """Part of the steps after which band and balance have their last values."""
    first_radius: int = 4
    last_radius: int = 7
    first_rate: float = 0.5
    last_rate: float = 0.05
    momentum: float = 0.9
    last_balance: float = 0.5
    """How much of the pull towards equal shares is left at the end."""
    memory: float = 0.8
    """Part of what was unexplained before that the next step still believes."""
    memory_of_shifts: float = 0.95
    """The same of how far from the centre particles lie: a normal spread, re-estimated in every step."""

    def progress(self, step: int) -> float:
        """From 0 to 1 over the warm part."""
        return min(1.0, step / (self.warm_share * self.num_steps))

    def radius(self, step: int) -> int:
        """Grows in a straight line, in Fourier pixels; the last only where the warm part ends."""
        return self.first_radius + int((self.last_radius - self.first_radius) * self.progress(step))

    def rate(self, step: int) -> float:
        """Falls exponentially over all steps."""
        return self.first_rate * (self.last_rate / self.first_rate) ** (step / self.num_steps)

    def balance(self, step: int) -> float:
        """How much classes are pulled towards equal shares."""
        return 1 + (self.last_balance - 1) * self.progress(step)


def level_for_radius(radius: int) -> int:
    """The coarsest grid of rotations that will do for a band."""
    return level_for_step(_TOLERATED / radius)


class AbInitio(Stage):
    """Finds K maps and rough poses with nothing known."""

    name = "ab initio"

    def __init__(
        self,
        annealing: Annealing,
        *,
        batch_size: int,
        max_images: int,
        shift_extent_px: float,
        shift_centre_px: tuple[float, float],
        num_images_to_start: int,
        particle_radius: float = 0.45,
    ):
        """Plan the stage.

        Args:
            num_images_to_start: Images that, backprojected in random poses, make the first maps.
            particle_radius: Of the sphere to which density is confined, as a fraction of the box.
        """
        self.annealing = annealing
        self.batch_size = batch_size
        self.max_images = min(max_images, annealing.num_steps * batch_size)
        self.shift_extent_px = shift_extent_px
        self.shift_centre_px = shift_centre_px
        self.num_images_to_start = num_images_to_start
        self.particle_radius = particle_radius
        self.step_count = 0
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Start every class from images in random poses."""
        self.lattice = Lattice(state.images.box_size, self.annealing.last_radius)
        self.band = state.band(self.annealing.last_radius)
        self.mask = particle_mask(self.lattice, self.particle_radius, state.device)
        self.distance = self.lattice.distance(state.device)
        self.shells = self.distance.round().long().clamp(max=self.lattice.radius + 1)
        if state.maps is None or state.maps.lattice != self.lattice:
            state.maps = self._random_start(state)
        start = torch.randperm(len(state), generator=state.generator)[: self.num_images_to_start]
        power = _power_over_noise(state.weighted(start, self.band))
        self.unexplained = shell_means(power[None], self.band, self.band.radius + 1)[0].clamp(min=1)
        self.mean_square_shift = torch.tensor(self.shift_extent_px**2, device=state.device)
        self.velocity = torch.zeros_like(state.maps.values)
        self.seen: Float[Tensor, "k n n n"] = torch.zeros_like(self.velocity)
        state.fields_are_fitted = False

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Compare a batch with everything and move the maps."""
        assert state.maps is not None
        plan, step = self.annealing, self.step_count
        radius = plan.radius(step)
        level = level_for_radius(radius)
        shifts = self._shifts(level, state.device)
        inside = self.band.within(radius)
        # What the maps leave unexplained is noise to them.
        trust = 1 / self.unexplained[self.band.shells[inside]]
        whole = state.weighted(index, self.band).at(inside)
        images = WeightedImages(whole.score * trust, whole.power * trust, whole.constant)
        maps = correct_interpolation(self.lattice, state.maps.values)
        compared, slicer, slices = self._cut(maps, radius, level)
        if level <= _LAST_EXHAUSTIVE_LEVEL:
            found: GridPosterior = self._compare_all(images, compared, slices, level)
        else:
            found = self._compare_children(images, compared, slices, level, maps)
        log_weight = plan.balance(step) * _balancing_weights(found.log_evidence)
        total = torch.logsumexp(found.log_evidence + log_weight, dim=1)
        share = torch.softmax(found.log_evidence + log_weight, dim=1)
        self._learn_spread(torch.einsum("bk,bks->s", share, found.shift_mass) / len(index), shifts, level)
        numerator, denominator = found.sums(share)
        lattice_numerator, lattice_denominator = slicer.add(torch.cat([numerator, denominator])).chunk(2)
        explained = (2 * numerator * slices - denominator * slices.square()).sum((0, 1)) / (trust * len(index))
        self._weigh_residual(_power_over_noise(whole) - explained, compared)
        self._move(state, lattice_numerator, lattice_denominator, radius)
        self._remember(state, index, found, slicer.rotations, shifts, log_weight)
        self.step_count += 1
        self.is_done = self.step_count >= plan.num_steps
        cells = math.log(len(slicer.rotations) * len(slices))
        gain = float(total.mean() - cells)
        shared = effective_number(share).mean()
        note = f"band {radius}, {float(shared):.1f} classes per image"
        return StepResult(loss=-gain, note=note)

    def end(self, state: TrainingState) -> str:
        """Nothing is left open."""
        state.classes.update_weights()
        shares = state.classes.log_posterior().exp().mean(0).tolist()
        return (
            f"Ab initio: {state.num_classes} maps to {self.annealing.last_radius} Fourier pixels after "
            f"{self.step_count} steps, shares " + ", ".join(f"{share:.2f}" for share in shares) + "."
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the ascent is."""
        return {
            "step_count": self.step_count,
            "velocity": self.velocity,
            "seen": self.seen,
            "unexplained": self.unexplained,
            "mean_square_shift": self.mean_square_shift,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.step_count = saved["step_count"]
        self.velocity.copy_(saved["velocity"])
        self.seen.copy_(saved["seen"])
        self.unexplained.copy_(saved["unexplained"])
        self.mean_square_shift.copy_(saved["mean_square_shift"])

    def _random_start(self, state: TrainingState) -> ClassMaps:
        """Maps of images in random poses: a blob as large as the particles, a little different for each class."""
        sums = ClassSums.empty(self.lattice, state.num_classes, state.device)
        num_images = min(len(state), self.num_images_to_start)
        for k in range(state.num_classes):
            for index in torch.randperm(len(state), generator=state.generator)[:num_images].split(256):
                rotation = random_rotations(len(index), state.generator).to(state.device)
                ones = torch.ones(len(index), 1, device=state.device)
                sums.add(
                    state.weighted(index, self.band),
                    self.band,
                    index.to(state.device),
                    ones,
                    torch.full_like(ones, k, dtype=torch.long),
                    rotation[:, None, None],
                    ones.new_zeros(len(index), 1, 1, 2),
                )
        numerator, denominator = sums.numerator.sum(0), sums.denominator.sum(0)
        values = numerator / (denominator + denominator.mean(1, keepdim=True) + 1e-20)
        values = to_frequency(to_real_space(values.unflatten(1, self.lattice.shape)) * self.mask)
        correlation = values.new_zeros(state.num_classes, self.lattice.radius + 1)
        return ClassMaps(self.lattice, values, torch.ones_like(values), correlation)

    def _weigh_residual(self, residual: Float[Tensor, "p"], band: Band) -> None:
        """Follow how much power over that of the noise the maps leave in each shell; never less than the noise's.

        This is the noise re-estimated in every step (the M step of its variance, Scheres, J. Mol. Biol. 2012):
        at first all of the images' power, at the end little more than the noise.
        """
        shells = shell_means(residual[None], band, band.radius + 1)[0].clamp(min=1)
        seen = self.unexplained[: len(shells)]
        self.unexplained[: len(shells)] = torch.lerp(shells, seen, self.annealing.memory)

    def _cut(
        self, maps: Float[Tensor, "k n n n"], radius: int, level: int
    ) -> tuple[Band, GridSlicer, Float[Tensor, "k q p"]]:
        compared = Band(self.band.box_size, radius, maps.device)
        slicer = self._slicers.slicer(self.lattice, compared, all_rotations(level, maps.device))
        return compared, slicer, slicer.cut(maps)

    def _compare_all(
        self, images: WeightedImages, compared: Band, slices: Float[Tensor, "k q p"], level: int
    ) -> ExhaustivePosterior:
        shifts = self._shifts(level, slices.device)
        score = shift_hartley(images.score[:, 0, None], compared.frequencies, -shifts[None])
        return ExhaustivePosterior(slices, score, images.power[:, 0], self._log_prior(shifts))

    def _compare_children(
        self,
        images: WeightedImages,
        compared: Band,
        slices: Float[Tensor, "k q p"],
        level: int,
        maps: Float[Tensor, "k n n n"],
    ) -> PrunedPosterior:
        """Compare with those rotations only that lie in the heaviest cells of the next coarser grid."""
        coarse = min(compared.radius, int(_TOLERATED / angular_step(level - 1)))
        narrow, _, coarse_slices = self._cut(maps, coarse, level - 1)
        parents = self._compare_all(images.at(compared.within(coarse)), narrow, coarse_slices, level - 1)
        children = child_indices(level - 1, parents.heaviest(_NUM_PARENTS)).flatten(2)
        shifts = self._shifts(level, slices.device)
        score = shift_hartley(images.score[:, 0, None], compared.frequencies, -shifts[None])
        return PrunedPosterior(slices, score, images.power[:, 0], self._log_prior(shifts), children)

    def _shift_step(self, level: int) -> float:
        return self.band.box_size * angular_step(level) / (4 * RESOLVED)

    def _shifts(self, level: int, device: torch.device) -> Float[Tensor, "s 2"]:
        """A grid as fine as that of the rotations, as wide as particles are thought to lie.

        Its step is a quarter of the shortest wave that the rotations resolve.
        """
        step = self._shift_step(level)
        reach = reach_of_shifts(float(self.mean_square_shift), step, self.shift_extent_px)
        return shift_grid(reach, step, self.shift_centre_px).to(device)

    def _log_prior(self, shifts: Float[Tensor, "s 2"]) -> Float[Tensor, "s"]:
        square = (shifts - shifts.new_tensor(self.shift_centre_px)).square().sum(1)
        return torch.log_softmax(-square / self.mean_square_shift.clamp(min=1e-6), dim=0)

    def _learn_spread(self, mass: Float[Tensor, "s"], shifts: Float[Tensor, "s 2"], level: int) -> None:
        """Re-estimate how far particles lie from the centre, as the noise is re-estimated.

        A point of the grid stands for its cell, whose own spread is a sixth of the squared step.
        """
        square = (shifts - shifts.new_tensor(self.shift_centre_px)).square().sum(1)
        found = (mass * square).sum() + self._shift_step(level) ** 2 / 6
        self.mean_square_shift = torch.lerp(found, self.mean_square_shift, self.annealing.memory_of_shifts)

    def _move(
        self,
        state: TrainingState,
        numerator: Float[Tensor, "k n n n"],
        denominator: Float[Tensor, "k n n n"],
        radius: int,
    ) -> None:
        """Step along the residual, divided by what has been seen of each frequency and its shell."""
        assert state.maps is not None
        values = state.maps.values
        self.seen = torch.lerp(denominator, self.seen, 0.9 if self.step_count else 0.0)
        count = torch.bincount(self.shells.flatten(), minlength=self.lattice.radius + 2)
        shell_mean = (
            values.new_zeros(len(values), len(count)).index_add_(1, self.shells.flatten(), self.seen.flatten(1)) / count
        )
        precision = self.seen + shell_mean[:, self.shells] + 1e-6 * self.seen.max()
        in_band = self.distance <= radius
        ascent = torch.where(in_band, (numerator - denominator * values) / precision, 0.0)
        self.velocity = self.annealing.momentum * self.velocity + ascent
        moved = values + self.annealing.rate(self.step_count) * self.velocity
        moved = torch.where(in_band, to_frequency(to_real_space(moved) * self.mask), 0.0)
        state.maps = ClassMaps(self.lattice, moved, self.seen, state.maps.half_correlation)

    def _remember(
        self,
        state: TrainingState,
        index: Int[Tensor, "b"],
        found: GridPosterior,
        rotations: Float[Tensor, "q 3 3"],
        shifts: Float[Tensor, "s 2"],
        log_weight: Float[Tensor, "k"],
    ) -> None:
        """Keep each particle's best pose in every class, and the classes' evidence."""
        rows = index.to(state.device)
        state.poses.rotation[rows] = rotations[found.rotation_index][:, None]
        shift = shifts[found.shift_index]
        state.poses.shift_px[rows] = (shift + state.known_shift_px[rows][:, None])[:, None]
        state.classes.log_evidence[rows] = found.log_evidence + log_weight - math.log(len(rotations))
        state.classes.log_pose_volume[rows] = 0.0


def _power_over_noise(images: WeightedImages) -> Float[Tensor, "p"]:
    """The images' power over that of the noise at each frequency, from the score's and the CTF's."""
    return (images.score.square() / images.power.clamp(min=1e-20)).mean((0, 1))


def _balancing_weights(evidence: Float[Tensor, "b k"], num_rounds: int = 10) -> Float[Tensor, "k"]:
    """Log weights under which a batch is shared equally between the classes (Sinkhorn)."""
    log_weight = evidence.new_zeros(evidence.shape[1])
    for _ in range(num_rounds):
        share = torch.softmax(evidence + log_weight, dim=1).mean(0)
        log_weight = log_weight - (share * len(log_weight) + 1e-3).log()
    return log_weight
