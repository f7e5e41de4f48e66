"""The second stage: poses and classes from rough maps, maps from poses and classes, wider each time."""

from collections.abc import Iterator
from typing import Any, Literal

import torch

from cryohydra._typing import Int, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.so3_grid import angular_step, level_for_step
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.inference.selection import sureness
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.training.annealing import RESOLVED, TOLERATED, Annealing, shift_step
from cryohydra.training.course import Course
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.listener import Tell
from cryohydra.training.map_pass import MapPass, widened
from cryohydra.training.parts import Parts, batches_of_parts
from cryohydra.training.search_pass import PILOT, SearchPass, explained_badly, which_matter
from cryohydra.training.solving import maps_of_all, slices_of_all, sums_dealt
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import SURE, TrainingState
from cryohydra.training.ways_out import WaysOut

_BREADTH = 8
"""How many times as many poses an image in doubt keeps."""
SEARCHED_RADIUS = 16
"""In Fourier pixels: what two levels of the default grids resolve."""
_FEW_MOVED = 0.003
"""Part of the particles by which the shares of classes may differ after the pass that ends a search in doubt: a small
class that has just been found grows for long, at no gain that the evidence of all could tell from chance."""
_LEAST_GAIN, _LEAST_GAIN_ON_TRIAL = 0.01, 0.001
"""Part of the evidence that a pass must add for the search to go on; a class in two is told by few of the images."""


def plan_search(
    radius: int,
    *,
    base_level: int,
    num_refinements: int,
    box_size: int,
    shifts: ShiftPrior,
    num_kept: int,
) -> SearchPlan:
    """Levels whose grids keep pace with their bands, up to `radius` Fourier pixels.

    Args:
        num_refinements: Halvings of the first grid, at most; no more are made than the band can tell.
        num_kept: Poses that each image keeps at least; one in doubt keeps _BREADTH times as many.
    """
    # Steps between the points of the last grid do the rest.
    finest = level_for_step(RESOLVED / radius)
    last = max(base_level, min(base_level + num_refinements, finest))
    radii = [min(radius, int(TOLERATED / angular_step(level))) for level in range(base_level, last)]
    return SearchPlan(
        base_level=base_level,
        radii=(*radii, radius),
        shifts=shifts,
        shift_step_px=shift_step(base_level, box_size),
        num_kept=num_kept,
        most_kept=_BREADTH * num_kept,
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
        max_images: int,
        batch_size: int,
        num_passes: int = 32,
        most_trials: int = 0,
        newcomers: Annealing | None = None,
        prunes: bool = False,
        follows_density: bool = True,
    ):
        """Plan the stage.

        Args:
            slices: Cut from the maps, or at every candidate from the network that is fitted to them.
            first_radius: Band of the first pass, in Fourier pixels; the maps' own decide of the next.
            num_passes: At most.
            most_trials, newcomers, prunes: What may lift it out of where it has settled (`WaysOut`).
            follows_density: Whether maps are confined to their own density (`ClassSums.solve`).
        """
        self.search = search
        self.slice_kind = slices
        self.base_level, self.num_refinements = base_level, num_refinements
        self.radius, self.last_radius = first_radius, last_radius
        self.num_kept = num_kept
        self.batch_size = batch_size
        self.max_images = max_images
        self.num_passes = num_passes
        self.follows_density = follows_density
        self.pass_count = 0
        self.course = Course()
        self.ways_out = WaysOut(most_trials, newcomers, prunes)
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Lay the maps on the widest lattice."""
        assert state.maps is not None, "the search starts from maps"
        self.lattice = Lattice(state.images.box_size, self.last_radius)
        state.maps = state.maps.on(self.lattice)
        self.mask = particle_mask(self.lattice, state.device)
        state.fields_are_fitted = False
        self.current: MapPass | None = None
        self.parts: Parts | None = None
        """In a pass that searches while classes are in doubt."""

    def batches(self, state: TrainingState) -> Iterator[Int[Tensor, "b"]]:
        """Every particle once, in random order; where classes are in doubt, one part of them after the other.

        What is explained badly comes last: a pass that has found nothing by then compares whole batches of it with
        grids. Newcomers, where they are due, come between passes and draw their images themselves.
        """
        while self.ways_out.are_newcomers_due:
            yield torch.arange(0)
        if self.goes_by_parts(state):
            yield from batches_of_parts(len(state), self.batch_size, state.generator)
        else:
            order = torch.randperm(len(state), generator=state.generator)
            order = order[explained_badly(state)[order].int().argsort(stable=True)]
            # What the first images find tells whether the others are searched, too.
            first = min(PILOT, self.batch_size)
            yield order[:first]
            yield from (rest for rest in order[first:].split(self.batch_size) if len(rest))

    def goes_by_parts(self, state: TrainingState) -> bool:
        """Whether a pass that begins now compares each part of the particles with maps of the others."""
        return self.course.is_searching and self.slice_kind == "sliced" and self._doubts(state)

    def _doubts(self, state: TrainingState) -> bool:
        """Whether structures are not told well; a trial is judged by maps of the kind that it began with."""
        if self.ways_out.reseeding.is_on_trial:
            return self.course.is_in_doubt
        # What holds noise alone is sure of no class, however well they are told.
        posterior = state.classes.log_posterior().exp()[~state.classes.is_noise()]
        return sureness(posterior) < SURE

    def _begin_pass(self, state: TrainingState) -> MapPass:
        self.course.begin_pass(self._doubts(state))
        num_classes = state.num_classes
        if not self.goes_by_parts(state):
            self.parts = None
        elif self.parts is None:
            self.parts = Parts(self.lattice, num_classes, state.device, self._slicers, self.follows_density)
        steps = LocalSteps(shifts=state.shift_prior.extent_px > 0)
        maps = self._compared(state)
        if not self.course.is_searching:
            return MapPass(state, self.lattice, maps, self.radius, steps)
        return SearchPass(
            state,
            self.lattice,
            maps,
            self.radius,
            steps,
            self._search(state),
            maps.split(num_classes) if isinstance(maps, LatticeSlices) else [maps],
            number=self.pass_count,
            is_in_doubt=self.course.is_in_doubt,
            is_last=self.course.is_last,
            parts=self.parts,
        )

    def _compared(self, state: TrainingState) -> SliceSource:
        if self.slice_kind == "sliced":
            assert state.maps is not None
            return slices_of_all(state.team, self.lattice, state.maps.compared, self._slicers)
        fit_fields(state)
        conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
        return FieldSlices(state.mixture, conformation)

    def _search(self, state: TrainingState) -> PoseSearch:
        plan = plan_search(
            min(self.radius, SEARCHED_RADIUS),
            base_level=self.base_level,
            num_refinements=self.num_refinements,
            box_size=state.images.box_size,
            shifts=state.shift_prior,
            num_kept=self.num_kept,
        )
        return self.search(plan)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Find or sharpen the poses of a batch and add it to the sums, or let newcomers climb."""
        if self.ways_out.are_newcomers_due:
            result, goes_on = self.ways_out.climb(state, self.course.is_in_doubt)
            self.is_done = not goes_on
            return result
        current = self.current = self.current or self._begin_pass(state)
        searches = isinstance(current, SearchPass) and not current.is_in_vain()
        note = f"pass {self.pass_count + 1}, {'searching' if searches else 'sharpening'}, band {self.radius}"
        evidence = current.visit(state, index, which_matter(state, index.to(state.device)))
        if current.num_seen >= len(state):
            self._end_pass(state, current)
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _end_pass(self, state: TrainingState, done: MapPass) -> None:
        reseeding = self.ways_out.reseeding
        solution = sums_dealt(state.team, done.sums).solve(self.mask, follows_density=self.follows_density)
        state.maps = maps_of_all(state.team, solution.with_halves(), state.num_classes)
        shares_before = state.classes.log_weight.exp()
        state.classes.update_weights()
        part_moved = 0.5 * float((state.classes.log_weight.exp() - shares_before).abs().sum())
        evidence = done.mean_evidence(state)
        self.pass_count += 1
        reseeding.keep_if_better(state)
        noise, wider, least_gain = state.noise, self.radius, _LEAST_GAIN_ON_TRIAL
        if not reseeding.is_on_trial:
            noise = done.refined_noise(state)
            # Two Fourier pixels beyond what is known: enough to grow, too little to fit noise.
            wider = min(self.last_radius, max(self.radius, min(state.maps.known_radius() + 2, widened(self.radius))))
            least_gain = _LEAST_GAIN
        gains_little = wider < 1.1 * self.radius and self.course.gain(evidence) < least_gain
        self.course.end_pass(
            evidence,
            was_searching=isinstance(done, SearchPass),
            finds_nothing=isinstance(done, SearchPass) and done.is_in_vain(),
            has_settled=gains_little or reseeding.has_had_its_time,
        )
        self.current = None
        if self.course.is_over and self.ways_out.open(state, self.course.is_in_doubt):
            # A trial is judged in the band and the noise in which it was called for.
            self.course.go_on()
            self.parts = None
        else:
            state.noise, self.radius = noise, wider
        is_still = part_moved < _FEW_MOVED or not self.course.is_in_doubt
        self.is_done = (self.course.is_over and is_still) or self.pass_count >= self.num_passes

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Fit the fields to the maps."""
        assert state.maps is not None
        if self.pass_count == 0 and self.current is not None:
            self._end_pass(state, self.current)
        self.parts = self.current = None
        came_of_it = self.ways_out.end(state)
        state.maps = state.maps.without_halves()
        error = fit_fields(state, find_variation(state, tell), tell=tell)
        state.fields_are_fitted = True
        known = state.maps.known_radius()
        return (
            f"Search: {self.pass_count} passes{came_of_it}, maps known to {known} Fourier pixels (halves agree above "
            f"0.143, shared poses); fields differ from them by {100 * max(error):.0f} % at most."
        )

    def state_dict(self) -> dict[str, Any]:
        """Between passes; a pass that was cut short begins anew."""
        return {
            "radius": self.radius,
            "pass_count": self.pass_count,
            "is_done": self.is_done,
            "course": self.course.state_dict(),
            "ways_out": self.ways_out.state_dict(),
        }

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.radius, self.pass_count, self.is_done = saved["radius"], saved["pass_count"], saved["is_done"]
        self.course = Course(**saved["course"])
        self.ways_out.load_state_dict(state, saved["ways_out"])
