"""The second stage: poses and classes from rough maps, maps from poses and classes, wider each time."""

import math
from typing import Any, Literal

import torch

from cryohydra._typing import Int, Tensor
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.geometry.so3_grid import angular_step, level_for_step
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.pose_search.base import PoseSearch, SearchPlan
from cryohydra.inference.reconstruction import ClassMaps, ClassSums, enlarge, particle_mask
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import FieldSlices
from cryohydra.physics.noise import NoiseSpectrum, shell_means
from cryohydra.training.ab_initio import RESOLVED
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_FINEST = 1.5
"""The last grid's step is at most _FINEST / radius radians: gradients do the rest."""
_GROWTH = 1.4
"""A pass widens the band by this factor at most: poses sharpen step by step."""


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
    """Passes over all images: search poses in the maps, sum, solve, widen the band."""

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
        num_passes: int = 8,
        particle_radius: float = 0.45,
    ):
        """Plan the stage.

        Args:
            slices: Cut from the maps, or at every candidate from the network that is fitted to them.
            first_radius: Band of the first pass, in Fourier pixels; the maps' own decide of the next.
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
        self.pass_count = 0
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
        self._begin_pass(state)

    def _begin_pass(self, state: TrainingState) -> None:
        assert state.maps is not None
        self.slices = self._slices_of(state, state.maps)
        self.sums = ClassSums.empty(self.lattice, state.num_classes, state.device)
        self.residual = torch.zeros(len(state.noise.variance), state.images.box_size // 2 + 1, device=state.device)
        self.num_residuals = torch.zeros(len(state.noise.variance), device=state.device)
        self.evidence_sum, self.num_seen = 0.0, 0
        # Poses found in a band say something of the next wider one; beyond that there is only noise to sum.
        self.summed = state.band(min(self.last_radius, self._widened() + 1))

    def _slices_of(self, state: TrainingState, maps: ClassMaps) -> SliceSource:
        if self.slice_kind == "sliced":
            return LatticeSlices(self.lattice, maps.values, self._slicers)
        fit_fields(state)
        conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
        return FieldSlices(state.mixture, conformation)

    def _widened(self) -> int:
        return int(_GROWTH * self.radius) + 1

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Search the poses of a batch and add it to the sums."""
        plan = plan_search(
            self.radius,
            base_level=self.base_level,
            num_refinements=self.num_refinements,
            box_size=state.images.box_size,
            shift_extent_px=self.shift_extent_px,
            shift_centre_px=self.shift_centre_px,
            num_kept=self.num_kept,
        )
        images = state.weighted(index, self.summed)
        found = self.search(plan).search(self.slices, images, self.summed, state.classes.log_weight)
        posterior = found.posterior(state.classes.log_weight)
        rows = index.to(state.device)
        self.sums.add(
            images,
            self.summed,
            rows,
            posterior,
            found.class_index,
            found.rotation[:, :, None],
            found.shift_px[:, :, None],
        )
        self._add_residuals(state, index, images, found)
        self._remember(state, rows, images, found)
        evidence = torch.logsumexp(state.classes.log_weight + found.log_evidence, dim=1)
        self.evidence_sum += float(evidence.sum())
        self.num_seen += len(index)
        if self.num_seen >= len(state):
            self._end_pass(state)
        note = f"pass {self.pass_count + 1}, band {self.radius}"
        return StepResult(loss=-float(evidence.mean()), note=note)

    def _end_pass(self, state: TrainingState) -> None:
        state.maps = self.sums.solve(self.mask)
        state.noise = self._refined_noise(state)
        state.classes.update_weights()
        evidence = self.evidence_sum / self.num_seen
        self.pass_count += 1
        # Two Fourier pixels beyond what is known: enough to grow, too little to fit noise.
        known = min(state.maps.known_radius() + 2, self._widened())
        wider = min(self.last_radius, max(self.radius, known))
        has_settled = wider == self.radius and evidence - self.evidence_before < 0.01 * abs(evidence)
        self.is_done = self.pass_count >= self.num_passes or has_settled
        # A wider band compares more: its evidence is no gain over the narrower one's.
        self.evidence_before = evidence if wider == self.radius else -math.inf
        self.radius = wider
        self._begin_pass(state)

    def end(self, state: TrainingState) -> str:
        """Fit the fields to the maps."""
        assert state.maps is not None
        if self.pass_count == 0 and self.num_seen:
            self._end_pass(state)
        error = fit_fields(state, find_variation(state))
        state.fields_are_fitted = True
        known = state.maps.known_radius()
        return (
            f"Search: {self.pass_count} passes, maps known to {known} Fourier pixels (halves agree above 0.143, "
            f"shared poses); fields differ from them by {100 * max(error):.0f} % at most."
        )

    def state_dict(self) -> dict[str, Any]:
        """Between passes; a pass that was cut short begins anew."""
        return {"radius": self.radius, "pass_count": self.pass_count, "evidence_before": self.evidence_before}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the next pass."""
        self.radius, self.pass_count = saved["radius"], saved["pass_count"]
        self.evidence_before = saved["evidence_before"]

    def _add_residuals(self, state: TrainingState, index: Tensor, images: WeightedImages, found: Candidates) -> None:
        """Sum what the best candidates leave of the images' power."""
        best = found.log_mass.argmax(1)
        rows = torch.arange(len(best), device=best.device)
        slices = self.slices.of_candidates(self.summed, found.class_index[rows, best], found.rotation[rows, best])
        contrast = found.contrast[rows, best][:, None]
        # |y - a C V|^2 by shells, all over the noise: the cross term is the score's.
        score = shift_hartley(images.score[:, 0], self.summed.frequencies, -found.shift_px[rows, best])
        observed = state.observed(index, self.summed)[:, 0]
        noise = state.noise_variance(index, self.summed)[:, 0]
        left = observed.square() + noise * (
            contrast.square() * images.power[:, 0] * slices.square() - 2 * contrast * score * slices
        )
        group = state.images.optics(index).group[:, 0].to(state.device)
        means = shell_means(left, self.summed, self.residual.shape[1])
        self.residual.index_add_(0, group, torch.nan_to_num(means))
        self.num_residuals.index_add_(0, group, torch.ones_like(best, dtype=torch.float32))

    def _refined_noise(self, state: TrainingState) -> NoiseSpectrum:
        """The residuals' spectrum where the band has it, the earlier one elsewhere."""
        measured = self.residual / self.num_residuals.clamp(min=1)[:, None]
        return NoiseSpectrum(torch.where(measured > 0, measured, state.noise.variance))

    def _remember(self, state: TrainingState, rows: Tensor, images: WeightedImages, found: Candidates) -> None:
        best = found.best_of_class(state.num_classes)
        shift = best.shift_px + state.known_shift_px[rows][:, None]
        state.poses.rotation[rows] = best.rotation[:, None]
        state.poses.shift_px[rows] = shift[:, None]
        state.classes.log_evidence[rows] = found.log_evidence
        of_class = found.class_index[:, None, :] == torch.arange(state.num_classes, device=rows.device)[:, None]
        found_mass = of_class & found.log_mass[:, None, :].isfinite()
        peak = torch.where(found_mass, found.log_likelihood[:, None, :], -torch.inf).amax(2)
        volume = torch.where(peak.isfinite(), found.log_evidence - peak, torch.inf)
        # A class without candidates: as if its poses were as well known as the best known class's.
        least = volume.amin(1, keepdim=True)
        state.classes.log_pose_volume[rows] = torch.where(volume.isfinite(), volume, least)
