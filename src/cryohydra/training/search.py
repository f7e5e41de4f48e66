"""The second stage: poses and classes from rough maps, maps from poses and classes, wider each time."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.geometry.so3_grid import angular_step, level_for_step
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalSteps, likelier
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.reconstruction import ClassMaps, particle_mask
from cryohydra.inference.shift_reach import mean_square_shift, reach_of_shifts
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.ab_initio import RESOLVED
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.map_pass import MapPass, Pairs, hold_poses, poses_held, widened
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_FINEST = 1.5
"""The last grid's step is at most _FINEST / radius radians: steps between its points do the rest."""
_NUM_SEARCHES = 2
"""Passes that search all poses: in rough maps, and once more in those that came of it, for what went astray."""
_SEARCHED_RADIUS = 10
"""In Fourier pixels: what two levels of the default grids resolve. Steps from there reach the wider band."""
_PILOT = 500
"""Images of a later search after which it goes on only if enough of them changed."""
_FEW_CHANGES = 0.01
"""Part of the images searched that found another class or pose: below it a search is in vain."""
_CLEAR_GAIN = 2.0
"""In log likelihood: less is what a few more steps would give as well."""
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
        self.num_searched, self.num_changed = 0, 0
        """Images of this pass that were compared with whole grids, and those of them that it moved."""
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
        self.halves = state.maps.values
        self.current: MapPass | None = None

    def _begin_pass(self, state: TrainingState) -> MapPass:
        compared: SliceSource = LatticeSlices(self.lattice, self.halves, self._slicers)
        if self.slice_kind == "exact":
            fit_fields(state)
            conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
            compared = FieldSlices(state.mixture, conformation)
        if self.is_searching:
            assert state.maps is not None
            is_sliced = self.slice_kind == "sliced"
            self.slices = LatticeSlices(self.lattice, state.maps.values, self._slicers) if is_sliced else compared
            self.plan = self._plan(state)
        return MapPass(state, self.lattice, compared, self.radius, LocalSteps(shifts=self.shift_extent_px > 0))

    def _plan(self, state: TrainingState) -> SearchPlan:
        """Grids for the band, over shifts as wide as they were found."""
        plan = plan_search(
            min(self.radius, _SEARCHED_RADIUS),
            base_level=self.base_level,
            num_refinements=self.num_refinements,
            box_size=state.images.box_size,
            shift_extent_px=self.shift_extent_px,
            shift_centre_px=self.shift_centre_px,
            num_kept=self.num_kept,
        )
        rows = torch.arange(len(state), device=state.device)
        _, shift_px = poses_held(state, Pairs(rows, rows, state.classes.log_posterior().argmax(1)))
        mean_square = float(mean_square_shift(shift_px, self.shift_centre_px))
        return replace(plan, shift_extent_px=reach_of_shifts(mean_square, plan.shift_step_px, self.shift_extent_px))

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Find or sharpen the poses of a batch and add it to the sums."""
        note = f"pass {self.pass_count + 1}, {'searching' if self.is_searching else 'sharpening'}, band {self.radius}"
        rows = index.to(state.device)
        current = self.current = self.current or self._begin_pass(state)
        images = state.weighted(index, current.summed)
        searches = self.is_searching and not self._search_is_in_vain()
        class_before = state.classes.log_posterior(rows).argmax(1)
        has_moved = torch.zeros_like(class_before, dtype=torch.bool)
        if searches:
            has_moved = self._search(state, rows, images, current)
        evidence = current.weigh(state, index, images, _matters(state, rows))
        if searches:
            self.num_searched += len(rows)
            self.num_changed += int((has_moved | (state.classes.log_posterior(rows).argmax(1) != class_before)).sum())
        if current.num_seen >= len(state):
            self._end_pass(state, current)
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _search_is_in_vain(self) -> bool:
        """Whether the images searched in this pass, a random part of all, tell that the rest are where they belong."""
        return self.num_searched >= _PILOT and self.num_changed < _FEW_CHANGES * self.num_searched

    def _search(
        self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages, current: MapPass
    ) -> Bool[Tensor, "b"]:
        """Compare with whole grids; of the pose found and the one held before, a class that matters keeps the likelier.

        Grids are compared with the maps of all images: the one held is then judged by the other half's.

        Returns:
            Which images were found in quite another pose, in any class that matters to them.
        """
        plan = self.plan
        found = self.search(plan).search(self.slices, images, current.summed, state.classes.log_weight)
        state.classes.log_evidence[rows] = found.log_evidence
        state.classes.log_pose_volume[rows] = _log_pose_volume(found, state.num_classes)
        pairs = Pairs.of(rows, _matters(state, rows))
        held = poses_held(state, pairs)
        best = found.best_of_class(state.num_classes)
        shift = best.shift_px + state.known_shift_px[rows][:, None]
        state.poses.set(rows, Pose(best.rotation[:, None], shift[:, None]))
        if self.num_searches == 0:
            return torch.ones_like(rows, dtype=torch.bool)
        anew, radius = poses_held(state, pairs), plan.radii[-1]
        while radius < self.radius:
            nearer = current.sharpen(state, images, pairs, *anew, state.band(radius), current.steps)
            anew, radius = (nearer.rotation, nearer.shift_px), widened(radius)
        found_anew = current.sharpen(state, images, pairs, *anew, current.compared, current.steps)
        found_before = current.sharpen(state, images, pairs, *held, current.compared, LocalSteps(count=0))
        hold_poses(state, pairs, likelier(found_anew, found_before))
        has_moved = found_anew.log_likelihood > found_before.log_likelihood + _CLEAR_GAIN
        return torch.zeros_like(rows, dtype=torch.bool).index_put((pairs.image,), has_moved, accumulate=True)

    def _end_pass(self, state: TrainingState, done: MapPass) -> None:
        state.maps, halves = done.sums.solve(self.mask)
        self.halves = halves.flatten(0, 1)
        state.noise = done.refined_noise(state)
        state.classes.update_weights()
        evidence = float(done.evidence) / done.num_seen
        self.pass_count += 1
        self.num_searches += self.is_searching
        # Two Fourier pixels beyond what is known: enough to grow, too little to fit noise.
        wider = min(self.last_radius, max(self.radius, min(state.maps.known_radius() + 2, widened(self.radius))))
        has_settled = wider < 1.1 * self.radius and evidence - self.evidence_before < 0.01 * abs(evidence)
        # A search weighs the volume of poses anew: no evidence before it can be compared with those after it.
        has_settled &= not self.is_searching
        self.evidence_before = evidence
        self.is_searching = has_settled and self.num_searches < _NUM_SEARCHES
        self.is_done = self.pass_count >= self.num_passes or (has_settled and not self.is_searching)
        self.radius = wider
        self.current = None
        self.num_searched, self.num_changed = 0, 0

    def end(self, state: TrainingState) -> str:
        """Fit the fields to the maps."""
        assert state.maps is not None
        if self.pass_count == 0 and self.current is not None:
            self._end_pass(state, self.current)
        error = fit_fields(state, find_variation(state))
        state.fields_are_fitted = True
        known = state.maps.known_radius()
        return (
            f"Search: {self.pass_count} passes, maps known to {known} Fourier pixels (halves agree above 0.143, "
            f"shared poses); fields differ from them by {100 * max(error):.0f} % at most."
        )

    def state_dict(self) -> dict[str, Any]:
        """Between passes; a pass that was cut short begins anew."""
        return {
            "radius": self.radius,
            "pass_count": self.pass_count,
            "num_searches": self.num_searches,
            "is_searching": self.is_searching,
            "evidence_before": self.evidence_before,
            "halves": self.halves,
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
