"""The second stage: poses and classes from rough maps, maps from poses and classes, wider each time."""

import math
from typing import Any, Literal

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.so3_grid import angular_step, level_for_step
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalPoses, LocalSteps, likelier, sharpen_poses
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.reconstruction import ClassMaps, enlarge, particle_mask
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.ab_initio import RESOLVED
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.map_pass import MapPass, widened
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_FINEST = 1.5
"""The last grid's step is at most _FINEST / radius radians: gradients do the rest."""
_NUM_SEARCHES = 2
"""Passes that search all poses: in rough maps, and once more in those that came of it, for what went astray."""
_SEARCHED_RADIUS = 10
"""In Fourier pixels: what two levels of the default grids resolve. Steps from there reach the wider band."""
_LEAST_PROBABILITY = 1e-3
"""Classes less probable than this for an image are passed over until all is searched anew."""


def plan_search(
    radius: int,
    *,
    base_level: int,
    num_refinements: int,
    box_size: int,
    shift_extent_px: float,
    shift_centre_px: tuple[float, float],
    num_kept: int,
) -> SearchPlan:
    """Levels whose grids keep pace with their bands, up to `radius` Fourier pixels.

    Args:
        num_refinements: Halvings of the first grid, at most; no more are made than the band can tell.
    """
    finest = level_for_step(_FINEST / radius)
    last = max(base_level, min(base_level + num_refinements, finest))
    radii = [min(radius, int(RESOLVED / angular_step(level))) for level in range(base_level, last)]
    base_radius = radii[0] if radii else radius
    return SearchPlan(
        base_level=base_level,
        radii=(*radii, radius),
        shift_extent_px=shift_extent_px,
        shift_step_px=box_size / (4 * base_radius),
        shift_centre_px=shift_centre_px,
        num_kept=num_kept,
    )


class Searching(Stage):
    """Passes over all images: find or sharpen their poses in the maps, sum, solve, widen the band.

    A pass that searches compares images with whole grids of poses. Those after it only take steps from the poses
    found (`MapPass`), at a fraction of the cost, until the maps gain no more.
    """

    name = "search"

    def __init__(
        self,
        search: type[PoseSearch],
        slices: Literal["sliced", "exact"],
        *,
        base_level: int,
        num_refinements: int,
        first_radius: int,
        last_radius: int,
        num_kept: int,
        shift_extent_px: float,
        shift_centre_px: tuple[float, float],
        max_images: int,
        batch_size: int,
        num_passes: int = 16,
        particle_radius: float = 0.45,
    ):
        """Plan the stage.

        Args:
            slices: Cut from the maps, or at every candidate from the network that is fitted to them.
            first_radius: Band of the first pass, in Fourier pixels; the maps' own decide of the next.
            num_passes: At most.
        """
        self.search = search
        self.slice_kind = slices
        self.base_level, self.num_refinements = base_level, num_refinements
        self.radius, self.last_radius = first_radius, last_radius
        self.num_kept = num_kept
        self.shift_extent_px, self.shift_centre_px = shift_extent_px, shift_centre_px
        self.batch_size = batch_size
        self.max_images = max_images
        self.num_passes = num_passes
        self.particle_radius = particle_radius
        self.pass_count, self.num_searches = 0, 0
        self.is_searching = True
        self.evidence_before = -math.inf
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Lay the maps on the widest lattice."""
        assert state.maps is not None, "the search starts from maps"
        self.lattice = Lattice(state.images.box_size, self.last_radius)
        if state.maps.lattice != self.lattice:
            maps = state.maps
            correlation = torch.nn.functional.pad(maps.half_correlation, (0, self.last_radius - maps.lattice.radius))
            values, weight = enlarge(maps.values, self.lattice), enlarge(maps.weight, self.lattice)
            state.maps = ClassMaps(self.lattice, values, weight, correlation)
        self.mask = particle_mask(self.lattice, self.particle_radius, state.device)
        state.fields_are_fitted = False
        self._begin_pass(state, state.maps.values)

    def _begin_pass(self, state: TrainingState, compared: Float[Tensor, "m n n n"]) -> None:
        """Prepare to search in the maps and to compare with these: the same, or those of their halves."""
        assert state.maps is not None
        if self.slice_kind == "sliced":
            self.slices: SliceSource = LatticeSlices(self.lattice, state.maps.values, self._slicers)
            self.halves: SliceSource = LatticeSlices(self.lattice, compared, self._slicers)
        else:
            fit_fields(state)
            conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
            self.slices = self.halves = FieldSlices(state.mixture, conformation)
        self.steps = LocalSteps(shifts=self.shift_extent_px > 0)
        self.current = MapPass(state, self.lattice, self.halves, self.radius, self.steps)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Find or sharpen the poses of a batch and add it to the sums."""
        note = f"pass {self.pass_count + 1}, {'searching' if self.is_searching else 'sharpening'}, band {self.radius}"
        rows = index.to(state.device)
        images = state.weighted(index, self.current.summed)
        if self.is_searching:
            self._search(state, rows, images)
        evidence = self.current.weigh(state, index, images, _matters(state, rows))
        if self.current.num_seen >= len(state):
            self._end_pass(state)
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _search(self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages) -> None:
        """Compare with whole grids; of the pose found and the one held before, each class keeps the likelier."""
        plan = plan_search(
            min(self.radius, _SEARCHED_RADIUS),
            base_level=self.base_level,
            num_refinements=self.num_refinements,
            box_size=state.images.box_size,
            shift_extent_px=self.shift_extent_px,
            shift_centre_px=self.shift_centre_px,
            num_kept=self.num_kept,
        )
        found = self.search(plan).search(self.slices, images, self.current.summed, state.classes.log_weight)
        state.classes.log_evidence[rows] = found.log_evidence
        state.classes.log_pose_volume[rows] = _log_pose_volume(found, state.num_classes)
        best = found.best_of_class(state.num_classes)
        if self.num_searches == 0:
            state.poses.set(
                rows, Pose(best.rotation[:, None], (best.shift_px + state.known_shift_px[rows][:, None])[:, None])
            )
            return
        image, class_index = torch.nonzero(_matters(state, rows), as_tuple=True)
        of_pair = rows[image]
        known_shift = state.known_shift_px[of_pair][:, None]
        images_of_pairs = images.rows(image)

        def sharpened(rotation: Tensor, shift_px: Tensor, radius: int, steps: LocalSteps) -> LocalPoses:
            narrow = images_of_pairs.at(self.current.summed.within(radius))
            which = self.current.other_half(state, of_pair, class_index)
            return sharpen_poses(self.halves, narrow, state.band(radius), which, rotation, shift_px, steps)

        rotation, shift_px = best.rotation[image, class_index][:, None], best.shift_px[image, class_index][:, None]
        radius = plan.radii[-1]
        while radius < self.radius:
            nearer = sharpened(rotation, shift_px, radius, self.steps)
            rotation, shift_px, radius = nearer.rotation, nearer.shift_px, widened(radius)
        held = (
            state.poses.rotation[of_pair, :, class_index],
            state.poses.shift_px[of_pair, :, class_index] - known_shift,
        )
        kept = likelier(
            sharpened(rotation, shift_px, self.radius, self.steps), sharpened(*held, self.radius, LocalSteps(count=0))
        )
        state.poses.rotation[of_pair, :, class_index] = kept.rotation
        state.poses.shift_px[of_pair, :, class_index] = kept.shift_px + known_shift

    def _end_pass(self, state: TrainingState) -> None:
        state.maps, halves = self.current.sums.solve_with_halves(self.mask)
        state.noise = self.current.refined_noise(state)
        state.classes.update_weights()
        evidence = float(self.current.evidence) / self.current.num_seen
        self.pass_count += 1
        self.num_searches += self.is_searching
        # Two Fourier pixels beyond what is known: enough to grow, too little to fit noise.
        wider = min(self.last_radius, max(self.radius, min(state.maps.known_radius() + 2, widened(self.radius))))
        has_settled = wider < 1.1 * self.radius and evidence - self.evidence_before < 0.01 * abs(evidence)
        # What a search finds the volume of poses to be worth is not what the last one found.
        self.evidence_before = evidence
        self.is_searching = has_settled and self.num_searches < _NUM_SEARCHES
        self.is_done = self.pass_count >= self.num_passes or (has_settled and not self.is_searching)
        self.radius = wider
        self._begin_pass(state, halves.flatten(0, 1))

    def end(self, state: TrainingState) -> str:
        """Fit the fields to the maps."""
        assert state.maps is not None
        if self.pass_count == 0 and self.current.num_seen:
            self._end_pass(state)
        error = fit_fields(state, find_variation(state))
        state.fields_are_fitted = True
        known = state.maps.known_radius()
        return (
            f"Search: {self.pass_count} passes, maps known to {known} Fourier pixels (halves agree above 0.143, "
            f"shared poses); fields differ from them by {100 * max(error):.0f} % at most."
        )

    def state_dict(self) -> dict[str, Any]:
        """Between passes; a pass that was cut short begins anew, and compares with the maps of all images."""
        return {
            "radius": self.radius,
            "pass_count": self.pass_count,
            "num_searches": self.num_searches,
            "is_searching": self.is_searching,
            "evidence_before": self.evidence_before,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        for name, value in saved.items():
            setattr(self, name, value)


def _matters(state: TrainingState, rows: Int[Tensor, "b"]) -> Bool[Tensor, "b k"]:
    return state.classes.log_posterior(rows) > math.log(_LEAST_PROBABILITY)


def _log_pose_volume(found: Candidates, num_classes: int) -> Float[Tensor, "b k"]:
    """Evidence over all poses less the likelihood at the best one."""
    of_class = found.class_index[:, None, :] == torch.arange(num_classes, device=found.log_mass.device)[:, None]
    has_mass = of_class & found.log_mass[:, None, :].isfinite()
    peak = torch.where(has_mass, found.log_likelihood[:, None, :], -torch.inf).amax(2)
    volume = torch.where(peak.isfinite(), found.log_evidence - peak, torch.inf)
    # A class without candidates: as if its poses were as well known as the best known class's.
    least = volume.amin(1, keepdim=True)
    return torch.where(volume.isfinite(), volume, least)
