"""Maps that climb while each image lies at one pose, drawn by its posterior in the maps of all others.

An average over all poses that are possible holds maps in wrong ones, and an image that is compared with a map that it
is part of is held where it was. So the images go through in parts: those of one are taken out of the sums, compared
with the maps of all other parts, and added anew, each at a class and a rotation that are drawn (Gibbs sampling; Geman
and Geman, IEEE PAMI 1984). What images say of such maps is not flattered by what they gave to them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import to_frequency
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import ClassSums, ratio
from cryohydra.physics.pose import Pose
from cryohydra.training.annealing import Annealing
from cryohydra.training.ascent import Ground, drawn_to_density, followed, power_over_noise, unexplained_power
from cryohydra.training.state import TrainingState

_NUM_PARTS = 6
_NUM_SWEEPS_TO_JUDGE = 4
"""Over all images, for maps that there are already: in the first the noise is not known yet."""
_LEAST_SHARE = 0.02
"""See `ClassSums.solve`. Damped by their signal-to-noise ratio as well, maps never leave the poses they begin with."""


class GibbsSampling:
    """Some maps on their way up."""

    def __init__(
        self,
        state: TrainingState,
        ground: Ground,
        plan: Annealing,
        members: Int[Tensor, "m"],
        num_maps: int,
        class_index: Int[Tensor, "m"],
        pose: Pose,
    ):
        """Add every image to the maps.

        Args:
            members: The images to climb on.
            class_index: The map that each begins in.
            pose: Of each in that map, beside the shift that is known; the class axis has length one.
        """
        self.plan, self.ground, self.members = plan, ground, members
        self.shift_prior = state.shift_prior
        self.part = torch.randperm(len(members), generator=state.generator) % _NUM_PARTS
        self.unexplained = unexplained_power(state, ground, members)
        self.log_evidence = torch.zeros(len(members), num_maps, device=state.device)
        """Of each image in the maps of all other parts, as it was last compared; over that of noise alone."""
        self.step_count = 0
        self._sums = ClassSums.empty(ground.lattice, num_maps, state.device, _NUM_PARTS)
        for part in range(_NUM_PARTS):
            rows = self._rows(part)
            there = rows.to(state.device)
            images = state.weighted(members[rows], ground.band)
            self._add(part, images, ground.band, class_index[there], pose.rotation[there], pose.shift_px[there])

    @classmethod
    def from_nothing(
        cls, state: TrainingState, ground: Ground, plan: Annealing, members: Int[Tensor, "m"], num_maps: int
    ) -> "GibbsSampling":
        """Give every image a class and a rotation at random."""
        generator, device = state.generator, state.device
        class_index = torch.randint(num_maps, (len(members),), generator=generator).to(device)
        rotation = random_rotations(len(members), generator).to(device)[:, None, None]
        pose = Pose(rotation, torch.zeros_like(rotation[..., 0, :2]))
        return cls(state, ground, plan, members, num_maps, class_index, pose)

    @classmethod
    def from_classes(
        cls, state: TrainingState, ground: Ground, plan: Annealing, members: Int[Tensor, "m"], classes: Sequence[int]
    ) -> "GibbsSampling":
        """Begin where images lie now, each in the likeliest of some classes, in the widest band."""
        rows, device = members.to(state.device), state.device
        likeliest = state.classes.log_posterior(rows)[:, list(classes)].argmax(1)
        taken = torch.tensor(classes, device=device)[likeliest]
        rotation, shift_px = state.poses.rotation[rows, :, taken], state.poses.shift_px[rows, :, taken]
        pose = Pose(rotation[:, :, None], (shift_px - state.known_shift_px[rows][:, None])[:, :, None])
        plan = replace(plan, num_steps=_NUM_SWEEPS_TO_JUDGE * _NUM_PARTS, first_radius=plan.last_radius)
        return cls(state, ground, plan, members, len(classes), likeliest, pose)

    @property
    def evidence(self) -> Float[Tensor, "m"]:
        """Of each image in maps that it is no part of, these as likely as each other; over that of noise alone."""
        return torch.logsumexp(self.log_evidence, dim=1) - math.log(self.log_evidence.shape[1])

    @property
    def is_done(self) -> bool:
        """Whether all steps are made."""
        return self.step_count >= self.plan.num_steps

    def step(self, state: TrainingState) -> tuple[float, str]:
        """Draw the poses of one part anew.

        Returns:
            Mean evidence of its images, and a note on it.
        """
        part = self.step_count % _NUM_PARTS
        rows, radius = self._rows(part), self.plan.radius(self.step_count)
        band = Band(self.ground.band.box_size, radius, state.device)
        # What the maps leave unexplained is noise to them.
        trust = 1 / self.unexplained[band.shells]
        whole = state.weighted(self.members[rows], self.ground.band).at(self.ground.band.within(radius))
        images = WeightedImages(whole.score * trust, whole.power * trust, whole.constant)
        maps = self._maps_of([other for other in range(_NUM_PARTS) if other != part], radius)
        balance = self.plan.balance(self.step_count)
        drawn = self.ground.comparer.draw(maps, images, band, self.shift_prior, balance, state.generator)
        moved = WeightedImages(drawn.score[:, None] / trust, whole.power, whole.constant)
        rotation = drawn.rotation[:, None, None]
        self._add(part, moved, band, drawn.class_index, rotation, torch.zeros_like(rotation[..., 0, :2]))
        explained = 2 * drawn.score * drawn.slices - images.power[:, 0] * drawn.slices.square()
        residual = power_over_noise(whole) - explained.mean(0) / trust
        self.unexplained = followed(self.unexplained, residual, band, self.plan.memory)
        self.log_evidence[rows.to(state.device)] = drawn.log_evidence
        self.step_count += 1
        return float(self.evidence[rows.to(state.device)].mean()), f"band {radius}"

    def maps(self) -> Float[Tensor, "k n n n"]:
        """Those of all images, as wide as the last step's."""
        return self._maps_of(list(range(_NUM_PARTS)), self.plan.radius(self.step_count))

    def _rows(self, part: int) -> Int[Tensor, "b"]:
        return torch.nonzero(self.part == part)[:, 0]

    def _add(
        self,
        part: int,
        images: WeightedImages,
        band: Band,
        class_index: Int[Tensor, "b"],
        rotation: Float[Tensor, "b 1 1 3 3"],
        shift_px: Float[Tensor, "b 1 1 2"],
    ) -> None:
        """Put images at one pose each in the place of what their part was."""
        self._sums.forget(part)
        ones = torch.ones_like(rotation[:, 0, 0, :1, 0])
        parts = torch.full_like(class_index, part)
        self._sums.add(images, band, parts, ones, class_index[:, None], rotation, shift_px)

    def _maps_of(self, parts: list[int], radius: int) -> Float[Tensor, "k n n n"]:
        """Maps of some parts up to a radius, confined to their density."""
        ground = self.ground
        numerator, denominator = (sums[parts].sum(0) for sums in (self._sums.numerator, self._sums.denominator))
        in_band = ground.distance <= radius
        values = ratio(numerator, denominator, ground.shells.flatten(), _LEAST_SHARE).unflatten(1, in_band.shape)
        density = drawn_to_density(ground.lattice, torch.where(in_band, values, 0.0), 1.0)
        return torch.where(in_band, to_frequency(density * ground.mask), 0.0)
