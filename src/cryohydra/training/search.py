"""The second stage: poses and classes from rough maps, maps from poses and classes, wider each time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.geometry.so3_grid import angular_step, level_for_step
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.evidence import carry_shares
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalSteps, likelier
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.reconstruction import ClassMaps, half_of, particle_mask
from cryohydra.inference.selection import without_the_least_missed
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.annealing import RESOLVED, TOLERATED, Annealing, shift_step
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.listener import Tell
from cryohydra.training.map_pass import MapPass, Pairs, hold_poses, poses_held, widened
from cryohydra.training.newcomers import Doubted, Newcomers
from cryohydra.training.parts import Parts, batches_of_parts
from cryohydra.training.reseeding import Reseeding
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_BREADTH = 8
"""How many times as many poses an image in doubt keeps."""
_SEARCHED_RADIUS = 16
"""In Fourier pixels: what two levels of the default grids resolve."""
_SAME_POSE = 2.0
"""Steps of the last grid within which poses count as the best one's."""
_MOST_POSES = 32
"""Of each image, beside the best ones, that are added to the sums."""
_LEAST_WEIGHT = 1e-20
_STEPPED_RADIUS = 10
"""Where steps from the points of the last grid begin; from there they reach the wider band."""
PILOT = 500
"""Images of a later search after which it goes on only if it found enough."""
_FEW_CHANGES, _FEWEST_CHANGES = 0.1, 0.01
_LITTLE_FOUND = 0.005
"""Part of the images searched that found another class, while the band grows and at the end, and part of their evidence
that other poses add: below both, steps do better than searches, or nothing is left to find. Where many poses are nearly
as good as the best, as in a pseudosymmetric complex, images move between them for ever: how many move tells nothing,
what they gain does."""
_SURE = 0.95
"""Mean probability of the images' likeliest classes below which searches go on until they settle: steps weigh classes
by one pose, which loses where the signal is weak."""
_CLEAR_GAIN = 2.0
"""In log likelihood: less is what a few more steps would give as well, or no reason to change class."""
_LEAST_GAIN, _LEAST_GAIN_ON_TRIAL = 0.01, 0.001
"""Part of the evidence that a pass must add for the search to go on; a class in two is told by few of the images."""
_NEEDED = 1.0
"""Nats for each of its images by which a class must be missed to stay when classes are pruned."""
_MOST_CALLS = 2
"""For newcomers; for a second only if the first were of use."""
_LEAST_PROBABILITY = 1e-3
"""Classes less probable than this for an image are passed over until all is searched anew."""
PASSES_OVER_ALL_CLASSES = 2
"""Then classes have formed, and images are compared with those that matter to them; in the last search with all of them
again, as long as that changes something."""

_SAVED = (
    *("radius", "pass_count", "is_searching", "is_last_search", "is_in_doubt", "evidence_before", "halves"),
    *("prunes", "num_pruned", "newcomers_are_due", "kept_before_calls"),
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


@dataclass
class _Changes:
    """What comparing images of a pass with whole grids has come to."""

    num_images: int = 0
    num_regrouped: int = 0
    """Images in another class than before."""
    gain: float = 0.0
    """In log likelihood, by poses far from those held before, where it is clear."""
    evidence: float = 0.0
    """Over that of noise alone, of all these images."""

    def add(self, is_regrouped: Bool[Tensor, "b"], gain: Float[Tensor, "b"], evidence: Float[Tensor, "b"]) -> None:
        """Count some images."""
        regrouped, gained, explained = torch.stack([is_regrouped.sum(), gain.sum(), evidence.sum()]).tolist()
        self.num_images += len(gain)
        self.num_regrouped += int(regrouped)
        self.gain += gained
        self.evidence += explained

    def is_less_than(self, regrouped: float, gained: float) -> bool:
        """Whether a smaller part of the images changed class, and poses added a smaller part of the evidence."""
        return self.num_regrouped < regrouped * self.num_images and self.gain < gained * abs(self.evidence)


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
        most_trials: int = 3,
        newcomers: Annealing | None = None,
        prunes: bool = False,
        particle_radius: float = 0.45,
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
        self.particle_radius, self.follows_density = particle_radius, follows_density
        self.pass_count = 0
        self.changes = _Changes()
        self.is_searching = True
        self.is_last_search = False
        """Whether all has settled, and only what went astray is looked for."""
        self.is_in_doubt = False
        """Whether classes are not told well when a pass begins."""
        self.evidence_before = -math.inf
        self.reseeding = Reseeding(most_trials)
        self.plan_of_newcomers = newcomers
        self.newcomers: Newcomers | None = None
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
            values, weight = enlarge(maps.values, self.lattice), enlarge(maps.weight, self.lattice)
            state.maps = ClassMaps(self.lattice, values, weight, correlation)
        self.mask = particle_mask(self.lattice, self.particle_radius, state.device)
        state.fields_are_fitted = False
        self.halves = state.maps.values
        self.current: MapPass | None = None
        self.parts: Parts | None = None
        """In a pass that searches while classes are in doubt."""

    def _slices_of_maps(self) -> LatticeSlices:
        return LatticeSlices(self.lattice, self.halves, self._slicers)

    def _slices_of_halves(self, state: TrainingState) -> list[SliceSource]:
        """Of the maps of each half, or of the only ones there are."""
        return [LatticeSlices(self.lattice, half, self._slicers) for half in self.halves.split(state.num_classes)]

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
        """Whether classes are not told well; a trial is judged by maps of the kind that it began with."""
        if self.reseeding.is_on_trial:
            return self.is_in_doubt
        return float(state.classes.log_posterior().amax(1).exp().mean()) < _SURE

    def _begin_pass(self, state: TrainingState) -> MapPass:
        is_in_doubt = self._doubts(state)
        if is_in_doubt != self.is_in_doubt:
            # Maps of most images explain more than those of half of them.
            self.evidence_before = -math.inf
        self.is_in_doubt = is_in_doubt
        if not self.goes_by_parts(state):
            self.parts = None
        elif self.parts is None:
            self.parts = Parts(self.lattice, state.num_classes, state.device)
        compared: SliceSource = self._slices_of_maps()
        if self.slice_kind == "exact":
            fit_fields(state)
            conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
            compared = FieldSlices(state.mixture, conformation)
        if self.is_searching:
            self.slices = [compared] if self.slice_kind == "exact" else self._slices_of_halves(state)
            self.plan = plan_search(
                min(self.radius, _SEARCHED_RADIUS),
                base_level=self.base_level,
                num_refinements=self.num_refinements,
                box_size=state.images.box_size,
                shifts=state.shift_prior,
                num_kept=self.num_kept,
            )
        steps, sums = LocalSteps(shifts=state.shift_prior.extent_px > 0), self.parts.sums if self.parts else None
        return MapPass(state, self.lattice, compared, self.radius, steps, sums)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Find or sharpen the poses of a batch and add it to the sums, or let newcomers climb."""
        if self.newcomers_are_due:
            return self._raise_newcomers(state)
        current = self.current = self.current or self._begin_pass(state)
        searches = self.is_searching and not self._search_is_in_vain()
        note = f"pass {self.pass_count + 1}, {'searching' if searches else 'sharpening'}, band {self.radius}"
        if searches:
            if self.parts is not None:
                self._turn_to(state, current, self.parts, index)
            half = half_of(index) % len(self.slices)
            evidence = torch.cat([self._find(state, index[half == h], current, h) for h in (0, 1) if h in half])
        else:
            images = state.weighted(index, current.summed)
            rows = index.to(state.device)
            evidence = current.weigh(state, index, images, _matters(state, rows))
            current.add(state, rows, images, state.classes.log_posterior(rows).exp())
        if current.num_seen >= len(state):
            self._end_pass(state, current)
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _turn_to(self, state: TrainingState, current: MapPass, parts: Parts, index: Int[Tensor, "b"]) -> None:
        """Compare a part of the particles with the maps of all others, once there are enough of them."""
        if parts.turn_to(index):
            # Only what is compared is needed.
            others = parts.maps_of_others(current.compared.radius, self.particle_radius, self.follows_density)
            if others is not None:
                compared = LatticeSlices(self.lattice, others, self._slicers)
                current.halves, self.slices = compared, [compared]

    def _find(self, state: TrainingState, index: Int[Tensor, "b"], current: MapPass, half: int) -> Float[Tensor, "b"]:
        """Search the poses of images that meet the same maps, weigh their classes and add them where they may lie."""
        rows, images = index.to(state.device), state.weighted(index, current.summed)
        class_before = state.classes.log_posterior(rows).argmax(1)
        found, gain = self._search(state, rows, images, current, half)
        evidence = current.weigh_by(state, index, images, _matters(state, rows), found.log_evidence)
        now = state.classes.log_posterior(rows)
        is_other = now.amax(1) > now.gather(1, class_before[:, None])[:, 0] + _CLEAR_GAIN
        self.changes.add(is_other, gain, evidence)
        near = self._add_elsewhere(state, rows, images, current, found)
        current.add(state, rows, images, near * now.exp())
        return evidence

    def _search_is_in_vain(self) -> bool:
        """Whether the images searched in this pass, a random part of all, tell that the rest are where they belong."""
        few = _FEWEST_CHANGES if self.is_last_search else _FEW_CHANGES
        is_pilot_done = self.changes.num_images >= PILOT and not self.is_in_doubt
        return is_pilot_done and self.changes.is_less_than(few, _LITTLE_FOUND)

    def _classes_may_change(self) -> bool:
        """Whether the images searched in this pass do not tell yet that the rest have the classes that they had."""
        few = _FEWEST_CHANGES * self.changes.num_images
        return self.changes.num_images < PILOT or self.changes.num_regrouped >= few

    def _search(
        self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages, current: MapPass, half: int
    ) -> tuple[Candidates, Float[Tensor, "b"]]:
        """Compare with whole grids; of the pose found and the one held before, a class that matters keeps the likelier.

        Images meet maps that they are no part of: of the other half, or of all other parts.

        Returns:
            What the grids tell, and the log likelihood that images gain by quite other poses, if they do clearly.
        """
        slices, log_weight = self.slices[(1 - half) % len(self.slices)], state.classes.log_weight
        matters = _matters(state, rows)
        asks_all = self.pass_count < PASSES_OVER_ALL_CLASSES or (self.is_last_search and self._classes_may_change())
        is_asked = torch.ones_like(matters) if asks_all else matters
        found = self.search(self.plan).search(
            slices, images, current.summed, log_weight, None if asks_all else is_asked
        )
        carried = carry_shares(found.log_evidence, state.classes.log_evidence[rows], is_asked, log_weight)
        found = replace(found, log_evidence=carried)
        state.classes.log_evidence[rows] = carried
        volume = _log_pose_volume(found, state.num_classes)
        state.classes.log_pose_volume[rows] = torch.where(is_asked, volume, state.classes.log_pose_volume[rows])
        pairs = Pairs.of(rows, _matters(state, rows))
        held = poses_held(state, pairs)
        best = found.best_of_class(state.num_classes)
        shift_px = best.shift_px + state.known_shift_px[rows][:, None]
        before = state.poses.pose(rows)
        rotation = torch.where(is_asked[:, None, :, None, None], best.rotation[:, None], before.rotation)
        shift_px = torch.where(is_asked[:, None, :, None], shift_px[:, None], before.shift_px)
        state.poses.set(rows, Pose(rotation, shift_px))
        if self.pass_count == 0:
            return found, torch.full((len(rows),), torch.inf, device=rows.device)
        anew, radius = poses_held(state, pairs), min(_STEPPED_RADIUS, self.radius)
        while radius < self.radius:
            nearer = current.sharpen(state, images, pairs, *anew, state.band(radius), current.steps)
            anew, radius = (nearer.rotation, nearer.shift_px), widened(radius)
        found_anew = current.sharpen(state, images, pairs, *anew, current.compared, current.steps)
        found_before = current.sharpen(state, images, pairs, *held, current.compared, LocalSteps(count=0))
        hold_poses(state, pairs, likelier(found_anew, found_before))
        gain = found_anew.log_likelihood - found_before.log_likelihood
        weight = state.classes.log_posterior(rows).exp()[pairs.image, pairs.class_index]
        clear = torch.where(gain > _CLEAR_GAIN, weight * gain, 0.0)
        return found, gain.new_zeros(len(rows)).index_add_(0, pairs.image, clear)

    def _add_elsewhere(
        self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages, current: MapPass, found: Candidates
    ) -> Float[Tensor, "b k"]:
        """Add images in doubt of their pose at the likely ones far from the best.

        Returns:
            Part of the posterior of each class that lies near the best pose, which stands for it.
        """
        share = found.share_of_class(state.num_classes)
        best = state.poses.rotation[rows, 0].take_along_dim(found.class_index[:, :, None, None], 1)
        reach = _SAME_POSE * angular_step(self.plan.base_level + len(self.plan.radii) - 1)
        is_near = geodesic_angle(found.rotation, best) < reach
        posterior = state.classes.log_posterior(rows).exp().gather(1, found.class_index)
        elsewhere = torch.where(is_near, 0.0, share)
        weight = posterior * elsewhere
        total = weight.sum(1, keepdim=True)
        weight, chosen = weight.topk(min(_MOST_POSES, share.shape[1]), dim=1)
        # The heaviest stand for all.
        weight = weight * (total / weight.sum(1, keepdim=True).clamp(min=_LEAST_WEIGHT))
        current.add_at(
            state,
            rows,
            images,
            weight,
            found.class_index.gather(1, chosen),
            found.rotation.take_along_dim(chosen[:, :, None, None], 1)[:, :, None],
            found.shift_px.take_along_dim(chosen[:, :, None], 1)[:, :, None],
        )
        return 1 - torch.zeros_like(state.classes.log_evidence[rows]).scatter_add_(1, found.class_index, elsewhere)

    def _end_pass(self, state: TrainingState, done: MapPass) -> None:
        state.maps, halves = done.sums.solve(self.mask, follows_density=self.follows_density)
        self.halves = halves.flatten(0, 1)
        state.classes.update_weights()
        evidence = float(done.evidence) / done.num_seen
        self.pass_count += 1
        self.reseeding.keep_if_better(state)
        wider, least_gain = self.radius, _LEAST_GAIN_ON_TRIAL
        # A trial is judged in the band and noise that it began with.
        if not self.reseeding.is_on_trial:
            state.noise = done.refined_noise(state)
            # Two Fourier pixels beyond what is known: enough to grow, too little to fit noise.
            wider = min(self.last_radius, max(self.radius, min(state.maps.known_radius() + 2, widened(self.radius))))
            least_gain = _LEAST_GAIN
        has_settled = wider < 1.1 * self.radius and evidence - self.evidence_before < least_gain * abs(evidence)
        if self.is_searching:
            is_in_vain = self._search_is_in_vain()
            self.is_done = self.is_last_search and (is_in_vain or has_settled)
            if self.is_in_doubt:
                self.is_last_search |= has_settled
            else:
                self.is_searching = not (is_in_vain or has_settled or self.is_last_search)
        elif has_settled:
            self.is_done = self.is_last_search
            self.is_searching = self.is_last_search = True
        self.evidence_before = evidence
        self.radius = wider
        self.current = None
        self.changes = _Changes()
        if self.is_done and self._has_reason_to_go_on(state):
            self._go_on()
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
            self.newcomers = Newcomers(state, self.plan_of_newcomers, doubted)
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
        kept = without_the_least_missed(state.classes.log_evidence, 1, _NEEDED, stays).kept
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
        """Between passes; a pass that was cut short begins anew."""
        return {name: getattr(self, name) for name in _SAVED} | {"reseeding": self.reseeding.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.reseeding.load_state_dict(saved["reseeding"])
        for name in _SAVED:
            setattr(self, name, saved[name])


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
