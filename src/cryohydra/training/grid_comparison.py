"""Images beside every map, rotation and shift of the grid that fits a band: what ab initio learns from."""

import math
from dataclasses import dataclass
from functools import cache

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import GridSlicer, Lattice
from cryohydra.fourier.mirrors import mirrors_of
from cryohydra.geometry.so3_grid import all_rotations, child_indices, grid_rotations
from cryohydra.inference.even_views import log_weight_of_views
from cryohydra.inference.grid_posterior import (
    Compared,
    ExhaustivePosterior,
    GridPosterior,
    StreamedPosterior,
    drawn,
    stream,
)
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training.annealing import level_for_radius, shift_step

_LAST_REMEMBERED_LEVEL = 1
"""Of finer grids only the heaviest poses are remembered."""
_MOST_POSES = 512
"""Those of each image, at most."""
_POSTERIOR_MASS = 0.98
"""Part of the posterior that is enough for maps to learn from: the many light poses cost most and say least."""


@dataclass(frozen=True)
class Comparison:
    """A batch beside everything."""

    found: GridPosterior
    slices: Float[Tensor, "k q p"]
    slicer: GridSlicer
    shifts: Float[Tensor, "s 2"]
    log_weight: Float[Tensor, "k"]
    """Under which the batch is shared between the maps."""

    @property
    def log_evidence(self) -> Float[Tensor, "b k"]:
        """Over that of noise alone."""
        return self.found.log_evidence - math.log(len(self.slicer.rotations))


@dataclass(frozen=True)
class DrawnPoses:
    """A class and a rotation of each image, drawn by their posterior."""

    class_index: Int[Tensor, "b"]
    rotation: Float[Tensor, "b 3 3"]
    score: Float[Tensor, "b p"]
    """Of the image moved back, the mean over its shifts by their posterior at that rotation."""
    slices: Float[Tensor, "b p"]
    """Of its class, at that rotation."""
    log_evidence: Float[Tensor, "b k"]
    """Over that of noise alone, of all classes and poses of the grid."""


class GridComparer:
    """Compares images with maps on a lattice."""

    def __init__(self, lattice: Lattice):
        self.lattice = lattice
        self._slicers = GridSlicers()

    def compare(
        self,
        maps: Float[Tensor, "k n n n"],
        images: WeightedImages,
        band: Band,
        shift_prior: ShiftPrior,
        balance: float,
        looks_evenly: bool = False,
    ) -> Comparison:
        """Compare with all poses of the grid that fits the band.

        Args:
            images: In the band.
            balance: How much maps are pulled towards equal shares, from 0 to 1.
            looks_evenly: Whether what slices gather is weighed so that each map is looked at from all sides alike.
        """
        level = level_for_radius(band.radius)
        slicer, shifts = self._grid(band, level, shift_prior)
        source = LatticeSlices(self.lattice, maps, self._slicers)
        compared = _lay_out(images, slicer, shifts, source, shift_prior)

        @cache
        def weigh(evidence: Float[Tensor, "b k"]) -> Float[Tensor, "k"]:
            return balance * _balancing_weights(evidence)

        def look_evenly(posterior: Float[Tensor, "b k q"], evidence: Float[Tensor, "b k"]) -> Float[Tensor, "k q"]:
            return log_weight_of_views(posterior, torch.softmax(evidence + weigh(evidence), dim=1))

        weigh_rotations = look_evenly if looks_evenly else None
        if level <= _LAST_REMEMBERED_LEVEL:
            found: GridPosterior = ExhaustivePosterior(compared, weigh_rotations)
        else:
            mirrors = mirrors_of(band, level)
            found = StreamedPosterior(compared, mirrors, weigh, _MOST_POSES, _POSTERIOR_MASS, weigh_rotations)
        log_weight = weigh(found.log_evidence)
        return Comparison(found, compared.slices, slicer, shifts, log_weight)

    def draw(
        self,
        maps: Float[Tensor, "k n n n"],
        images: WeightedImages,
        band: Band,
        shift_prior: ShiftPrior,
        balance: float,
        generator: torch.Generator,
    ) -> DrawnPoses:
        """Draw a class and a rotation of each image by their posterior, maps looked at from all sides alike.

        A cell of the grid that fits the band is drawn first, then one of the eight of the next finer grid in it. Shifts
        are as fine as that: as coarse as the first grid they leave too little that tells poses of small complexes.

        Args:
            images: In the band.
            balance: How much maps are pulled towards equal shares, from 0 to 1.
            generator: On the CPU.
        """
        level = level_for_radius(band.radius)
        slicer, shifts = self._grid(band, level, shift_prior, finer=1)
        source = LatticeSlices(self.lattice, maps, self._slicers)
        compared = _lay_out(images, slicer, shifts, source, shift_prior)
        log_mass, *_ = stream(compared, mirrors_of(band, level))
        log_evidence = log_mass.logsumexp(2)
        log_weight = balance * _balancing_weights(log_evidence)
        of_views = log_weight_of_views(torch.softmax(log_mass, 2), torch.softmax(log_evidence + log_weight, 1))
        cells = (log_mass + of_views + log_weight[:, None]).flatten(1)
        cell = drawn(torch.softmax(cells, dim=1), generator)[:, 0]
        num_cells = compared.slices.shape[1]
        class_index, children = cell // num_cells, child_indices(level, cell % num_cells)
        rotations = grid_rotations(level + 1, children)
        which = class_index[:, None].expand_as(children).flatten()
        slices = source.of_candidates(band, which, rotations.flatten(0, 1)).unflatten(0, children.shape)
        half_power = 0.5 * torch.einsum("bp,bcp->bc", compared.power, slices.square())
        log_likelihood = torch.einsum("bsp,bcp->bcs", compared.score, slices) - half_power[:, :, None]
        log_likelihood = log_likelihood + compared.log_prior
        child = drawn(torch.softmax(log_likelihood.logsumexp(2), dim=1), generator)
        of_shift = torch.softmax(log_likelihood.take_along_dim(child[:, :, None], 1)[:, 0], dim=1)
        return DrawnPoses(
            class_index=class_index,
            rotation=rotations.take_along_dim(child[:, :, None, None], 1)[:, 0],
            score=torch.einsum("bs,bsp->bp", of_shift, compared.score),
            slices=slices.take_along_dim(child[:, :, None], 1)[:, 0],
            log_evidence=log_evidence - math.log(num_cells),
        )

    def _grid(
        self, band: Band, level: int, shift_prior: ShiftPrior, finer: int = 0
    ) -> tuple[GridSlicer, Float[Tensor, "s 2"]]:
        """The rotations of a level and shifts as fine, or so many levels finer."""
        device = band.frequencies.device
        slicer = self._slicers.slicer(self.lattice, band, all_rotations(level, device))
        return slicer, shift_prior.grid(shift_step(level + finer, band.box_size)).to(device)


def _lay_out(
    images: WeightedImages,
    slicer: GridSlicer,
    shifts: Float[Tensor, "s 2"],
    source: LatticeSlices,
    shift_prior: ShiftPrior,
) -> Compared:
    """What is compared on a grid: every slice with the images at every shift."""
    return Compared(
        slices=source.on_grid(slicer.band, slicer.rotations),
        score=shift_hartley(images.score[:, 0, None], slicer.band.frequencies, -shifts[None]),
        power=images.power[:, 0],
        log_prior=shift_prior.log_probability(shifts),
    )


def _balancing_weights(evidence: Float[Tensor, "b k"], num_rounds: int = 10) -> Float[Tensor, "k"]:
    """Log weights under which a batch is shared equally between the classes (Sinkhorn)."""
    log_weight = evidence.new_zeros(evidence.shape[1])
    for _ in range(num_rounds):
        share = torch.softmax(evidence + log_weight, dim=1).mean(0)
        log_weight = log_weight - (share * len(log_weight) + 1e-3).log()
    return log_weight
