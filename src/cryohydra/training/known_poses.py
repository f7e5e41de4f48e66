"""The first stage where poses are given: classes by expectation and maximisation."""

from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.evidence import log_likelihood_over_contrast
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import ClassSums, particle_mask
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.splitting import split_by_variation
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_RELATIVE_GAIN = 2e-4


class KnownPoses(Stage):
    """Passes over all images at their given poses: weigh classes, sum, solve.

    The first pass makes the mean of all images, the second one map of each cluster along the components in
    which they differ most; then classes are weighed by their evidence.
    """

    name = "classes at known poses"

    def __init__(
        self,
        *,
        radius: int,
        max_passes: int,
        num_images: int,
        batch_size: int,
        random_poses: bool = False,
        particle_radius: float = 0.45,
    ):
        """Plan the stage.

        Args:
            random_poses: Turn images at random instead: the published start without knowledge.
        """
        self.radius = radius
        self.max_images = max_passes * num_images
        self.batch_size = batch_size
        self.random_poses = random_poses
        self.particle_radius = particle_radius
        self.pass_count = 0
        self.evidence_before = float("-inf")
        self._slicers = GridSlicers()
        self._slices: LatticeSlices | None = None

    def begin(self, state: TrainingState) -> None:
        """Make room for the sums."""
        self.lattice = Lattice(state.images.box_size, self.radius)
        self.band = state.band(self.radius)
        self.mask = particle_mask(self.lattice, self.particle_radius, state.device)
        state.fields_are_fitted = False
        self.start = self._first_weights(state)
        self.halves = None if state.maps is None else state.maps.values.expand(2, *state.maps.values.shape)
        self._begin_pass(state)

    def _begin_pass(self, state: TrainingState) -> None:
        self.sums = ClassSums.empty(self.lattice, state.num_classes, state.device)
        self._slices = None
        self.evidence_sum, self.num_seen = 0.0, 0

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Weigh the classes of a batch and add it to the sums."""
        rows = index.to(state.device)
        images = state.weighted(index, self.band)
        pose = self._pose(state, rows)
        if self.start is not None:
            weight = self.start[rows]
            evidence = torch.zeros(len(rows), device=state.device)
        else:
            log_likelihood = self._compare(images, pose, rows % 2)
            state.classes.log_evidence[rows] = log_likelihood
            log_weight = state.classes.log_weight
            weight = torch.softmax(log_weight + log_likelihood, dim=1)
            evidence = torch.logsumexp(log_weight + log_likelihood, dim=1)
        classes = torch.arange(state.num_classes, device=state.device).expand_as(weight)
        self.sums.add(
            images,
            self.band,
            rows,
            weight,
            classes,
            pose.rotation.transpose(1, 2),
            pose.shift_px.transpose(1, 2),
        )
        self.evidence_sum += float(evidence.sum())
        self.num_seen += len(index)
        loss = -float(evidence.mean())
        if self.num_seen >= len(state):
            self._end_pass(state)
        return StepResult(loss=loss, note=f"pass {self.pass_count + 1}")

    def _end_pass(self, state: TrainingState) -> None:
        state.maps, self.halves = self.sums.solve(self.mask), self.sums.solve_halves(self.mask)
        evidence = self.evidence_sum / max(self.num_seen, 1)
        self.pass_count += 1
        has_compared = self.start is None
        if has_compared:
            state.classes.update_weights()
        gained = evidence - self.evidence_before
        self.is_done = has_compared and gained < _RELATIVE_GAIN * abs(evidence)
        self.evidence_before = evidence if has_compared else float("-inf")
        is_first = self.pass_count == 1 and not has_compared and not self.random_poses
        self.start = split_by_variation(state, state.maps, self.particle_radius) if is_first else None
        self._begin_pass(state)

    def _first_weights(self, state: TrainingState) -> Float[Tensor, "n k"] | None:
        """Even ones; at random poses random ones, so that maps differ; none if there are maps already."""
        if state.maps is not None and state.maps.lattice == self.lattice:
            return None
        shape = (len(state), state.num_classes)
        weight = torch.rand(shape, generator=state.generator) if self.random_poses else torch.ones(shape)
        return (weight / weight.sum(1, keepdim=True)).to(state.device)

    def end(self, state: TrainingState) -> str:
        """Fit the fields to the maps."""
        if self.pass_count == 0:
            self._end_pass(state)
        assert state.maps is not None
        error = fit_fields(state, find_variation(state))
        state.fields_are_fitted = True
        known = state.maps.known_radius()
        return (
            f"Known poses: {self.pass_count} passes, maps known to {known} Fourier pixels (halves agree above "
            f"0.143); fields differ from them by {100 * max(error):.0f} % at most."
        )

    def state_dict(self) -> dict[str, Any]:
        """Between passes; a pass that was cut short begins anew."""
        return {
            "pass_count": self.pass_count,
            "evidence_before": self.evidence_before,
            "start": self.start,
            "halves": self.halves,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.pass_count, self.evidence_before = saved["pass_count"], saved["evidence_before"]
        self.start, self.halves, self._slices = saved["start"], saved["halves"], None

    def _pose(self, state: TrainingState, rows: Int[Tensor, "b"]) -> Pose:
        pose = state.poses.pose(rows)
        if not self.random_poses:
            # Known shifts were undone already, with the images' scores.
            return Pose(pose.rotation, pose.shift_px - state.known_shift_px[rows][:, None, None])
        turned = random_rotations(len(rows), state.generator).to(state.device)
        return Pose(turned[:, None, None].expand_as(pose.rotation), torch.zeros_like(pose.shift_px))

    def _compare(self, images: WeightedImages, pose: Pose, half: Int[Tensor, "b"]) -> Float[Tensor, "b k"]:
        """Log likelihood of each class at the pose, over noise alone, in maps that the images are no part of."""
        num_classes = pose.rotation.shape[2]
        if self._slices is None:
            assert self.halves is not None, "there are maps once there is no start"
            self._slices = LatticeSlices(self.lattice, self.halves.flatten(0, 1), self._slicers)
        score = torch.zeros(len(half), num_classes, device=half.device)
        power = torch.zeros_like(score)
        for k in range(num_classes):
            rotation = pose.rotation[:, :, k]
            which = ((1 - half) * num_classes + k)[:, None].expand(rotation.shape[:2]).flatten()
            cut = self._slices.of_candidates(self.band, which, rotation.flatten(0, 1)).unflatten(0, rotation.shape[:2])
            shifted = shift_hartley(images.score, self.band.frequencies, -pose.shift_px[:, :, k])
            score[:, k] = (shifted * cut).sum((1, 2))
            power[:, k] = (images.power * cut.square()).sum((1, 2))
        return log_likelihood_over_contrast(score, power)
