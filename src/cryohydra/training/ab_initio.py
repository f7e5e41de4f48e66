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
from cryohydra.geometry.so3_grid import all_rotations, angular_step, child_indices, level_for_step
from cryohydra.inference.evidence import effective_number
from cryohydra.inference.grid_posterior import Compared, ExhaustivePosterior, GridPosterior, PrunedPosterior
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import ClassMaps, ClassSums, particle_mask
from cryohydra.inference.slices import GridSlicers
from cryohydra.physics.noise import shell_means
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

RESOLVED = 2.1
"""A grid of step s resolves up to RESOLVED / s Fourier pixels of a particle half as wide as the box."""
TOLERATED = 3.2
"""The same where what the grid misses counts as unexplained: a coarser one is enough."""
_LAST_EXHAUSTIVE_LEVEL = 1
"""Finer grids are compared only in the heaviest cells of the next coarser one."""
_LEAST_SIGNAL = 0.02
"""Power of the signal over the noise's in an image, below which the noise's estimate is in the way."""
_WHILE = 40
"""Steps in the last band whose mean is compared with that of as many before."""
_LEAST_GAIN = 0.01
"""Part of the mean evidence by which it must have grown."""
_MOST_PARENTS = 256
"""Such cells, for each image, at most."""


@dataclass(frozen=True)
class Annealing:
    """How band, step and balance go from start to end."""

    num_steps: int = 400
    warm_share: float = 0.5
    """Part of the steps after which band and balance have their last values."""
    first_radius: int = 4
    last_radius: int = 10
    first_rate: float = 0.5
    """Step along the ascent in the first step; more than 1 - momentum overshoots, which leaves local optima."""
    averaging: float = 3.0
    """How many times as much as its signal needs to equal its noise a map averages over in the last step."""
    momentum: float = 0.9
    last_balance: float = 0.25
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

    def rate(self, step: int, signal: float) -> float:
        """Falls exponentially over all steps, to where maps of many batches are averaged if the signal is weak.

        Args:
            signal: Power of the signal over that of the noise in what a step gathers at a point of a map.
        """
        last = (1 - self.momentum) * signal / (signal + self.averaging)
        return self.first_rate * (last / self.first_rate) ** (step / self.num_steps)

    def balance(self, step: int) -> float:
        """How much classes are pulled towards equal shares."""
        return 1 + (self.last_balance - 1) * self.progress(step)


def level_for_radius(radius: int) -> int:
    """The coarsest grid of rotations that will do for a band."""
    return level_for_step(TOLERATED / radius)


def shift_step(level: int, box_size: int) -> float:
    """Step in pixels of shifts as fine as a level's rotations: a quarter of the shortest wave that those resolve."""
    return box_size * angular_step(level) / (4 * RESOLVED)


class AbInitio(Stage):
    """Finds K maps and rough poses with nothing known."""

    name = "ab initio"

    def __init__(
        self,
        annealing: Annealing,
        *,
        batch_size: int,
        max_images: int,
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
        self.num_images_to_start = num_images_to_start
        self.particle_radius = particle_radius
        self.step_count = 0
        self.gains: list[float] = []
        """Mean evidence of each step's images, over that of noise alone."""
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
        self.signal = self._signal_of_a_step(state.num_classes)
        self.velocity = torch.zeros_like(state.maps.values)
        self.seen: Float[Tensor, "k n n n"] = torch.zeros_like(self.velocity)
        state.fields_are_fitted = False

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Compare a batch with everything and move the maps."""
        assert state.maps is not None
        plan, step = self.annealing, self.step_count
        radius = plan.radius(step)
        level = level_for_radius(radius)
        inside = self.band.within(radius)
        # What the maps leave unexplained is noise to them.
        trust = 1 / self.unexplained[self.band.shells[inside]]
        whole = state.weighted(index, self.band).at(inside)
        images = WeightedImages(whole.score * trust, whole.power * trust, whole.constant)
        maps = correct_interpolation(self.lattice, state.maps.values)
        band = Band(self.band.box_size, radius, state.device)
        slicer, shifts = self._grid(state, band, level)
        compared = self._lay_out(state, images, slicer, shifts, maps)
        if level <= _LAST_EXHAUSTIVE_LEVEL:
            found: GridPosterior = ExhaustivePosterior(compared)
        else:
            found = PrunedPosterior(compared, *self._heaviest_children(state, images, maps, band, level))
        log_weight = plan.balance(step) * _balancing_weights(found.log_evidence)
        total = torch.logsumexp(found.log_evidence + log_weight, dim=1)
        share = torch.softmax(found.log_evidence + log_weight, dim=1)
        self._learn_spread(state, found.mass_of_shifts(share), shifts, level)
        numerator, denominator = found.sums(share)
        lattice_numerator, lattice_denominator = slicer.add(torch.cat([numerator, denominator])).chunk(2)
        slices = compared.slices
        explained = (2 * numerator * slices - denominator * slices.square()).sum((0, 1)) / (trust * len(index))
        self._weigh_residual(_power_over_noise(whole) - explained, band)
        self._move(state, lattice_numerator, lattice_denominator, radius)
        self._remember(state, index, found, slicer.rotations, shifts, log_weight)
        cells = math.log(len(slicer.rotations) * len(slices))
        gain = float(total.mean() - cells)
        self.step_count += 1
        self._judge(gain)
        shared = effective_number(share).mean()
        note = f"band {radius}, {float(shared):.1f} classes per image"
        return StepResult(loss=-gain, note=note)

    def _judge(self, gain: float) -> None:
        """End where the last band has been compared for a while and explains no more than before."""
        plan, step = self.annealing, self.step_count
        self.gains.append(gain)
        late = self.gains[math.ceil(plan.warm_share * plan.num_steps) :]
        now, before = late[-_WHILE:], late[-2 * _WHILE : -_WHILE]
        has_settled = len(before) == _WHILE and sum(now) - sum(before) < _LEAST_GAIN * abs(sum(now))
        self.is_done = step >= plan.num_steps or has_settled

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
            "gains": self.gains,
            "velocity": self.velocity,
            "seen": self.seen,
            "unexplained": self.unexplained,
            "signal": self.signal,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.step_count, self.gains, self.signal = saved["step_count"], list(saved["gains"]), saved["signal"]
        self.velocity.copy_(saved["velocity"])
        self.seen.copy_(saved["seen"])
        self.unexplained.copy_(saved["unexplained"])

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

    def _signal_of_a_step(self, num_classes: int) -> float:
        """Power of the signal over the noise's at a point of a map, in what one step gathers.

        The plane of an image touches one in 2 r of the points at r Fourier pixels.
        """
        outer = torch.arange((self.band.radius + 1) // 2, self.band.radius + 1)
        over_noise = (self.unexplained[outer].cpu() - 1).clamp(min=_LEAST_SIGNAL)
        return float((over_noise / (2 * outer)).mean()) * self.batch_size / num_classes

    def _weigh_residual(self, residual: Float[Tensor, "p"], band: Band) -> None:
        """Follow how much power over that of the noise the maps leave in each shell; never less than the noise's.

        This is the noise re-estimated in every step (the M step of its variance, Scheres, J. Mol. Biol. 2012):
        at first all of the images' power, at the end little more than the noise.
        """
        shells = shell_means(residual[None], band, band.radius + 1)[0].clamp(min=1)
        seen = self.unexplained[: len(shells)]
        self.unexplained[: len(shells)] = torch.lerp(shells, seen, self.annealing.memory)

    def _grid(self, state: TrainingState, band: Band, level: int) -> tuple[GridSlicer, Float[Tensor, "s 2"]]:
        """The rotations of a level and shifts as fine."""
        slicer = self._slicers.slicer(self.lattice, band, all_rotations(level, state.device))
        return slicer, state.shift_prior.grid(shift_step(level, band.box_size)).to(state.device)

    def _lay_out(
        self,
        state: TrainingState,
        images: WeightedImages,
        slicer: GridSlicer,
        shifts: Float[Tensor, "s 2"],
        maps: Float[Tensor, "k n n n"],
    ) -> Compared:
        """What is compared on a grid: every slice with the images at every shift."""
        return Compared(
            slices=slicer.cut(maps),
            score=shift_hartley(images.score[:, 0, None], slicer.band.frequencies, -shifts[None]),
            power=images.power[:, 0],
            log_prior=state.shift_prior.log_probability(shifts),
        )

    def _heaviest_children(
        self, state: TrainingState, images: WeightedImages, maps: Float[Tensor, "k n n n"], band: Band, level: int
    ) -> tuple[Int[Tensor, "b c"], Int[Tensor, "b c"]]:
        """Classes and rotations of a level that lie in the heaviest cells of the next coarser one."""
        narrow = Band(band.box_size, min(band.radius, int(TOLERATED / angular_step(level - 1))), state.device)
        grid = self._grid(state, narrow, level - 1)
        parents = ExhaustivePosterior(self._lay_out(state, images.at(band.within(narrow.radius)), *grid, maps))
        log_weight = self.annealing.balance(self.step_count) * _balancing_weights(parents.log_evidence)
        share = torch.softmax(parents.log_evidence + log_weight, dim=1)
        class_index, rotation_index = parents.heaviest(share, _MOST_PARENTS)
        children = child_indices(level - 1, rotation_index)
        return class_index[:, :, None].expand_as(children).flatten(1), children.flatten(1)

    def _learn_spread(
        self, state: TrainingState, mass: Float[Tensor, "s"], shifts: Float[Tensor, "s 2"], level: int
    ) -> None:
        """Re-estimate how far particles lie from the centre, as the noise is re-estimated.

        A point of the grid stands for its cell, whose own spread is a sixth of the squared step.
        """
        prior, memory = state.shift_prior, self.annealing.memory_of_shifts
        found = float((mass * prior.square_distance(shifts)).sum()) + shift_step(level, self.band.box_size) ** 2 / 6
        state.shift_prior = prior.learned(memory * prior.mean_square_px + (1 - memory) * found)

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
        moved = values + self.annealing.rate(self.step_count, self.signal) * self.velocity
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
