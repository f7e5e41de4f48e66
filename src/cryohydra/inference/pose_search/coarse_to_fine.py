"""Exhaustive on a coarse grid, then only the children of what carries the posterior."""

import math
import weakref
from dataclasses import replace

import torch

from cryohydra._device import chunks, matrix_dtype
from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.mirrors import Mirrors, mirrors_of
from cryohydra.geometry.shift_grid import shift_grid
from cryohydra.geometry.so3_grid import child_indices, grid_rotations, num_rotations
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.evidence import log_likelihood_over_contrast
from cryohydra.inference.grid_error import GridError
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.pairs import ImagesOfClasses
from cryohydra.inference.pose_search.base import POSE_SEARCHES, PoseSearch, SearchPlan, SearchState
from cryohydra.inference.slices import SliceSource
from cryohydra.inference.whole_grid import WholeGridComparison


@POSE_SEARCHES.register("sliced")
class CoarseToFineSearch(PoseSearch):
    """Keeps (class, rotation, shift) by posterior mass over all classes, so that cost follows the doubt.

    What the grid of a level leaves unsaid counts as noise (`GridError`), so that a level may compare a wider band than
    its grid resolves: where the signal is weak, even what is half resolved tells most poses apart. What is not carried
    on keeps its share of the posterior.
    """

    def __init__(self, plan: SearchPlan):
        super().__init__(plan)
        self._errors = weakref.WeakKeyDictionary[SliceSource, dict[int, GridError]]()
        """Of the grids of each level, for as long as there are the slices."""

    def begin(
        self,
        slices: SliceSource,
        images: WeightedImages,
        band: Band,
        log_weight: Float[Tensor, "k"],
        is_asked: Bool[Tensor, "b k"] | None = None,
    ) -> SearchState:
        """Compare with the whole first grid as matrix products; contrast is taken as one."""
        plan, device = self.plan, images.constant.device
        compared = Band(band.box_size, plan.radii[0], device)
        mirrors = mirrors_of(compared, plan.base_level)
        rotations = grid_rotations(plan.base_level, mirrors.rotation_index[0])
        shifts = plan.shifts.grid(plan.shift_step_px).to(device)
        error = self._grid_error(slices, compared, depth=0)
        on_grid = slices.on_grid(compared, rotations) * error.kept[:, None]
        narrow = images.at(band.within(compared.radius))
        if is_asked is None:
            pairs = ImagesOfClasses.all(len(images), slices.num_classes, device)
        else:
            pairs = ImagesOfClasses.asked(is_asked)
        found = self._compare_grid(on_grid, error, narrow, pairs, compared, mirrors, shifts)
        log_evidence, *columns = _by_image(found, pairs, len(images))
        rotation_index, shift_px, peak, log_mass = (column.flatten(1, 2) for column in columns)
        num_kept = rotation_index.shape[1] // slices.num_classes
        class_index = torch.arange(slices.num_classes, device=device).repeat_interleave(num_kept).expand_as(peak)
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
        offsets = shift_grid(step * 1.5 if plan.shifts.extent_px else 0.0, step).to(kept.shift_px.device)
        error = self._grid_error(state.slices, band, depth)
        images = state.images.at(state.band.within(plan.radii[depth]))
        # Images differ in how many candidates they keep: only those kept are compared, in one list.
        image, column = torch.nonzero(kept.log_mass.isfinite(), as_tuple=True)
        parts = [
            self._compare_children(
                state.slices,
                error,
                images.rows(image[p]),
                band,
                kept.class_index[image[p], column[p]],
                children[image[p], column[p]],
                kept.shift_px[image[p], column[p]],
                offsets,
                level,
            )
            for p in chunks(len(image), 8 * len(band), image.device)
        ]
        found_shift, found_peak, found_mass = (torch.cat(part) for part in zip(*parts, strict=True))
        shift_px = kept.shift_px[:, :, None].repeat(1, 1, 8, 1)
        peak = torch.full_like(shift_px[..., 0], -torch.inf)
        log_mass = peak.clone()
        shift_px[image, column] = found_shift
        peak[image, column], log_mass[image, column] = found_peak, found_mass + self._log_cell_prior(level)
        shift_px, peak, log_mass = (part.flatten(1, 2) for part in (shift_px, peak, log_mass))
        class_index = kept.class_index[:, :, None].expand(-1, -1, 8).flatten(1)
        children = children.flatten(1)
        candidates = Candidates(
            class_index=class_index,
            rotation=grid_rotations(level, children),
            shift_px=shift_px,
            log_likelihood=peak,
            log_mass=log_mass,
            log_evidence=_carried_evidence(state, kept, log_mass, class_index),
        )
        return replace(state, depth=depth + 1, rotation_index=children, candidates=candidates)

    def _grid_error(self, slices: SliceSource, band: Band, depth: int) -> GridError:
        known = self._errors.setdefault(slices, {})
        if depth not in known:
            step_px = self.plan.shift_step_px / 2**depth if self.plan.shifts.extent_px else 0.0
            known[depth] = GridError.of_grid(slices, band, self.plan.base_level + depth, step_px)
        return known[depth]

    def _log_cell_prior(self, level: int) -> float:
        """Log of the prior probability of one rotation of a level and, where shifts lie densest, one shift."""
        plan = self.plan
        first = plan.shifts.log_density(plan.shifts.grid(plan.shift_step_px)).logsumexp(0)
        finer = 2 ** (level - plan.base_level) if plan.shifts.extent_px else 1
        return -math.log(num_rotations(level) * finer**2) - float(first)

    def _compare_grid(
        self,
        slices: Float[Tensor, "k c p"],
        error: GridError,
        images: WeightedImages,
        pairs: ImagesOfClasses,
        band: Band,
        mirrors: Mirrors,
        shifts: Float[Tensor, "s 2"],
    ) -> tuple[Tensor, ...]:
        """Evidence of each pair, and its heaviest rotations: which, their best shifts, likelihoods there, masses."""
        num_rotations = mirrors.rotation_index.numel()
        num_kept = min(self.plan.most_kept, num_rotations)
        log_prior = self.plan.shifts.log_probability(shifts)
        # Where no finer grid weighs what matters anew, this is the last word.
        dtype = matrix_dtype(slices.device) if len(self.plan.radii) > 1 else torch.float32
        comparison = WholeGridComparison(slices, mirrors, dtype)
        class_index, found = pairs.runs.class_index(slices.device), []
        for rows in chunks(len(pairs), comparison.numbers_per_pair(len(shifts)), slices.device):
            seen, offset = error.weigh(images.rows(pairs.image[rows]), class_index[rows])
            shifted = shift_hartley(seen.score[:, 0, None], band.frequencies, -shifts[None])
            over_shifts = comparison.compare(shifted, seen.power[:, 0], log_prior, pairs.runs.within(rows))
            log_mass = over_shifts.log_mass + (offset - math.log(num_rotations))[:, None]
            mass, rotation = log_mass.topk(num_kept, dim=1)
            best_shift = over_shifts.best_shift(rotation)
            peak = over_shifts.peak.take_along_dim(rotation, 1) + offset[:, None] - log_prior[best_shift]
            found.append((log_mass.logsumexp(1), rotation, shifts[best_shift], peak, mass))
        return tuple(torch.cat(part) for part in zip(*found, strict=True))

    def _worth_refining(self, state: SearchState) -> tuple[Candidates, Int[Tensor, "b c"]]:
        """The candidates that hold the posterior mass to keep, heaviest first; the others have no mass."""
        found = state.candidates
        posterior = found.posterior(state.log_weight)
        # Finer grids tell poses apart: doubt that is left there is of poses next to each other.
        most = self.plan.most_kept if state.depth == 1 else self.plan.num_kept
        mass, order = posterior.topk(min(posterior.shape[1], most), dim=1)
        # A candidate is dropped if those heavier than it hold enough.
        heavier = mass.cumsum(1) - mass
        is_kept = heavier < self.plan.kept_mass * posterior.sum(1, keepdim=True)
        # Where the signal is strong, the first grid is surer than it may be: what it leaves unsaid is no white noise.
        is_kept[:, : self.plan.num_kept] |= state.depth == 1
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
        error: GridError,
        images: WeightedImages,
        band: Band,
        class_index: Int[Tensor, "m"],
        rotation_index: Int[Tensor, "m h"],
        shift_px: Float[Tensor, "m 2"],
        offsets: Float[Tensor, "s 2"],
        level: int,
    ) -> tuple[Float[Tensor, "m h 2"], Float[Tensor, "m h"], Float[Tensor, "m h"]]:
        """Best shift and log likelihood there, and log likelihood summed over shifts by their prior, of each child."""
        num_children = rotation_index.shape[1]
        images, offset = error.weigh(images, class_index)
        cut = slices.of_cells(band, class_index.repeat_interleave(num_children), level, rotation_index.flatten())
        cut = cut.unflatten(0, (-1, num_children)) * error.kept[class_index, None]
        at_parent = shift_hartley(images.score[:, 0], band.frequencies, -shift_px)
        shifted = shift_hartley(at_parent[:, None], band.frequencies, -offsets[None])
        score = shifted @ cut.transpose(1, 2)
        power = (cut.square() @ images.power[:, 0, :, None]).transpose(1, 2)
        log_likelihood = log_likelihood_over_contrast(score, power) + offset[:, None, None]
        log_mass = log_likelihood + self.plan.shifts.log_density(shift_px[:, None] + offsets)[:, :, None]
        best = log_mass.argmax(1)
        peak = log_likelihood.take_along_dim(best[:, None], 1)[:, 0]
        return shift_px[:, None] + offsets[best], peak, log_mass.logsumexp(1)


def _by_image(found: tuple[Tensor, ...], pairs: ImagesOfClasses, num_images: int) -> tuple[Tensor, ...]:
    """What was found for pairs, by image and class; a class that an image is not compared with is impossible."""
    num_classes, parts = len(pairs.runs.counts), []
    at = pairs.image * num_classes + pairs.runs.class_index(pairs.image.device)
    for part in found:
        nothing = -torch.inf if part.is_floating_point() else 0
        whole = part.new_full((num_images * num_classes, *part.shape[1:]), nothing).index_copy_(0, at, part)
        parts.append(whole.unflatten(0, (num_images, num_classes)))
    return tuple(parts)


def _carried_evidence(
    state: SearchState, kept: Candidates, log_mass: Float[Tensor, "b c"], class_index: Int[Tensor, "b c"]
) -> Float[Tensor, "b k"]:
    """Evidence of each class: that of the candidates compared on this level, and what was dropped.

    Levels compare different bands, so what was dropped cannot stand beside the others with its own evidence: its share
    of the posterior, known when it was dropped, does.
    """

    def of_each_class(mass: Tensor, classes: Tensor) -> Tensor:
        is_its = classes[:, :, None] == torch.arange(state.slices.num_classes, device=mass.device)
        return torch.where(is_its, mass[:, :, None], -torch.inf).logsumexp(1)

    weight = state.log_weight
    before = torch.softmax(weight + state.candidates.log_evidence, dim=1)
    dropped = (before - (of_each_class(kept.posterior(weight).log(), kept.class_index)).exp()).clamp(min=0)
    now = of_each_class(log_mass, class_index)
    total = torch.logsumexp(weight + now, dim=1, keepdim=True)
    share = (dropped / (1 - dropped.sum(1, keepdim=True)).clamp(min=1e-6)).log()
    return torch.logaddexp(now, share + total - weight)
