"""The first stage where poses are given: classes by expectation and maximisation."""

from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.reconstruction import ClassMaps, particle_mask
from cryohydra.inference.slices import GridSlicers
from cryohydra.physics.pose import Pose
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.listener import Tell
from cryohydra.training.map_pass import MapPass, widened
from cryohydra.training.solving import maps_of_all, slices_of_all, sums_dealt
from cryohydra.training.splitting import split_by_variation
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_RELATIVE_GAIN = 2e-4
_LEAST_KNOWN = 3
"""Fourier pixels to which maps must be known for poses to be sharpened in them."""


class KnownPoses(Stage):
    """Passes over all images from the poses given: weigh classes, sharpen poses if they are to be learned, sum, solve.

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
        steps: LocalSteps,
        random_poses: bool = False,
    ):
        """Plan the stage.

        Args:
            radius: Highest frequency ever compared, in Fourier pixels; the maps' own decide of each pass.
            steps: How far poses may move.
            random_poses: Turn images at random instead: the published start without knowledge.
        """
        self.last_radius = self.radius = radius
        self.max_images = max_passes * num_images
        self.batch_size = batch_size
        self.steps = steps
        self.random_poses = random_poses
        self.pass_count = 0
        self.evidence_before = float("-inf")
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Make room for the sums."""
        self.lattice = Lattice(state.images.box_size, self.last_radius)
        self.mask = particle_mask(self.lattice, state.device)
        state.fields_are_fitted = False
        if self.random_poses:
            self._forget_poses(state)
        self._plant(state)
        self.start = self._first_weights(state)
        self.current: MapPass | None = None

    def _plant(self, state: TrainingState) -> None:
        """Begin with the maps that are given, if there is one for each class: then classes are weighed at once."""
        seeds = state.seeds
        if state.maps is None and seeds is not None and seeds.has_map.all():
            values = enlarge(seeds.values, self.lattice)
            known = (torch.arange(self.lattice.radius + 1, device=state.device) <= seeds.lattice.radius).float()
            state.maps = ClassMaps(self.lattice, values, known.expand(len(values), -1).contiguous())

    def _begin_pass(self, state: TrainingState) -> MapPass:
        slices, steps = None, LocalSteps(count=0)
        if state.maps is not None and self.start is None:
            slices = slices_of_all(state.team, self.lattice, state.maps.compared, self._slicers)
            # In maps that are noise, of too few images, poses would follow the noise.
            steps = self.steps if state.maps.known_radius() >= _LEAST_KNOWN else steps
        return MapPass(state, self.lattice, slices, self.radius, steps)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Weigh the classes of a batch and add it to the sums."""
        note, rows = f"pass {self.pass_count + 1}, band {self.radius}", index.to(state.device)
        current = self.current = self.current or self._begin_pass(state)
        if self.start is not None:
            current.lay(state, index, self.start[rows])
            evidence = torch.zeros(len(rows), device=state.device)
        else:
            # Poses were given for all classes: each image is compared with all, however improbable before.
            every = torch.ones(len(rows), state.num_classes, dtype=torch.bool, device=state.device)
            evidence = current.visit(state, index, every)
        if current.num_seen >= len(state):
            self._end_pass(state, current)
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _end_pass(self, state: TrainingState, done: MapPass) -> None:
        solution = sums_dealt(state.team, done.sums).solve(self.mask)
        state.maps = maps_of_all(state.team, solution.with_halves(), state.num_classes)
        self.pass_count += 1
        has_compared = self.start is None
        known = min(self.last_radius, max(4, state.maps.known_radius() + 2))
        # Poses that move must not lose their way in details before the coarse is right.
        wider = min(known, widened(self.radius)) if has_compared and self.steps.count else known
        if has_compared:
            state.classes.update_weights()
            state.noise = done.refined_noise(state)
            evidence = done.mean_evidence(state)
            gained = evidence - self.evidence_before
            self.is_done = wider < 1.1 * self.radius and gained < _RELATIVE_GAIN * abs(evidence)
            self.evidence_before = evidence
        self.radius = wider
        # One class is its mean.
        is_first = self.pass_count == 1 and not has_compared and not self.random_poses and state.num_classes > 1
        is_first &= state.seeds is None
        maps = state.maps
        self.start = state.team.once(lambda: split_by_variation(state, maps), state.generator) if is_first else None
        self.current = None

    def _first_weights(self, state: TrainingState) -> Float[Tensor, "n k"] | None:
        """Even ones; at random poses random ones, so that maps differ; labels; none if there are maps already."""
        if state.maps is not None and state.maps.lattice == self.lattice:
            return None
        if state.seeds is not None:
            return state.seeds.first_weights(state.generator)
        shape = (len(state), state.num_classes)
        weight = torch.rand(shape, generator=state.generator) if self.random_poses else torch.ones(shape)
        return (weight / weight.sum(1, keepdim=True)).to(state.device)

    def _forget_poses(self, state: TrainingState) -> None:
        rotation = random_rotations(len(state), state.generator).to(state.device)
        shift_px = state.known_shift_px[:, None, None]
        state.poses.set(torch.arange(len(state), device=state.device), Pose(rotation[:, None, None], shift_px))

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Fit the fields to the maps."""
        if self.pass_count == 0:
            self._end_pass(state, self.current or self._begin_pass(state))
        assert state.maps is not None
        state.maps = state.maps.without_halves()
        error = fit_fields(state, find_variation(state, tell), tell=tell)
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
            "radius": self.radius,
            "is_done": self.is_done,
        }

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.pass_count, self.evidence_before = saved["pass_count"], saved["evidence_before"]
        self.start, self.radius = saved["start"], saved["radius"]
        self.is_done = saved["is_done"]
