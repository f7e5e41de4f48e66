"""Images beside every map, rotation and shift of the grid that fits a band: what ab initio learns from."""

import math
from dataclasses import dataclass
from functools import cache, partial

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import GridSlicer, Lattice, correct_interpolation
from cryohydra.fourier.mirrors import mirrors_of
from cryohydra.geometry.so3_grid import all_rotations
from cryohydra.inference.even_views import log_weight_of_views
from cryohydra.inference.grid_posterior import (
    Compared,
    ExhaustivePosterior,
    GridPosterior,
    StreamedPosterior,
    drawn,
    heaviest,
)
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers
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
        draws: torch.Generator | None = None,
        looks_evenly: bool = False,
    ) -> Comparison:
        """Compare with all poses of the grid that fits the band.

        Args:
            images: In the band.
            balance: How much maps are pulled towards equal shares, from 0 to 1.
            draws: Draws the one pose that slices gather of each image, on the CPU; None if they gather of all poses
                that matter.
            looks_evenly: Whether what slices gather is weighed so that each map is looked at from all sides alike.
        """
        maps = correct_interpolation(self.lattice, maps)
        level = level_for_radius(band.radius)
        slicer, shifts = self._grid(band, level, shift_prior)
        compared = _lay_out(images, slicer, shifts, maps, shift_prior)

        @cache
        def weigh(evidence: Float[Tensor, "b k"]) -> Float[Tensor, "k"]:
            return balance * _balancing_weights(evidence)

        def look_evenly(posterior: Float[Tensor, "b k q"], evidence: Float[Tensor, "b k"]) -> Float[Tensor, "k q"]:
            return log_weight_of_views(posterior, torch.softmax(evidence + weigh(evidence), dim=1))

        weigh_rotations = look_evenly if looks_evenly else None
        if draws is None and level <= _LAST_REMEMBERED_LEVEL:
            found: GridPosterior = ExhaustivePosterior(compared, weigh_rotations)
        else:
            all_that_matter = partial(heaviest, most=_MOST_POSES, mass=_POSTERIOR_MASS)
            keep = all_that_matter if draws is None else partial(drawn, generator=draws)
            found = StreamedPosterior(compared, mirrors_of(band, level), weigh, keep, weigh_rotations)
        log_weight = weigh(found.log_evidence)
        return Comparison(found, compared.slices, slicer, shifts, log_weight)

    def _grid(self, band: Band, level: int, shift_prior: ShiftPrior) -> tuple[GridSlicer, Float[Tensor, "s 2"]]:
        """The rotations of a level and shifts as fine."""
        device = band.frequencies.device
        slicer = self._slicers.slicer(self.lattice, band, all_rotations(level, device))
        return slicer, shift_prior.grid(shift_step(level, band.box_size)).to(device)


def _lay_out(
    images: WeightedImages,
    slicer: GridSlicer,
    shifts: Float[Tensor, "s 2"],
    maps: Float[Tensor, "k n n n"],
    shift_prior: ShiftPrior,
) -> Compared:
    """What is compared on a grid: every slice with the images at every shift."""
    return Compared(
        slices=slicer.cut(maps),
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
