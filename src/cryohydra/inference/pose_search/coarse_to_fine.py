"""Exhaustive on a coarse grid, then only the children of what carries the posterior."""

from dataclasses import replace

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.geometry.shift_grid import shift_grid
from cryohydra.geometry.so3_grid import all_rotations, child_indices, grid_rotations, num_rotations
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.evidence import exponentiate_, log_likelihood_over_contrast
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.pose_search.base import POSE_SEARCHES, PoseSearch, SearchState
from cryohydra.inference.slices import SliceSource

_SCORES_AT_ONCE = 2**24
_POINTS_AT_ONCE = 2**20
"""Scores, or points of slices, held at a time, which bounds memory."""


@POSE_SEARCHES.register("sliced")
class CoarseToFineSearch(PoseSearch):
    """Keeps (class, rotation, shift) by posterior mass over all classes, so that cost follows the doubt."""

    def begin(
        self, slices: SliceSource, images: WeightedImages, band: Band, log_weight: Float[Tensor, "k"]
    ) -> SearchState:
        """Compare with the whole first grid as matrix products; contrast is taken as one."""
        plan, device = self.plan, images.constant.device
        compared = Band(band.box_size, plan.radii[0], device)
        points = band.within(plan.radii[0])
        rotations = all_rotations(plan.base_level, device)
        shifts = shift_grid(plan.shift_extent_px, plan.shift_step_px, plan.shift_centre_px).to(device)
        on_grid = slices.on_grid(compared, rotations)
        chunk = max(1, _SCORES_AT_ONCE // (len(rotations) * len(shifts)))
        narrow = images.at(points)
        rows = torch.arange(len(images), device=device)
        parts = [self._compare_grid(on_grid, narrow.rows(r), compared, shifts) for r in rows.split(chunk)]
        log_evidence, class_index, rotation_index, shift_px, peak, log_mass = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )
        candidates = Candidates(
            class_index=class_index,
            rotation=grid_rotations(plan.base_level, rotation_index),
            shift_px=shift_px,
            log_likelihood=peak,
            log_mass=log_mass,
            log_evidence=log_evidence,
        )
        return SearchState(slices, images, band, log_weight, 1, rotation_index, candidates)

    def refine(self, state: SearchState) -> SearchState:
        """Compare with the children of the candidates, contrast integrated out."""
        plan, depth = self.plan, state.depth
        kept, rotation_index = self._worth_refining(state)
        level = plan.base_level + depth
        band = Band(state.band.box_size, plan.radii[depth], kept.log_mass.device)
        children = child_indices(level - 1, rotation_index)
        step = plan.shift_step_px / 2**depth
        offsets = (
            shift_grid(step * 1.5, step).to(kept.shift_px.device)
            if plan.shift_extent_px
            else kept.shift_px.new_zeros(1, 2)
        )
        images = state.images.at(state.band.within(plan.radii[depth]))
        # Images differ in how many candidates they keep: only those kept are compared, in one list.
        image, column = torch.nonzero(kept.log_mass.isfinite(), as_tuple=True)
        pairs = torch.arange(len(image), device=image.device)
        parts = [
            self._compare_children(
                state.slices,
                images.rows(image[p]),
                band,
                kept.class_index[image[p], column[p]],
                grid_rotations(level, children[image[p], column[p]]),
                kept.shift_px[image[p], column[p]],
                offsets,
            )
            for p in pairs.split(max(1, _POINTS_AT_ONCE // (8 * len(band))))
        ]
        found_shift, found_peak, found_mass = (torch.cat(part) for part in zip(*parts, strict=True))
        shift_px = kept.shift_px[:, :, None].repeat(1, 1, 8, 1)
        peak = torch.full_like(shift_px[..., 0], -torch.inf)
        log_mass = peak.clone()
        shift_px[image, column] = found_shift
        peak[image, column], log_mass[image, column] = found_peak, found_mass + self._log_cell_prior(level, step)
        shift_px, peak, log_mass = (part.flatten(1, 2) for part in (shift_px, peak, log_mass))
        class_index = kept.class_index[:, :, None].expand(-1, -1, 8).flatten(1)
        children = children.flatten(1)
        candidates = Candidates(
            class_index=class_index,
            rotation=grid_rotations(level, children),
            shift_px=shift_px,
            log_likelihood=peak,
            log_mass=log_mass,
            log_evidence=_carried_evidence(state, log_mass, class_index),
        )
        return replace(state, depth=depth + 1, rotation_index=children, candidates=candidates)

    def _log_cell_prior(self, level: int, step_px: float) -> float:
        """Log of the prior probability of one rotation and shift of a level's grid."""
        num_shifts = 1.0
        if self.plan.shift_extent_px:
            first = len(shift_grid(self.plan.shift_extent_px, self.plan.shift_step_px))
            num_shifts = first * (self.plan.shift_step_px / step_px) ** 2
        return -float(torch.tensor(num_rotations(level) * num_shifts, dtype=torch.float64).log())

    def _compare_grid(
        self, on_grid: Float[Tensor, "k q p"], images: WeightedImages, band: Band, shifts: Float[Tensor, "s 2"]
    ) -> tuple[Tensor, ...]:
        """Evidence of each class, and the best rotations of each with their best shifts."""
        num_kept = min(self.plan.num_kept, on_grid.shape[1])
        log_prior = -float(torch.tensor(float(on_grid.shape[1] * len(shifts))).log())
        shifted = shift_hartley(images.score[:, 0, None], band.frequencies, -shifts[None])
        found = []
        for class_index, slices in enumerate(on_grid):
            half_power = images.power[:, 0] @ slices.square().T
            log_likelihood = torch.baddbmm(
                half_power[:, None], shifted, slices.T.expand(len(images), -1, -1), beta=-0.5
            )
            highest, best_shift = log_likelihood.max(1)
            relative = exponentiate_(log_likelihood.transpose(1, 2), highest)
            over_shifts = highest + relative.sum(2).log()
            mass, rotation = over_shifts.topk(num_kept, dim=1)
            peak, best_shift = (of_all.take_along_dim(rotation, 1) for of_all in (highest, best_shift))
            evidence = over_shifts.logsumexp(1) + log_prior
            of_class = torch.full_like(rotation, class_index)
            found.append((evidence, of_class, rotation, shifts[best_shift], peak, mass + log_prior))
        evidences, *columns = zip(*found, strict=True)
        return torch.stack(evidences, 1), *(torch.cat(column, 1) for column in columns)

    def _worth_refining(self, state: SearchState) -> tuple[Candidates, Int[Tensor, "b c"]]:
        """The candidates that hold the posterior mass to keep, heaviest first; the others have no mass."""
        found = state.candidates
        posterior = found.posterior(state.log_weight)
        # After the first grid every class may be in the running, each with its own candidates.
        num_classes = state.slices.num_classes if state.depth == 1 else 1
        width = min(posterior.shape[1], self.plan.num_kept * num_classes)
        mass, order = posterior.topk(width, dim=1)
        # A candidate is dropped if those heavier than it hold enough.
        heavier = mass.cumsum(1) - mass
        is_kept = heavier < self.plan.kept_mass * posterior.sum(1, keepdim=True)
        # The first grid is coarse and peaks between its points are missed: two classes' worth is kept there anyway.
        is_kept[:, : self.plan.num_kept * min(2, num_classes)] |= state.depth == 1
        is_kept &= mass > 0
        num_columns = int(is_kept.sum(1).max())
        order, is_kept = order[:, :num_columns], is_kept[:, :num_columns]
        rows = torch.arange(len(order), device=order.device)[:, None]
        kept = Candidates(
            class_index=found.class_index[rows, order],
            rotation=found.rotation[rows, order],
            shift_px=found.shift_px[rows, order],
            log_likelihood=found.log_likelihood[rows, order],
            log_mass=torch.where(is_kept, found.log_mass[rows, order], -torch.inf),
            log_evidence=found.log_evidence,
        )
        return kept, state.rotation_index[rows, order]

    def _compare_children(
        self,
        slices: SliceSource,
        images: WeightedImages,
        band: Band,
        class_index: Int[Tensor, "m"],
        rotation: Float[Tensor, "m h 3 3"],
        shift_px: Float[Tensor, "m 2"],
        offsets: Float[Tensor, "s 2"],
    ) -> tuple[Float[Tensor, "m h 2"], Float[Tensor, "m h"], Float[Tensor, "m h"]]:
        """Best shift and log likelihood there, and log likelihood summed over shifts, of each child."""
        num_children = rotation.shape[1]
        cut = slices.of_candidates(band, class_index.repeat_interleave(num_children), rotation.flatten(0, 1))
        cut = cut.unflatten(0, (-1, num_children))
        at_parent = shift_hartley(images.score[:, 0], band.frequencies, -shift_px)
        shifted = shift_hartley(at_parent[:, None], band.frequencies, -offsets[None])
        score = shifted @ cut.transpose(1, 2)
        power = (cut.square() @ images.power[:, 0, :, None]).transpose(1, 2)
        log_likelihood = log_likelihood_over_contrast(score, power)
        peak, best = log_likelihood.max(1)
        return shift_px[:, None] + offsets[best], peak, log_likelihood.logsumexp(1)


def _carried_evidence(
    state: SearchState, log_mass: Float[Tensor, "b c"], class_index: Int[Tensor, "b c"]
) -> Float[Tensor, "b k"]:
    """Evidence of each class from this level; a class dropped before keeps its share of the posterior.

    Levels compare different bands, so a dropped class's own evidence cannot stand beside the others':
    its share, below a thousandth when it was dropped, does.
    """
    before = state.candidates.log_evidence
    of_class = class_index[:, :, None] == torch.arange(before.shape[1], device=before.device)
    now = torch.where(of_class, log_mass[:, :, None], -torch.inf).logsumexp(1)
    dropped = now.isneginf()
    posterior = torch.log_softmax(state.log_weight + before, dim=1)
    scale = torch.logsumexp(state.log_weight + now, dim=1, keepdim=True)
    kept_share = torch.where(dropped, -torch.inf, posterior).logsumexp(1, keepdim=True)
    return torch.where(dropped, posterior - kept_share + scale - state.log_weight, now)
