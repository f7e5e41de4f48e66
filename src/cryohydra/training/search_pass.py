"""One visit to every image that compares it with whole grids of poses, as long as that finds something."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.geometry.so3_grid import CHILDREN_PER_ROTATION, angular_step
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.evidence import carry_shares
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.local_search import LocalSteps, likelier
from cryohydra.inference.partition import half_of
from cryohydra.inference.pose_search.base import PoseSearch
from cryohydra.inference.slices import LatticeSlices, SliceSource
from cryohydra.physics.pose import Pose
from cryohydra.training.map_pass import MapPass, Pairs, hold_poses, poses_held, widened
from cryohydra.training.parts import NUM_PARTS, Parts
from cryohydra.training.solving import cut_ahead
from cryohydra.training.state import TrainingState
from cryohydra.training.team import ALONE, Team

PASSES_OVER_ALL_CLASSES = 2
"""Then classes have formed, and images are compared with those that matter to them; in the last search with all of them
again, as long as that changes something."""
_LEAST_PROBABILITY = 1e-3
"""Classes less probable than this for an image are passed over until all is searched anew."""
_WORST = 0.05
"""Part of the images of each class, those that it explains worst, which every pass compares with whole grids of all
classes: an image that was in no pose of its own class when others were passed over stays in another for ever."""
_SAME_POSE = 2.0
"""Steps of the last grid within which poses count as the best one's."""
_MOST_POSES, _LEAST_SHARE = 8, 0.01
"""Of each image, beside the best ones, that are added to the sums, and what each holds at least of the heaviest."""
_LEAST_WEIGHT = 1e-20
_USUALLY_KEPT = 2
"""How many times as many poses of the first grid an image keeps as it keeps at least."""
_STEPPED_RADIUS = 10
"""Where steps from the points of the last grid begin; from there they reach the wider band."""
PILOT = 512
"""Images of a later search after which it goes on only if it found enough."""
_FEW_CHANGES, _FEWEST_CHANGES = 0.1, 0.01
_LITTLE_FOUND = 0.005
"""Part of the images searched that found another class, while the band grows and at the end, and part of their evidence
that other poses add: below both, steps do better than searches, or nothing is left to find. Where many poses are nearly
as good as the best, as in a pseudosymmetric complex, images move between them for ever: how many move tells nothing,
what they gain does."""
_CLEAR_GAIN = 2.0
"""In log likelihood: less is what a few more steps would give as well, or no reason to change class."""


@dataclass
class Changes:
    """What comparing images of a pass with whole grids has come to."""

    num_images: int = 0
    num_regrouped: int = 0
    """Images in another class than before."""
    gain: float = 0.0
    """In log likelihood, by poses far from those held before, where it is clear."""
    evidence: float = 0.0
    """Over that of noise alone, of all these images."""

    def add(
        self,
        is_regrouped: Bool[Tensor, "b"],
        gain: Float[Tensor, "b"],
        evidence: Float[Tensor, "b"],
        team: Team = ALONE,
    ) -> None:
        """Count some images of each member of a team."""
        number = torch.full_like(gain.sum(), len(gain))
        told = team.sum(torch.stack([number, is_regrouped.sum(), gain.sum(), evidence.sum()]))
        num_images, regrouped, gained, explained = told.tolist()
        self.num_images += int(num_images)
        self.num_regrouped += int(regrouped)
        self.gain += gained
        self.evidence += explained

    def is_less_than(self, regrouped: float, gained: float) -> bool:
        """Whether a smaller part of the images changed class, and poses added a smaller part of the evidence."""
        return self.num_regrouped < regrouped * self.num_images and self.gain < gained * abs(self.evidence)


class SearchPass(MapPass):
    """One visit to every image: poses and classes from whole grids, then steps; only steps once grids find nothing."""

    def __init__(
        self,
        state: TrainingState,
        lattice: Lattice,
        maps: SliceSource,
        radius: int,
        steps: LocalSteps,
        search: PoseSearch,
        of_halves: Sequence[SliceSource],
        *,
        number: int,
        is_in_doubt: bool,
        is_last: bool,
        parts: Parts | None,
    ):
        """Begin.

        Args:
            maps: As for any pass.
            of_halves: The same, those of the first half and those of the second; or the only ones there are.
            number: Of this pass, from 0.
            is_in_doubt: Whether it goes on whatever it finds.
            is_last: Whether only what went astray is looked for.
            parts: Into which the particles go, each to be compared with maps of all others once there are enough.
        """
        super().__init__(state, lattice, maps, radius, steps, parts.sums if parts else None)
        self.search, self.of_halves = search, of_halves
        self.number, self.is_in_doubt, self.is_last, self.parts = number, is_in_doubt, is_last, parts
        self.is_explained_badly = explained_badly(state)
        self.changes = Changes()
        num_images = len(state) if is_in_doubt else min(len(state), PILOT)
        for maps_of_half in of_halves:
            self._get_ready(state, maps_of_half, num_images // len(of_halves))

    def _get_ready(self, state: TrainingState, maps: SliceSource, num_images: int) -> None:
        """Cut the second grid, if so many images are likely to ask for as much."""
        plan = self.search.plan
        if isinstance(maps, LatticeSlices) and len(plan.radii) > 1:
            num_asked = num_images * _USUALLY_KEPT * plan.num_kept * CHILDREN_PER_ROTATION
            cut_ahead(state.team, maps, state.band(plan.radii[1]), plan.base_level + 1, num_asked)

    def is_in_vain(self) -> bool:
        """Whether the images searched so far, a random part of all, tell that most others are where they belong."""
        few = _FEWEST_CHANGES if self.is_last else _FEW_CHANGES
        is_pilot_done = self.changes.num_images >= PILOT and not self.is_in_doubt
        return is_pilot_done and self.changes.is_less_than(few, _LITTLE_FOUND)

    def visit(self, state: TrainingState, index: Int[Tensor, "b"], matters: Bool[Tensor, "b k"]) -> Float[Tensor, "b"]:
        """Compare images with whole grids as long as that finds something, and add them where they may lie."""
        if self.parts is not None and self.parts.turn_to(index):
            others = self.parts.maps_of_others(self.compared.radius, state.team)
            if others is not None:
                self.maps, self.of_halves = others, [others]
                self._get_ready(state, others, len(state) // NUM_PARTS)
        return super().visit(state, index, matters)

    def _visit_share(
        self, state: TrainingState, index: Int[Tensor, "m"], matters: Bool[Tensor, "m k"]
    ) -> Float[Tensor, "m"]:
        if not self.is_in_vain():
            return self._over_grids(state, index, matters)
        evidence = torch.empty(len(index), device=state.device)
        badly = self.is_explained_badly[index]
        for is_some, visit in ((badly, self._over_grids), (~badly, super()._visit_share)):
            some = torch.nonzero(is_some)[:, 0]
            if len(some):
                rows = some.to(state.device)
                evidence[rows] = visit(state, index[some], matters[rows])
        return evidence

    def _over_grids(
        self, state: TrainingState, index: Int[Tensor, "b"], matters: Bool[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Compare images with whole grids of the maps that they are no part of."""
        half = half_of(index) % len(self.of_halves)
        evidence = torch.empty(len(index), device=state.device)
        gain, is_other = torch.empty_like(evidence), torch.empty_like(evidence, dtype=torch.bool)
        for h in range(len(self.of_halves)):
            some = torch.nonzero(half == h)[:, 0]
            rows = some.to(state.device)
            if len(some):
                evidence[rows], gain[rows], is_other[rows] = self._find(state, index[some], matters[rows], h)
            if not self.is_in_vain():
                self.changes.add(is_other[rows], gain[rows], evidence[rows], state.team)
        return evidence

    def _find(
        self, state: TrainingState, index: Int[Tensor, "b"], matters: Bool[Tensor, "b k"], half: int
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"], Bool[Tensor, "b"]]:
        """Search the poses of images that meet the same maps, weigh their classes and add them where they may lie.

        Returns:
            Their evidence, what they gain by quite other poses, and whether they are in another class than before.
        """
        rows, images = index.to(state.device), state.weighted(index, self.summed)
        class_before = state.classes.log_posterior(rows).argmax(1)
        is_asked = matters | self._asks_all() | self.is_explained_badly[index].to(state.device)[:, None]
        found = self._compare(state, rows, images, is_asked, half)
        gain = self._hold_likelier(state, rows, images, is_asked, found)
        evidence = self.weigh_by(state, index, images, which_matter(state, rows), found.log_evidence)
        now = state.classes.log_posterior(rows)
        is_other = now.amax(1) > now.gather(1, class_before[:, None])[:, 0] + _CLEAR_GAIN
        near = self._add_elsewhere(state, rows, images, found)
        self.add(state, rows, images, near * now.exp())
        return evidence, gain, is_other

    def _asks_all(self) -> bool:
        """Whether images are compared with all classes, not only with those that matter to them."""
        return self.number < PASSES_OVER_ALL_CLASSES or (self.is_last and self._classes_may_change())

    def _classes_may_change(self) -> bool:
        """Whether the images searched in this pass do not tell yet that the rest have the classes that they had."""
        few = _FEWEST_CHANGES * self.changes.num_images
        return self.changes.num_images < PILOT or self.changes.num_regrouped >= few

    def _compare(
        self,
        state: TrainingState,
        rows: Int[Tensor, "b"],
        images: WeightedImages,
        is_asked: Bool[Tensor, "b k"],
        half: int,
    ) -> Candidates:
        """What grids tell; images meet maps that they are no part of: of the other half, or of all other parts."""
        maps, log_weight = self.of_halves[(1 - half) % len(self.of_halves)], state.classes.log_weight
        asked = None if self._asks_all() else is_asked
        found = self.search.search(maps, images, self.summed, log_weight, asked)
        carried = carry_shares(found.log_evidence, state.classes.log_evidence[rows], is_asked, log_weight)
        return replace(found, log_evidence=carried)

    def _hold_likelier(
        self,
        state: TrainingState,
        rows: Int[Tensor, "b"],
        images: WeightedImages,
        is_asked: Bool[Tensor, "b k"],
        found: Candidates,
    ) -> Float[Tensor, "b"]:
        """Of the pose found and the one held before, a class that matters keeps the likelier; the first found, always.

        Returns:
            The log likelihood that images gain by quite other poses, if they do clearly.
        """
        classes = state.classes
        classes.log_evidence[rows] = found.log_evidence
        volume = _log_pose_volume(found, state.num_classes)
        classes.log_pose_volume[rows] = torch.where(is_asked, volume, classes.log_pose_volume[rows])
        pairs = Pairs.of(rows, which_matter(state, rows))
        held = poses_held(state, pairs)
        best = found.best_of_class(state.num_classes)
        shift_px = best.shift_px + state.known_shift_px[rows][:, None]
        before = state.poses.pose(rows)
        rotation = torch.where(is_asked[:, None, :, None, None], best.rotation[:, None], before.rotation)
        shift_px = torch.where(is_asked[:, None, :, None], shift_px[:, None], before.shift_px)
        state.poses.set(rows, Pose(rotation, shift_px))
        if self.number == 0:
            return torch.full((len(rows),), torch.inf, device=rows.device)
        widest = self.compared.radius
        anew, radius = poses_held(state, pairs), min(_STEPPED_RADIUS, widest)
        while radius < widest:
            nearer = self.sharpen(state, images, pairs, *anew, state.band(radius), self.steps)
            anew, radius = (nearer.rotation, nearer.shift_px), widened(radius)
        found_anew = self.sharpen(state, images, pairs, *anew, self.compared, self.steps)
        found_before = self.sharpen(state, images, pairs, *held, self.compared, LocalSteps(count=0))
        hold_poses(state, pairs, likelier(found_anew, found_before))
        gain = found_anew.log_likelihood - found_before.log_likelihood
        weight = classes.log_posterior(rows).exp()[pairs.image, pairs.class_index]
        clear = torch.where(gain > _CLEAR_GAIN, weight * gain, 0.0)
        return gain.new_zeros(len(rows)).index_add_(0, pairs.image, clear)

    def _add_elsewhere(
        self, state: TrainingState, rows: Int[Tensor, "b"], images: WeightedImages, found: Candidates
    ) -> Float[Tensor, "b k"]:
        """Add images in doubt of their pose at the likely ones far from the best.

        Returns:
            Part of the posterior of each class that lies near the best pose, which stands for it.
        """
        share, plan = found.share_of_class(state.num_classes), self.search.plan
        best = state.poses.rotation[rows, 0].take_along_dim(found.class_index[:, :, None, None], 1)
        reach = _SAME_POSE * angular_step(plan.base_level + len(plan.radii) - 1)
        is_near = geodesic_angle(found.rotation, best) < reach
        posterior = state.classes.log_posterior(rows).exp().gather(1, found.class_index)
        probability = posterior * share
        is_light = probability < _LEAST_SHARE * probability.amax(1, keepdim=True)
        elsewhere = torch.where(is_near | is_light, 0.0, share)
        weight = posterior * elsewhere
        total = weight.sum(1, keepdim=True)
        weight, chosen = weight.topk(min(_MOST_POSES, share.shape[1]), dim=1)
        # The heaviest stand for all.
        weight = weight * (total / weight.sum(1, keepdim=True).clamp(min=_LEAST_WEIGHT))
        self.add_at(
            state,
            rows,
            images,
            weight,
            found.class_index.gather(1, chosen),
            found.rotation.take_along_dim(chosen[:, :, None, None], 1)[:, :, None],
            found.shift_px.take_along_dim(chosen[:, :, None], 1)[:, :, None],
        )
        return 1 - torch.zeros_like(state.classes.log_evidence[rows]).scatter_add_(1, found.class_index, elsewhere)


def which_matter(state: TrainingState, rows: Int[Tensor, "b"]) -> Bool[Tensor, "b k"]:
    """The classes that are probable enough for each of some particles to be looked at."""
    return state.classes.log_posterior(rows) > math.log(_LEAST_PROBABILITY)


def explained_badly(state: TrainingState) -> Bool[Tensor, "n"]:
    """Whether each particle is of the few that its likeliest class explains worst; on the CPU."""
    likeliest = state.classes.log_posterior().argmax(1)
    order = state.classes.log_probability().argsort()
    order = order[likeliest[order].argsort(stable=True)]
    size = torch.bincount(likeliest, minlength=state.num_classes)
    first = (size.cumsum(0) - size)[likeliest[order]]
    rank = torch.arange(len(order), device=order.device) - first
    is_bad = torch.empty_like(order, dtype=torch.bool)
    is_bad[order] = rank < _WORST * size[likeliest[order]]
    return is_bad.cpu()


def _log_pose_volume(found: Candidates, num_classes: int) -> Float[Tensor, "b k"]:
    """Evidence over all poses less the likelihood at the best one."""
    of_class = found.class_index[:, None, :] == torch.arange(num_classes, device=found.log_mass.device)[:, None]
    has_mass = of_class & found.log_mass[:, None, :].isfinite()
    peak = torch.where(has_mass, found.log_likelihood[:, None, :], -torch.inf).amax(2)
    volume = torch.where(peak.isfinite(), found.log_evidence - peak, torch.inf)
    # A class without candidates: as if its poses were as well known as the best known class's.
    least = volume.amin(1, keepdim=True)
    return torch.where(volume.isfinite(), volume, least)
