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
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_RELATIVE_GAIN = 1e-3


class KnownPoses(Stage):
    """Passes over all images at their given poses: weigh classes, sum, solve.

    The first pass gives each image random class weights; the temperature falls to one.
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
        first_temperature: float = 4.0,
        num_warm_passes: int = 8,
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
        self.first_temperature = first_temperature
        self.num_warm_passes = num_warm_passes
        self.particle_radius = particle_radius
        self.pass_count = 0
        self.evidence_before = float("-inf")
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Make room for the sums."""
        self.lattice = Lattice(state.images.box_size, self.radius)
        self.band = state.band(self.radius)
        self.mask = particle_mask(self.lattice, self.particle_radius, state.device)
        state.fields_are_fitted = False
        self._begin_pass(state)

    def _begin_pass(self, state: TrainingState) -> None:
        self.sums = ClassSums.empty(self.lattice, state.num_classes, state.device)
        self.slices = (
            LatticeSlices(self.lattice, state.maps.values, self._slicers)
            if state.maps is not None and state.maps.lattice == self.lattice
            else None
        )
        self.evidence_sum, self.num_seen = 0.0, 0

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Weigh the classes of a batch and add it to the sums."""
        rows = index.to(state.device)
        images = state.weighted(index, self.band)
        pose = self._pose(state, rows)
        if self.slices is None:
            weight = torch.rand(len(rows), state.num_classes, generator=state.generator).to(state.device)
            weight = weight / weight.sum(1, keepdim=True)
            evidence = torch.zeros(len(rows), device=state.device)
        else:
            log_likelihood = self._compare(images, pose, self.slices)
            state.classes.log_evidence[rows] = log_likelihood
            log_weight = state.classes.log_weight
            weight = torch.softmax(log_weight + log_likelihood / self._temperature(), dim=1)
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
        return StepResult(loss=loss, note=f"pass {self.pass_count + 1}, temperature {self._temperature():.1f}")

    def _end_pass(self, state: TrainingState) -> None:
        state.maps = self.sums.solve(self.mask)
        evidence = self.evidence_sum / max(self.num_seen, 1)
        self.pass_count += 1
        if self.slices is not None:
            state.classes.update_weights()
        is_cold = self.pass_count > self.num_warm_passes or state.num_classes == 1
        gained = evidence - self.evidence_before
        self.is_done = is_cold and self.slices is not None and gained < _RELATIVE_GAIN * abs(evidence)
        self.evidence_before = evidence
        self._begin_pass(state)

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
        return {"pass_count": self.pass_count, "evidence_before": self.evidence_before}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.pass_count, self.evidence_before = saved["pass_count"], saved["evidence_before"]

    def _temperature(self) -> float:
        cooled = min(1.0, self.pass_count / self.num_warm_passes)
        return self.first_temperature + (1 - self.first_temperature) * cooled

    def _pose(self, state: TrainingState, rows: Int[Tensor, "b"]) -> Pose:
        pose = state.poses.pose(rows)
        if not self.random_poses:
            # Known shifts were undone already, with the images' scores.
            return Pose(pose.rotation, pose.shift_px - state.known_shift_px[rows][:, None, None])
        turned = random_rotations(len(rows), state.generator).to(state.device)
        return Pose(turned[:, None, None].expand_as(pose.rotation), torch.zeros_like(pose.shift_px))

    def _compare(self, images: WeightedImages, pose: Pose, slices: LatticeSlices) -> Float[Tensor, "b k"]:
        """Log likelihood of each class at the pose, over noise alone."""
        score = torch.zeros(pose.rotation.shape[0], pose.rotation.shape[2], device=images.constant.device)
        power = torch.zeros_like(score)
        for k in range(score.shape[1]):
            rotation = pose.rotation[:, :, k]
            which = torch.full(rotation.shape[:2], k, device=score.device).flatten()
            cut = slices.of_candidates(self.band, which, rotation.flatten(0, 1)).unflatten(0, rotation.shape[:2])
            shifted = shift_hartley(images.score, self.band.frequencies, -pose.shift_px[:, :, k])
            score[:, k] = (shifted * cut).sum((1, 2))
            power[:, k] = (images.power * cut.square()).sum((1, 2))
        return log_likelihood_over_contrast(score, power)
