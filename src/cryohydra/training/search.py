"""The second stage: poses and classes from rough maps, maps from poses and classes, wider each time."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch

from cryohydra._typing import Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.geometry.so3_grid import angular_step, level_for_step
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.reconstruction import ClassMaps, particle_mask
from cryohydra.inference.selection import without_the_least_missed
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.training.annealing import RESOLVED, TOLERATED, Annealing, shift_step
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.listener import Tell
from cryohydra.training.map_pass import MapPass, widened
from cryohydra.training.newcomers import Doubted, Newcomers
from cryohydra.training.parts import Parts, batches_of_parts
from cryohydra.training.reseeding import Reseeding
from cryohydra.training.search_pass import SearchPass, which_matter
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import SURE, TrainingState

_BREADTH = 8
"""How many times as many poses an image in doubt keeps."""
_SEARCHED_RADIUS = 16
"""In Fourier pixels: what two levels of the default grids resolve."""
_LEAST_GAIN, _LEAST_GAIN_ON_TRIAL = 0.01, 0.001
"""Part of the evidence that a pass must add for the search to go on; a class in two is told by few of the images."""
_NEEDED = 1.0
"""Nats for each of its images by which a class must be missed to stay when classes are pruned."""
_MOST_CALLS = 2
"""For newcomers; for a second only if the first were of use."""
_SAVED = (
    *("radius", "pass_count", "is_searching", "is_last_search", "is_in_doubt", "evidence_before", "halves"),
    *("is_done", "prunes", "num_pruned", "newcomers_are_due", "kept_before_calls"),
)


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
            prunes: Whether classes that images can do without are taken away in the end.
            newcomers: How maps climb in the place of classes that images can do without (`Newcomers`); None for never.
            most_trials: How often at most a class that is hardly missed is put to better use (`Reseeding`).
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
        self.is_searching = True
        self.is_last_search = False
        """Whether all has settled, and only what went astray is looked for."""
        self.is_in_doubt = False
        """Whether classes are not told well when a pass begins."""
        self.evidence_before = -math.inf
        self.reseeding = Reseeding(most_trials)
        self.plan_of_newcomers = newcomers
        self.newcomers: Newcomers | None = None
        self._newcomers_before: dict[str, Any] | None = None
        """Attempts that were over when the training was stopped."""
        self.newcomers_are_due = False
        self.kept_before_calls: list[int] = []
        """For each call for newcomers, how many trials had been kept by then."""
        self.prunes, self.num_pruned = prunes, 0
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Lay the maps on the widest lattice."""
        assert state.maps is not None, "the search starts from maps"
        self.lattice = Lattice(state.images.box_size, self.last_radius)
        if state.maps.lattice != self.lattice:
            maps = state.maps
            correlation = torch.nn.functional.pad(maps.half_correlation, (0, self.last_radius - maps.lattice.radius))
            state.maps = ClassMaps(self.lattice, enlarge(maps.values, self.lattice), correlation)
        self.mask = particle_mask(self.lattice, state.device)
        state.fields_are_fitted = False
        self.halves = state.maps.values
        self.current: MapPass | None = None
        self.parts: Parts | None = None
        """In a pass that searches while classes are in doubt."""

    def batches(self, state: TrainingState) -> Iterator[Int[Tensor, "b"]]:
        """Every particle once, in random order; where classes are in doubt, one part of them after the other.

        Newcomers, where they are due, come between passes and draw their images themselves.
        """
        while self.newcomers_are_due:
            yield torch.arange(0)
        if self.goes_by_parts(state):
            yield from batches_of_parts(len(state), self.batch_size, state.generator)
        else:
            yield from super().batches(state)

    def goes_by_parts(self, state: TrainingState) -> bool:
        """Whether a pass that begins now compares each part of the particles with maps of the others."""
        return self.is_searching and self.slice_kind == "sliced" and self._doubts(state)

    def _doubts(self, state: TrainingState) -> bool:
        """Whether searches go on until they settle; a trial is judged by maps of the kind that it began with.

        Steps weigh classes by one pose, which loses where the signal is weak.
        """
        if self.reseeding.is_on_trial:
            return self.is_in_doubt
        return float(state.classes.log_posterior().amax(1).exp().mean()) < SURE

    def _begin_pass(self, state: TrainingState) -> MapPass:
        is_in_doubt = self._doubts(state)
        if is_in_doubt != self.is_in_doubt:
            # Maps of most images explain more than those of half of them.
            self.evidence_before = -math.inf
        self.is_in_doubt = is_in_doubt
        num_classes = state.num_classes
        if not self.goes_by_parts(state):
            self.parts = None
        elif self.parts is None:
            self.parts = Parts(self.lattice, num_classes, state.device, self._slicers, self.follows_density)
        steps = LocalSteps(shifts=state.shift_prior.extent_px > 0)
        maps = self._compared(state)
        if not self.is_searching:
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
            is_in_doubt=is_in_doubt,
            is_last=self.is_last_search,
            parts=self.parts,
        )

    def _compared(self, state: TrainingState) -> SliceSource:
        if self.slice_kind == "sliced":
            return LatticeSlices(self.lattice, self.halves, self._slicers)
        fit_fields(state)
        conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
        return FieldSlices(state.mixture, conformation)

    def _search(self, state: TrainingState) -> PoseSearch:
        plan = plan_search(
            min(self.radius, _SEARCHED_RADIUS),
            base_level=self.base_level,
            num_refinements=self.num_refinements,
            box_size=state.images.box_size,
            shifts=state.shift_prior,
            num_kept=self.num_kept,
        )
        return self.search(plan)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Find or sharpen the poses of a batch and add it to the sums, or let newcomers climb."""
        if self.newcomers_are_due:
            return self._raise_newcomers(state)
        current = self.current = self.current or self._begin_pass(state)
        searches = isinstance(current, SearchPass) and not current.is_in_vain()
        note = f"pass {self.pass_count + 1}, {'searching' if searches else 'sharpening'}, band {self.radius}"
        evidence = current.visit(state, index, which_matter(state, index.to(state.device)))
        if current.num_seen >= len(state):
            self._end_pass(state, current)
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _end_pass(self, state: TrainingState, done: MapPass) -> None:
        solution = done.sums.solve(self.mask, follows_density=self.follows_density)
        state.maps, self.halves = solution.maps, solution.halves()
        state.classes.update_weights()
        evidence = float(done.evidence) / done.num_seen
        self.pass_count += 1
        self.reseeding.keep_if_better(state)
        noise, wider, least_gain = state.noise, self.radius, _LEAST_GAIN_ON_TRIAL
        if not self.reseeding.is_on_trial:
            noise = done.refined_noise(state)
            # Two Fourier pixels beyond what is known: enough to grow, too little to fit noise.
            wider = min(self.last_radius, max(self.radius, min(state.maps.known_radius() + 2, widened(self.radius))))
            least_gain = _LEAST_GAIN
        has_settled = wider < 1.1 * self.radius and evidence - self.evidence_before < least_gain * abs(evidence)
        has_settled |= self.reseeding.has_had_its_time
        if isinstance(done, SearchPass):
            finds_nothing = done.is_in_vain() or has_settled
            self.is_done = self.is_last_search and finds_nothing
            if self.is_in_doubt:
                self.is_last_search |= has_settled
            else:
                self.is_searching = not (finds_nothing or self.is_last_search)
        elif has_settled:
            self.is_done = self.is_last_search
            self.is_searching = self.is_last_search = True
        self.evidence_before = evidence
        self.current = None
        if self.is_done and self._has_reason_to_go_on(state):
            # A trial is judged in the band and the noise in which it was called for.
            self._go_on()
        else:
            state.noise, self.radius = noise, wider
        self.is_done |= self.pass_count >= self.num_passes

    def _has_reason_to_go_on(self, state: TrainingState) -> bool:
        """What may lift a search out of where it has settled."""
        self.halves, is_on_trial = self.reseeding.settled(state, self.halves)
        self.newcomers_are_due = not is_on_trial and self._calls_newcomers(state)
        return is_on_trial or self.newcomers_are_due or (self.prunes and self._prune(state))

    def _go_on(self) -> None:
        self.is_done = self.is_last_search = False
        # Where classes are in doubt, steps of poses lose.
        self.is_searching = self.is_in_doubt
        self.evidence_before, self.parts = -math.inf, None

    def _calls_newcomers(self, state: TrainingState) -> bool:
        """Whether classes are in doubt, some can be done without, and newcomers called before were of use."""
        calls = self.kept_before_calls
        were_of_use = not calls or self.reseeding.num_kept > calls[-1]
        may_call = self.plan_of_newcomers is not None and len(calls) < _MOST_CALLS and were_of_use
        return may_call and self.is_in_doubt and Doubted.of(state) is not None

    def _raise_newcomers(self, state: TrainingState) -> StepResult:
        """Let newcomers climb; when they have, put them in the place of classes if their images need them."""
        if self.newcomers is None:
            doubted = Doubted.of(state)
            assert self.plan_of_newcomers is not None and doubted is not None
            self.newcomers = Newcomers(state, self.plan_of_newcomers, doubted, self._newcomers_before)
            self._newcomers_before = None
        newcomers = self.newcomers
        gain, note = newcomers.step(state)
        if newcomers.is_done:
            self.kept_before_calls.append(self.reseeding.num_kept)
            self.newcomers, self.newcomers_are_due, maps = None, False, newcomers.chosen()
            if maps is not None:
                classes, maps = list(newcomers.doubted.classes), enlarge(maps, self.lattice)
                self.halves = self.reseeding.try_out(state, self.halves, classes, maps)
            else:
                self.is_done = not (self.prunes and self._prune(state))
        return StepResult(loss=-gain, note=note)

    def _prune(self, state: TrainingState) -> bool:
        """Take away the classes that images can do without; whether there were any."""
        self.prunes = False
        stays = None if state.seeds is None else state.seeds.is_seeded
        kept = without_the_least_missed(state.classes.log_evidence, 1, _NEEDED, stays)
        self.num_pruned = state.num_classes - len(kept)
        self.halves = self.halves.unflatten(0, (-1, state.num_classes))[:, kept].flatten(0, 1)
        state.keep_classes(kept)
        return self.num_pruned > 0

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Fit the fields to the maps."""
        assert state.maps is not None
        if self.pass_count == 0 and self.current is not None:
            self._end_pass(state, self.current)
        self.parts = self.current = self.newcomers = None
        self.halves = self.reseeding.ended(state, self.halves)
        # A search that its bound ended, not what it found, has pruned nothing yet.
        if self.prunes and self._prune(state):
            state.classes.update_weights()
        error = fit_fields(state, find_variation(state, tell), tell=tell)
        state.fields_are_fitted = True
        known = state.maps.known_radius()
        num_kept = self.reseeding.num_kept
        reseeded = f", {num_kept} of the trials with other maps kept" if num_kept else ""
        pruned = f", {self.num_pruned} classes that images can do without taken away" if self.num_pruned else ""
        return (
            f"Search: {self.pass_count} passes{reseeded}{pruned}, maps known to {known} Fourier pixels (halves agree "
            f"above 0.143, shared poses); fields differ from them by {100 * max(error):.0f} % at most."
        )

    def state_dict(self) -> dict[str, Any]:
        """Between passes; a pass or an attempt of newcomers that was cut short begins anew."""
        newcomers = None if self.newcomers is None else self.newcomers.state_dict()
        saved = {name: getattr(self, name) for name in _SAVED}
        return saved | {"reseeding": self.reseeding.state_dict(), "newcomers": newcomers}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.reseeding.load_state_dict(saved["reseeding"])
        self._newcomers_before = saved["newcomers"]
        for name in _SAVED:
            setattr(self, name, saved[name])
