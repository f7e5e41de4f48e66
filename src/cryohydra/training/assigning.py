"""Particles that no map has learned of: their poses, classes and conformations in maps that stay as they are."""

import math
from dataclasses import dataclass, replace

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.lattice_density import density_on_lattice
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.class_variation import locate_members
from cryohydra.training.listener import Tell
from cryohydra.training.map_pass import MapPass, widened
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_LEAST_PROBABILITY = 1e-3
"""Classes less probable than this for an image after the search keep their share and are not looked at again."""


@dataclass(frozen=True)
class KnownSpread:
    """How the conformations of particles that a run has seen lie, class by class: what is expected of others."""

    mean: Float[Tensor, "k z"]
    axes: Float[Tensor, "k z z"]
    """Rows are one standard deviation along each principal axis."""


class Assigning(Stage):
    """Passes over all images: one that searches whole grids of poses, then some that sharpen them, ever wider.

    Nothing is summed and no map moves; the noise and the classes' shares follow the particles.
    """

    name = "assignment"

    def __init__(
        self,
        search: type[PoseSearch],
        plan: SearchPlan,
        *,
        radius: int,
        num_images: int,
        batch_size: int,
        spread: KnownSpread | None,
    ):
        """Plan the passes.

        Args:
            plan: Of the first pass, in a band of at most `radius`, wherever shifts may be.
            radius: To which the maps are known, in Fourier pixels.
            spread: None if conformations are not to be found: classes are rigid, or an encoder reads them off images.
        """
        self.search, self.plan = search, plan
        self.radii = radii_of_passes(plan, radius)
        self.max_images = len(self.radii) * num_images
        self.batch_size = batch_size
        self.spread = spread
        self.pass_count = 0

    def begin(self, state: TrainingState) -> None:
        """Cut slices from the state's maps."""
        assert state.maps is not None, "particles are assigned to maps"
        assert not state.teaches
        self.slices = LatticeSlices.of_maps(state.maps.lattice, state.maps.values, GridSlicers())
        self.matters = torch.ones(len(state), state.num_classes, dtype=torch.bool, device=state.device)
        self.num_seen = 0
        self.current: MapPass | None = None

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Find or sharpen the poses of a batch and weigh its classes."""
        assert state.maps is not None
        radius = self.radii[self.pass_count]
        steps = LocalSteps(shifts=self.plan.shifts.extent_px > 0)
        current = self.current = self.current or MapPass(state, state.maps.lattice, self.slices, radius, steps)
        rows, images = index.to(state.device), state.weighted(index, current.summed)
        if self.pass_count == 0:
            evidence = self._find(state, index, images, current)
        else:
            evidence = current.weigh(state, index, images, self.matters[rows])
        self.num_seen += len(index)
        if self.num_seen >= len(state):
            self._end_pass(state, current)
        doing = "sharpening" if self.pass_count else "searching"
        return StepResult(loss=-float(evidence.mean()), note=f"{doing}, band {radius}")

    def _find(
        self, state: TrainingState, index: Int[Tensor, "b"], images: WeightedImages, current: MapPass
    ) -> Float[Tensor, "b"]:
        """Search the poses of images in all classes, and sharpen them in those that matter."""
        rows = index.to(state.device)
        found = self.search(self.plan).search(self.slices, images, current.summed, state.classes.log_weight)
        best = found.best_of_class(state.num_classes)
        state.poses.set(rows, Pose(best.rotation[:, None], best.shift_px[:, None]))
        state.classes.log_evidence[rows] = found.log_evidence
        log_posterior = state.classes.log_posterior(rows)
        self.matters[rows] = log_posterior > math.log(_LEAST_PROBABILITY)
        if self.num_seen == 0:
            self._learn_spread(state, best.shift_px.take_along_dim(log_posterior.argmax(1)[:, None, None], 1)[:, 0])
        return current.weigh_by(state, index, images, self.matters[rows], found.log_evidence)

    def _learn_spread(self, state: TrainingState, shift_px: Float[Tensor, "b 2"]) -> None:
        """Learn from the first images, which were looked for everywhere, how far the others may be shifted.

        An image that tells no shift is found anywhere: it widens the spread, which costs time and no more.
        """
        prior = self.plan.shifts
        if prior.extent_px:
            mean_square_px = float(prior.square_distance(shift_px).mean()) + self.plan.shift_step_px**2 / 6
            state.shift_prior = prior.learned(mean_square_px)
            self.plan = replace(self.plan, shifts=state.shift_prior)

    def _end_pass(self, state: TrainingState, done: MapPass) -> None:
        state.noise = done.refined_noise(state)
        state.classes.update_weights()
        self.pass_count += 1
        self.num_seen, self.current = 0, None
        self.is_done = self.pass_count == len(self.radii)

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Find conformations, to first order, along the axes in which those that are known spread."""
        if self.spread is not None:
            self._find_conformations(state, self.spread)
        return f"Assignment: {len(state)} particles, compared to {self.radii[-1]} Fourier pixels."

    def _find_conformations(self, state: TrainingState, spread: KnownSpread) -> None:
        assert state.maps is not None
        lattice = state.maps.lattice
        band = state.band(lattice.radius)
        means = spread.mean.to(state.device)[None].repeat(len(state), 1, 1)
        for k in range(state.num_classes):
            members = torch.nonzero(self.matters[:, k]).squeeze(-1).cpu()
            if len(members):
                axes = spread.axes[k].to(state.device)
                components = torch.stack([_secant(state, lattice, k, spread.mean[k], axis) for axis in axes])
                along = locate_members(state, k, members, band, lattice, state.maps.values[k], components)
                means[members.to(state.device), k] += along @ axes
        state.conformations.set_means(torch.arange(len(state), device=state.device), means)


def radii_of_passes(plan: SearchPlan, radius: int) -> tuple[int, ...]:
    """Bands of the passes, in Fourier pixels: of the search, wider step by step, and the widest once more.

    The last pass weighs the widest band by the noise that the one before it left there.
    """
    radii = [min(plan.radii[-1], radius)]
    while radii[-1] < radius:
        radii.append(min(radius, widened(radii[-1])))
    return (*radii, radius)


@torch.no_grad()
def _secant(
    state: TrainingState, lattice: Lattice, class_index: int, mean: Float[Tensor, "z"], axis: Float[Tensor, "z"]
) -> Float[Tensor, "n n n"]:
    """What going along an axis by its length adds to the map of a class, from one such step to either side."""
    there, back = (
        state.mixture.map(class_index, mean.to(axis) + sign * axis, state.drawn_radius).float() for sign in (1, -1)
    )
    return density_on_lattice(lattice, (there - back) / 2)
