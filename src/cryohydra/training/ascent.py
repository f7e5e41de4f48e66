"""Stochastic ascent of equation (4) in maps on a lattice.

Every image of a small batch is compared with all maps, rotations and shifts; the maps move along the
posterior-weighted residual, preconditioned by what has been seen of each frequency. The band grows while the grid
keeps pace with it, and images are weighed by what the maps leave unexplained of them, so that maps that know little
decide little.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, to_frequency, to_real_space
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.evidence import effective_number
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import ClassSums, density_mask, half_of, particle_mask
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.physics.noise import shell_means
from cryohydra.training.annealing import Annealing, level_for_radius, shift_step
from cryohydra.training.grid_comparison import Comparison, GridComparer
from cryohydra.training.state import TrainingState

NUM_IMAGES_TO_START = 300
"""That, backprojected in random poses, make a first map."""
_LEAST_SIGNAL = 0.02
"""Power of the signal over the noise's in an image, below which the noise's estimate is in the way."""
_WHILE = 40
"""Steps in the last band whose mean is compared with that of as many before."""
_LEAST_GAIN = 0.01
"""Part of the mean evidence by which it must have grown."""
_RESCALED = 0.5, 2.0
"""By how much a map that is held may be too strong or too weak for one batch to say so."""
_SAVED = ("maps", "velocity", "seen", "unexplained", "signal", "step_count", "gains", "is_done")


@dataclass(frozen=True)
class Ground:
    """Where maps climb: the same for all ascents of a stage."""

    comparer: GridComparer
    band: Band
    """The widest."""
    mask: Float[Tensor, "n n n"]
    """Where density may be, on the lattice's coarse voxels."""
    distance: Float[Tensor, "n n n"]
    """Of the lattice's points from zero frequency, in Fourier pixels."""
    shells: Int[Tensor, "n n n"]
    shell_sizes: Int[Tensor, "r"]

    @classmethod
    def of(cls, state: TrainingState, radius: int) -> "Ground":
        """A lattice for the images' box, up to a radius in Fourier pixels."""
        lattice = Lattice(state.images.box_size, radius)
        distance = lattice.distance(state.device)
        shells = distance.round().long().clamp(max=radius + 1)
        mask = particle_mask(lattice, state.device)
        sizes = torch.bincount(shells.flatten(), minlength=radius + 2)
        return cls(GridComparer(lattice), state.band(radius), mask, distance, shells, sizes)

    @property
    def lattice(self) -> Lattice:
        """Of the maps."""
        return self.comparer.lattice


class Ascent:
    """Some maps on their way up."""

    def __init__(
        self,
        plan: Annealing,
        ground: Ground,
        maps: Float[Tensor, "k n n n"],
        unexplained: Float[Tensor, "r"],
        shift_prior: ShiftPrior,
        batch_size: int,
        is_held: Bool[Tensor, "k"] | None = None,
    ):
        """Begin at the foot.

        Args:
            unexplained: Power of the images that no map explains over that of the noise, in each shell; 1 or more.
            shift_prior: What is known of shifts; it learns.
            batch_size: How many images a step compares.
            is_held: Whether a map is known and keeps its form: only its scale follows the images. None for no map.
        """
        self.is_held = torch.zeros_like(maps[:, 0, 0, 0], dtype=torch.bool) if is_held is None else is_held
        self.plan, self.ground, self.maps = plan, ground, maps
        self.unexplained, self.shift_prior = unexplained, shift_prior
        self.velocity = torch.zeros_like(maps)
        self.seen = torch.zeros_like(maps)
        self.signal = self._signal_of_a_step(batch_size)
        self.step_count = 0
        self.gains: list[float] = []
        """Mean evidence of each step's images, over that of noise alone."""
        self.is_done = False

    @property
    def is_wide(self) -> bool:
        """Whether the next step compares the whole band."""
        return self.plan.radius(self.step_count) == self.ground.band.radius

    def step(
        self, state: TrainingState, index: Int[Tensor, "b"], log_prior: Float[Tensor, "b k"] | None = None
    ) -> tuple[Comparison, str]:
        """Compare a batch with everything and move the maps.

        Args:
            log_prior: Of the classes of each image; None if they are alike.

        Returns:
            What was found, and a note on it.
        """
        radius = self.plan.radius(self.step_count)
        inside = self.ground.band.within(radius)
        band = Band(self.ground.band.box_size, radius, state.device)
        # What the maps leave unexplained is noise to them.
        trust = 1 / self.unexplained[band.shells]
        whole = state.weighted(index, self.ground.band).at(inside)
        images = WeightedImages(whole.score * trust, whole.power * trust, whole.constant)
        balance = self.plan.balance(self.step_count)
        comparison = self.ground.comparer.compare(self.maps, images, band, self.shift_prior, balance, looks_evenly=True)
        found, slices = comparison.found, comparison.slices
        prior = 0.0 if log_prior is None else log_prior
        share = torch.softmax(found.log_evidence + comparison.log_weight + prior, dim=1)
        self._learn_spread(comparison, share, radius)
        numerator, denominator = found.sums(share)
        on_lattice = comparison.slicer.add(torch.cat([numerator, denominator]))
        score, power = (numerator * slices).sum(1), (denominator * slices.square()).sum(1)
        explained = (2 * score - power).sum(0) / (trust * len(index))
        residual = power_over_noise(whole) - explained
        self.unexplained = followed(self.unexplained, residual, band, self.plan.memory)
        self._move(on_lattice[: len(slices)], on_lattice[len(slices) :], radius)
        self._rescale(score.sum(1), power.sum(1))
        gain = torch.logsumexp(comparison.log_evidence + comparison.log_weight, dim=1).mean() - math.log(len(slices))
        self.step_count += 1
        self._judge(float(gain))
        return comparison, f"band {radius}, {float(effective_number(share).mean()):.1f} classes per image"

    def adopt(self, rows: Int[Tensor, "m"], other: "Ascent", other_rows: Int[Tensor, "m"], last_share: float) -> None:
        """Go on with maps of another ascent in the place of some, as carefully as in the last part of all steps."""
        self.maps[rows], self.seen[rows] = other.maps[other_rows], other.seen[other_rows]
        self.velocity[rows] = 0
        self.step_count = self.plan.num_steps - round(last_share * self.plan.num_steps)
        self.gains, self.is_done = [], False

    def state_dict(self) -> dict[str, Any]:
        """Where the ascent is."""
        return {name: getattr(self, name) for name in _SAVED} | {"mean_square_px": self.shift_prior.mean_square_px}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        for name in _SAVED:
            value = saved[name]
            setattr(self, name, value.to(self.maps.device) if isinstance(value, Tensor) else value)
        self.shift_prior = self.shift_prior.learned(saved["mean_square_px"])

    def _judge(self, gain: float) -> None:
        """End where the last band has been compared for a while and explains no more than before."""
        plan = self.plan
        self.gains.append(gain)
        num_late = self.step_count - math.ceil(plan.warm_share * plan.num_steps)
        late = self.gains[-max(num_late, 1) :]
        now, before = late[-_WHILE:], late[-2 * _WHILE : -_WHILE]
        has_settled = len(before) == _WHILE and sum(now) - sum(before) < _LEAST_GAIN * abs(sum(now))
        self.is_done = self.step_count >= plan.num_steps or has_settled

    def _signal_of_a_step(self, batch_size: int) -> float:
        """Power of the signal over the noise's at a point of a map, in what one step gathers.

        The plane of an image touches one in 2 r of the points at r Fourier pixels.
        """
        radius = self.ground.band.radius
        outer = torch.arange((radius + 1) // 2, radius + 1)
        over_noise = (self.unexplained[outer].cpu() - 1).clamp(min=_LEAST_SIGNAL)
        return float((over_noise / (2 * outer)).mean()) * batch_size / len(self.maps)

    def _learn_spread(self, comparison: Comparison, share: Float[Tensor, "b k"], radius: int) -> None:
        """Re-estimate how far particles lie from the centre, as the noise is re-estimated.

        A point of the grid stands for its cell, whose own spread is a sixth of the squared step.
        """
        prior, memory = self.shift_prior, self.plan.memory_of_shifts
        mass = comparison.found.mass_of_shifts(share)
        step_px = shift_step(level_for_radius(radius), self.ground.band.box_size)
        found = float((mass * prior.square_distance(comparison.shifts)).sum()) + step_px**2 / 6
        self.shift_prior = prior.learned(memory * prior.mean_square_px + (1 - memory) * found)

    def _move(self, numerator: Float[Tensor, "k n n n"], denominator: Float[Tensor, "k n n n"], radius: int) -> None:
        """Step along the residual, divided by what has been seen of each frequency and its shell."""
        shells, lattice = self.ground.shells, self.ground.lattice
        self.seen = torch.lerp(denominator, self.seen, 0.9 if self.step_count else 0.0)
        count = self.ground.shell_sizes
        total = self.maps.new_zeros(len(self.maps), len(count)).index_add_(1, shells.flatten(), self.seen.flatten(1))
        precision = self.seen + (total / count)[:, shells] + 1e-6 * self.seen.max()
        in_band = self.ground.distance <= radius
        ascent = torch.where(in_band, (numerator - denominator * self.maps) / precision, 0.0)
        momentum, rate = self.plan.momentum, self.plan.rate(self.step_count, self.signal)
        self.velocity = momentum * self.velocity + ascent
        # With its momentum a step comes to rate / (1 - momentum) of the way.
        confined = drawn_to_density(lattice, self.maps + rate * self.velocity, min(1.0, rate / (1 - momentum)))
        moved = torch.where(in_band, to_frequency(confined * self.ground.mask), 0.0)
        self.maps = torch.where(self.is_held[:, None, None, None], self.maps, moved)

    def _rescale(self, score: Float[Tensor, "k"], power: Float[Tensor, "k"]) -> None:
        """Bring maps that are held to the scale at which they explain a batch best, little by little."""
        best = torch.where(power > 0, score / power, 1.0).clamp(*_RESCALED)
        scale = torch.where(self.is_held, torch.lerp(best, torch.ones_like(best), self.plan.memory), 1.0)
        self.maps = self.maps * scale[:, None, None, None]


def drawn_to_density(lattice: Lattice, maps: Float[Tensor, "k n n n"], share: float) -> Float[Tensor, "k n n n"]:
    """Maps in real space, what lies outside their density, and what is less than nothing, drawn towards zero.

    Most of a map's sphere is empty, and all of it takes up noise, in which images of a small complex then find their
    poses (solvent flattening, Wang, Methods Enzymol. 1985). Drawn all the way in every step, the soft edge of the
    density would wear away where steps of ascent are short: so `share` goes with those.

    Args:
        share: Of the way, from 0 to 1.
    """
    density = to_real_space(maps)
    return density * (1 - share * (1 - density_mask(lattice, maps) * (density > 0)))


def ascent_from_nothing(
    state: TrainingState,
    ground: Ground,
    plan: Annealing,
    members: Int[Tensor, "m"],
    num_maps: int,
    batch_size: int,
    num_images_to_start: int,
) -> Ascent:
    """Maps of images in random poses, at the foot of their ascent.

    Args:
        members: The images to climb on.
        num_images_to_start: For each map, at most.
    """
    maps = maps_of_random_poses(state, ground, members, num_maps, num_images_to_start)
    drawn = torch.randperm(len(members), generator=state.generator)[:num_images_to_start]
    unexplained = unexplained_power(state, ground, members[drawn])
    return Ascent(plan, ground, maps, unexplained, state.shift_prior, batch_size)


def maps_of_random_poses(
    state: TrainingState, ground: Ground, members: Int[Tensor, "m"], num_maps: int, num_images: int
) -> Float[Tensor, "k n n n"]:
    """Maps of images in random poses: a blob as large as the particles, a little different for each.

    Args:
        members: The images to draw from.
        num_images: For each map, at most.
    """
    sums = ClassSums.empty(ground.lattice, num_maps, state.device)
    for k in range(num_maps):
        order = torch.randperm(len(members), generator=state.generator)[:num_images]
        for index in members[order].split(256):
            rotation = random_rotations(len(index), state.generator).to(state.device)
            ones = torch.ones(len(index), 1, device=state.device)
            sums.add(
                state.weighted(index, ground.band),
                ground.band,
                half_of(index.to(state.device)),
                ones,
                torch.full_like(ones, k, dtype=torch.long),
                rotation[:, None, None],
                ones.new_zeros(len(index), 1, 1, 2),
            )
    numerator, denominator = sums.numerator.sum(0), sums.denominator.sum(0)
    values = numerator / (denominator + denominator.mean(1, keepdim=True) + 1e-20)
    return to_frequency(to_real_space(values.unflatten(1, ground.lattice.shape)) * ground.mask)


def unexplained_power(state: TrainingState, ground: Ground, index: Int[Tensor, "b"]) -> Float[Tensor, "r"]:
    """All the power of images over that of the noise in each shell, 1 or more: what no map explains yet."""
    power = power_over_noise(state.weighted(index, ground.band))
    return shell_means(power[None], ground.band, ground.band.radius + 1)[0].clamp(min=1)


def followed(
    unexplained: Float[Tensor, "r"], residual: Float[Tensor, "p"], band: Band, memory: float
) -> Float[Tensor, "r"]:
    """How much power over that of the noise maps leave in each shell, after one more step; never less than the noise's.

    This is the noise re-estimated in every step (the M step of its variance, Scheres, J. Mol. Biol. 2012):
    at first all of the images' power, at the end little more than the noise.

    Args:
        residual: What the step's images leave at each frequency.
        memory: Part of what was left before that is still believed.
    """
    shells = shell_means(residual[None], band, band.radius + 1)[0].clamp(min=1)
    seen = unexplained[: len(shells)]
    return torch.cat([torch.lerp(shells, seen, memory), unexplained[len(shells) :]])


def power_over_noise(images: WeightedImages) -> Float[Tensor, "p"]:
    """The images' power over that of the noise at each frequency, from the score's and the CTF's."""
    return (images.score.square() / images.power.clamp(min=1e-20)).mean((0, 1))
