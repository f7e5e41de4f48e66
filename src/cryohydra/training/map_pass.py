"""One round of expectation and maximisation on lattices: images weighed in maps, and summed to the next ones."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.evidence import carry_shares, expected_contrast
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalPoses, LocalSteps, sharpen_poses
from cryohydra.inference.partition import half_of, part_of
from cryohydra.inference.reconstruction import ClassSums
from cryohydra.inference.slices import SliceSource
from cryohydra.physics.noise import NoiseSpectrum, shell_means
from cryohydra.training.state import TrainingState

_GROWTH = 1.4
"""A pass widens the band by this factor at most: poses sharpen step by step."""


def widened(radius: int) -> int:
    """The widest band of the next pass."""
    return int(_GROWTH * radius) + 1


@dataclass(frozen=True)
class Pairs:
    """Particles of a batch with the classes that matter to them."""

    image: Int[Tensor, "m"]
    """Position in the batch."""
    row: Int[Tensor, "m"]
    """Row in the tables."""
    class_index: Int[Tensor, "m"]

    @classmethod
    def of(cls, rows: Int[Tensor, "b"], matters: Bool[Tensor, "b k"]) -> "Pairs":
        """All pairs that matter."""
        image, class_index = torch.nonzero(matters, as_tuple=True)
        return cls(image, rows[image], class_index)


class MapPass:
    """One visit to every image; what is summed is what this member of a team has seen.

    An image is compared with the maps of the half that it is no part of: compared with maps that it is part of, it
    seems to fit best where it already is.
    """

    def __init__(
        self,
        state: TrainingState,
        lattice: Lattice,
        maps: SliceSource | None,
        radius: int,
        steps: LocalSteps,
        sums: ClassSums | None = None,
    ):
        """Begin.

        Args:
            lattice: Of the sums.
            maps: The K maps of the first half, then those of the second; or K maps that serve all images. None if
                images are only to be added.
            radius: Of the band that is compared, in Fourier pixels.
            steps: How far poses may move.
            sums: To add to; None for new ones, of two halves.
        """
        self.maps, self.steps = maps, steps
        self.compared = state.band(radius)
        # Poses found in a band say something of the next wider one; beyond that there is only noise to sum.
        self.summed = state.band(min(lattice.radius, widened(radius) + 1))
        self._room = lattice, state.num_classes, state.device
        self._sums = sums
        self._log_odds_of_noise = state.classes.log_odds_of_noise()
        self.num_seen = 0
        """By all members of a team."""
        self.evidence = torch.zeros((), device=state.device)
        """Summed over the images that this member has seen."""
        self._residual = torch.zeros(len(state.noise.variance), state.images.box_size // 2 + 1, device=state.device)
        self._num_residuals = torch.zeros(len(state.noise.variance), device=state.device)

    @property
    def sums(self) -> ClassSums:
        """What maps are made of; new ones take no memory before the first image is added."""
        if self._sums is None:
            self._sums = ClassSums.empty(*self._room)
        return self._sums

    def visit(self, state: TrainingState, index: Int[Tensor, "b"], matters: Bool[Tensor, "b k"]) -> Float[Tensor, "b"]:
        """Weigh the classes of a batch, as `weigh` does, and add it to the sums: each member of a team its share of it.

        Returns:
            Evidence of each image of the batch over that of noise alone, classes summed out.
        """
        team, classes = state.team, state.classes
        evidence = self._visit_share(state, team.share(index), team.share(matters))
        self.num_seen += len(index)
        tables = (state.poses.rotation, state.poses.shift_px, classes.log_evidence, classes.log_pose_volume)
        team.exchange(index, tables)
        return team.gather(evidence, len(index))

    def lay(self, state: TrainingState, index: Int[Tensor, "b"], weight: Float[Tensor, "b k"]) -> None:
        """Add a batch to the sums at the poses that the tables hold, compared with nothing."""
        share = state.team.share(index)
        if len(share):
            self.add(state, share.to(state.device), state.weighted(share, self.summed), state.team.share(weight))
        self.num_seen += len(index)

    def _visit_share(
        self, state: TrainingState, index: Int[Tensor, "m"], matters: Bool[Tensor, "m k"]
    ) -> Float[Tensor, "m"]:
        """What `visit` does, for the images of this member: of the last batch there may be none."""
        rows = index.to(state.device)
        if not len(rows):
            return state.classes.log_evidence[rows, 0]
        images = state.weighted(index, self.summed)
        evidence = self.weigh(state, index, images, matters)
        self.add(state, rows, images, state.classes.log_posterior(rows).exp())
        return evidence

    def weigh(
        self, state: TrainingState, index: Int[Tensor, "b"], images: WeightedImages, matters: Bool[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Sharpen the poses of images in the classes that matter to them, and weigh those.

        Args:
            images: On the band that is summed.
            matters: Other classes keep their share of the posterior.

        Returns:
            Evidence of each image over that of noise alone, classes summed out.
        """
        rows = index.to(state.device)
        pairs = Pairs.of(rows, matters)
        found = self._sharpen_held(state, images, pairs)
        before = state.classes.log_evidence[rows]
        now = before.clone()
        now[pairs.image, pairs.class_index] = (
            found.log_likelihood + state.classes.log_pose_volume[pairs.row, pairs.class_index]
        )
        return self._count(state, index, images, carry_shares(now, before, matters, state.classes.log_weight))

    def weigh_by(
        self,
        state: TrainingState,
        index: Int[Tensor, "b"],
        images: WeightedImages,
        matters: Bool[Tensor, "b k"],
        log_evidence: Float[Tensor, "b k"],
    ) -> Float[Tensor, "b"]:
        """Sharpen poses as `weigh` does, but weigh classes by what is known of all poses together.

        The likelihood at the best pose alone favours classes in which an image has no pose: it is the highest of
        many that fit its noise. What the other poses are worth is kept for later passes, beside the pose that is held.
        """
        pairs = Pairs.of(index.to(state.device), matters)
        found = self._sharpen_held(state, images, pairs)
        known = log_evidence[pairs.image, pairs.class_index]
        state.classes.log_pose_volume[pairs.row, pairs.class_index] = known - found.log_likelihood
        return self._count(state, index, images, log_evidence)

    def sharpen(
        self,
        state: TrainingState,
        images: WeightedImages,
        pairs: Pairs,
        rotation: Float[Tensor, "m t 3 3"],
        shift_px: Float[Tensor, "m t 2"],
        band: Band,
        steps: LocalSteps,
    ) -> LocalPoses:
        """Move poses in the maps that images are compared with; shifts without those known beforehand.

        Args:
            images: On the band that is summed; `band` is part of it.
        """
        assert self.maps is not None, "images are only added in this pass"
        narrow = images.at(self.summed.within(band.radius))
        which = self._other_half(state, pairs.row, pairs.class_index)
        return sharpen_poses(self.maps, narrow, band, pairs.image, which, rotation, shift_px, steps)

    def add(
        self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages, weight: Float[Tensor, "b k"]
    ) -> None:
        """Add images to the sums at the poses that the tables hold, but for those held out."""
        every = torch.arange(state.num_classes, device=rows.device).expand_as(weight)
        pose = state.poses.pose(rows)
        shift_px = pose.shift_px.transpose(1, 2) - state.known_shift_px[rows][:, None, None]
        self.add_at(state, rows, images, weight, every, pose.rotation.transpose(1, 2), shift_px)

    def add_at(
        self,
        state: TrainingState,
        rows: Int[Tensor, "b"],
        images: WeightedImages,
        weight: Float[Tensor, "b c"],
        class_index: Int[Tensor, "b c"],
        rotation: Float[Tensor, "b c t 3 3"],
        shift_px: Float[Tensor, "b c t 2"],
    ) -> None:
        """Add images at several classes and poses each, shifts known beforehand not counted.

        But for those held out; noise alone counts as little as it is likely.
        """
        is_particle = torch.sigmoid(state.classes.log_probability(rows) - self._log_odds_of_noise)
        weight = torch.where(state.is_held_out(rows), 0.0, is_particle)[:, None] * weight
        part = part_of(rows, self.sums.num_parts)
        self.sums.add(images, self.summed, part, weight, class_index, rotation, shift_px)

    def mean_evidence(self, state: TrainingState) -> float:
        """Of the images that all members have seen, over that of noise alone."""
        return float(state.team.sum(self.evidence)) / self.num_seen

    def refined_noise(self, state: TrainingState) -> NoiseSpectrum:
        """The residuals' spectrum where the band has it, the earlier one elsewhere."""
        residual, number = state.team.sum(self._residual), state.team.sum(self._num_residuals)
        measured = residual / number.clamp(min=1)[:, None]
        return NoiseSpectrum(torch.where(measured > 0, measured, state.noise.variance))

    def _sharpen_held(self, state: TrainingState, images: WeightedImages, pairs: Pairs) -> LocalPoses:
        found = self.sharpen(state, images, pairs, *poses_held(state, pairs), self.compared, self.steps)
        hold_poses(state, pairs, found)
        return found

    def _count(
        self, state: TrainingState, index: Int[Tensor, "b"], images: WeightedImages, log_evidence: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Hold the classes' evidence, and sum what is left of the images' power."""
        rows = index.to(state.device)
        state.classes.log_evidence[rows] = log_evidence
        evidence = torch.logsumexp(state.classes.log_weight + log_evidence, dim=1)
        self.evidence += evidence.sum()
        self._add_residuals(state, index, images, state.classes.log_posterior(rows).argmax(1))
        return evidence

    def _other_half(self, state: TrainingState, rows: Tensor, class_index: Tensor) -> Tensor:
        assert self.maps is not None
        return ((1 - half_of(rows)) * state.num_classes + class_index) % self.maps.num_classes

    def _add_residuals(
        self, state: TrainingState, index: Int[Tensor, "b"], images: WeightedImages, class_index: Int[Tensor, "b"]
    ) -> None:
        """Sum what the likeliest classes leave of the images' power."""
        rows, narrow = index.to(state.device), images.at(self.summed.within(self.compared.radius))
        rotation, shift = poses_held(state, Pairs(torch.arange(len(rows), device=rows.device), rows, class_index))
        which = self._other_half(state, rows, class_index).repeat_interleave(rotation.shape[1])
        assert self.maps is not None
        cut = self.maps.of_candidates(self.compared, which, rotation.flatten(0, 1)).unflatten(0, rotation.shape[:2])
        centred = shift_hartley(narrow.score, self.compared.frequencies, -shift)
        score, power = centred * cut, narrow.power * cut.square()
        contrast = expected_contrast(score.sum((1, 2)), power.sum((1, 2)))[:, None, None]
        # |y - a C V|^2, all over the noise: the cross term is the score's.
        noise = state.noise_variance(index, self.compared)
        left = state.observed(index, self.compared).square() + noise * (
            contrast.square() * power - 2 * contrast * score
        )
        means = shell_means(left.flatten(0, 1), self.compared, self._residual.shape[1])
        group = state.images.optics(index).group.flatten()
        self._residual.index_add_(0, group, torch.nan_to_num(means))
        self._num_residuals.index_add_(0, group, torch.ones_like(group, dtype=torch.float32))


def poses_held(state: TrainingState, pairs: Pairs) -> tuple[Float[Tensor, "m t 3 3"], Float[Tensor, "m t 2"]]:
    """Rotations and shifts that the tables hold; shifts known beforehand were undone already, in the images."""
    shift_px = state.poses.shift_px[pairs.row, :, pairs.class_index]
    return state.poses.rotation[pairs.row, :, pairs.class_index], shift_px - state.known_shift_px[pairs.row][:, None]


def hold_poses(state: TrainingState, pairs: Pairs, poses: LocalPoses) -> None:
    """Undo `poses_held`."""
    state.poses.rotation[pairs.row, :, pairs.class_index] = poses.rotation
    state.poses.shift_px[pairs.row, :, pairs.class_index] = poses.shift_px + state.known_shift_px[pairs.row][:, None]
