"""One round of expectation and maximisation on lattices: images weighed in maps, and summed to the next ones."""

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.evidence import carry_shares, expected_contrast
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalSteps, sharpen_poses
from cryohydra.inference.reconstruction import ClassSums, half_of
from cryohydra.inference.slices import SliceSource
from cryohydra.physics.noise import NoiseSpectrum, shell_means
from cryohydra.training.state import TrainingState

_GROWTH = 1.4
"""A pass widens the band by this factor at most: poses sharpen step by step."""


def widened(radius: int) -> int:
    """The widest band of the next pass."""
    return int(_GROWTH * radius) + 1


class MapPass:
    """One visit to every image.

    An image is compared with the maps of the half that it is no part of: compared with maps that it is part of, it
    seems to fit best where it already is.
    """

    def __init__(
        self, state: TrainingState, lattice: Lattice, halves: SliceSource | None, radius: int, steps: LocalSteps
    ):
        """Make room for the sums.

        Args:
            halves: The K maps of the first half, then those of the second; or K maps that serve all images. None if
                images are only to be added.
            radius: Of the band that is compared, in Fourier pixels.
            steps: How far poses may move.
        """
        self.halves, self.steps = halves, steps
        self.compared = state.band(radius)
        # Poses found in a band say something of the next wider one; beyond that there is only noise to sum.
        self.summed = state.band(min(lattice.radius, widened(radius) + 1))
        self.sums = ClassSums.empty(lattice, state.num_classes, state.device)
        self.num_seen = 0
        self.evidence = torch.zeros((), device=state.device)
        """Summed over the images seen."""
        self._residual = torch.zeros(len(state.noise.variance), state.images.box_size // 2 + 1, device=state.device)
        self._num_residuals = torch.zeros(len(state.noise.variance), device=state.device)

    def weigh(
        self, state: TrainingState, index: Int[Tensor, "b"], images: WeightedImages, matters: Bool[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Sharpen the poses of images in the classes that matter to them, weigh those, and add the images.

        Args:
            images: On the band that is summed.
            matters: Other classes keep their share of the posterior.

        Returns:
            Evidence of each image over that of noise alone, classes summed out.
        """
        assert self.halves is not None
        rows = index.to(state.device)
        points = self.summed.within(self.compared.radius)
        image, class_index = torch.nonzero(matters, as_tuple=True)
        of_pair = rows[image]
        known_shift = state.known_shift_px[of_pair][:, None]
        found = sharpen_poses(
            self.halves,
            images.at(points).rows(image),
            self.compared,
            self.other_half(state, of_pair, class_index),
            state.poses.rotation[of_pair, :, class_index],
            # Known shifts were undone already, with the images' scores.
            state.poses.shift_px[of_pair, :, class_index] - known_shift,
            self.steps,
        )
        state.poses.rotation[of_pair, :, class_index] = found.rotation
        state.poses.shift_px[of_pair, :, class_index] = found.shift_px + known_shift
        before = state.classes.log_evidence[rows]
        now = before.clone()
        now[image, class_index] = found.log_likelihood + state.classes.log_pose_volume[of_pair, class_index]
        log_weight = state.classes.log_weight
        state.classes.log_evidence[rows] = carry_shares(now, before, matters, log_weight)
        evidence = torch.logsumexp(log_weight + state.classes.log_evidence[rows], dim=1)
        self.evidence += evidence.sum()
        posterior = state.classes.log_posterior(rows).exp()
        self._add_residuals(state, index, images, posterior.argmax(1))
        self.add(state, rows, images, posterior)
        return evidence

    def add(
        self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages, weight: Float[Tensor, "b k"]
    ) -> None:
        """Add images to the sums at the poses that the tables hold."""
        self.num_seen += len(rows)
        pose = state.poses.pose(rows)
        self.sums.add(
            images,
            self.summed,
            rows,
            weight,
            torch.arange(state.num_classes, device=rows.device).expand_as(weight),
            pose.rotation.transpose(1, 2),
            pose.shift_px.transpose(1, 2) - state.known_shift_px[rows][:, None, None],
        )

    def refined_noise(self, state: TrainingState) -> NoiseSpectrum:
        """The residuals' spectrum where the band has it, the earlier one elsewhere."""
        measured = self._residual / self._num_residuals.clamp(min=1)[:, None]
        return NoiseSpectrum(torch.where(measured > 0, measured, state.noise.variance))

    def other_half(
        self, state: TrainingState, rows: Int[Tensor, "m"], class_index: Int[Tensor, "m"]
    ) -> Int[Tensor, "m"]:
        """Which of the halves' maps a pair of particle and class is compared with."""
        assert self.halves is not None
        return ((1 - half_of(rows)) * state.num_classes + class_index) % self.halves.num_classes

    def _add_residuals(
        self, state: TrainingState, index: Int[Tensor, "b"], images: WeightedImages, class_index: Int[Tensor, "b"]
    ) -> None:
        """Sum what the likeliest classes leave of the images' power."""
        rows, narrow = index.to(state.device), images.at(self.summed.within(self.compared.radius))
        rotation = state.poses.rotation[rows, :, class_index]
        shift = state.poses.shift_px[rows, :, class_index] - state.known_shift_px[rows][:, None]
        which = self.other_half(state, rows, class_index).repeat_interleave(rotation.shape[1])
        assert self.halves is not None
        cut = self.halves.of_candidates(self.compared, which, rotation.flatten(0, 1)).unflatten(0, rotation.shape[:2])
        centred = shift_hartley(narrow.score, self.compared.frequencies, -shift)
        score, power = centred * cut, narrow.power * cut.square()
        contrast = expected_contrast(score.sum((1, 2)), power.sum((1, 2)))[:, None, None]
        # |y - a C V|^2, all over the noise: the cross term is the score's.
        noise = state.noise_variance(index, self.compared)
        left = state.observed(index, self.compared).square() + noise * (
            contrast.square() * power - 2 * contrast * score
        )
        means = shell_means(left.flatten(0, 1), self.compared, self._residual.shape[1])
        group = state.images.optics(index).group.to(state.device).flatten()
        self._residual.index_add_(0, group, torch.nan_to_num(means))
        self._num_residuals.index_add_(0, group, torch.ones_like(group, dtype=torch.float32))
