"""Where a search gets its slices from: it knows no field and no file."""

from functools import cached_property
from typing import Protocol, runtime_checkable

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import (
    GridSlicer,
    Lattice,
    correct_interpolation,
    interpolate,
    slice_frequencies,
    turn_tangents,
)


@runtime_checkable
class SliceSource(Protocol):
    """Slices of K densities."""

    num_classes: int

    def on_grid(self, band: Band, rotations: Float[Tensor, "q 3 3"]) -> Float[Tensor, "k q p"]:
        """Every class's slice at every rotation, shared by all images."""
        ...

    def of_candidates(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> Float[Tensor, "m p"]:
        """One slice for each pair of class and rotation."""
        ...

    def tangents_of_candidates(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> Float[Tensor, "m 3 p"]:
        """What turning R to R @ exp(w) adds to each slice, per radian of w along x, y and z."""
        ...


class LatticeSlices:
    """Slices cut out of lattices by trilinear interpolation."""

    def __init__(self, lattice: Lattice, values: Float[Tensor, "k n n n"], slicers: "GridSlicers"):
        """Prepare the lattices.

        Args:
            values: Hartley coefficients, not yet corrected for the interpolation.
            slicers: Remembered grids; they outlast the values.
        """
        self.num_classes = len(values)
        self.lattice = lattice
        self._uncorrected = values
        self._values = correct_interpolation(lattice, values)
        self._slicers = slicers

    def on_grid(self, band: Band, rotations: Float[Tensor, "q 3 3"]) -> Float[Tensor, "k q p"]:
        """Every class's slice at every rotation."""
        return self._slicers.slicer(self.lattice, band, rotations).cut(self._values)

    def of_candidates(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> Float[Tensor, "m p"]:
        """One slice for each pair of class and rotation."""
        return interpolate(self._values, class_index, self._positions(band, rotation))

    def tangents_of_candidates(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> Float[Tensor, "m 3 p"]:
        """What a small turn adds to each slice, per radian."""
        position = self._positions(band, rotation)
        return torch.stack([interpolate(along, class_index, position) for along in self._tangents], dim=1)

    def _positions(self, band: Band, rotation: Float[Tensor, "m 3 3"]) -> Float[Tensor, "m p 3"]:
        return slice_frequencies(band, rotation) * (self.lattice.oversampling * self.lattice.box_size)

    @cached_property
    def _tangents(self) -> list[Float[Tensor, "k n n n"]]:
        tangents = turn_tangents(self.lattice, self._uncorrected)
        return [correct_interpolation(self.lattice, tangents[:, axis]) for axis in range(3)]


class GridSlicers:
    """Slicers of the last few grids and bands: making one costs more than using it."""

    def __init__(self, num_kept: int = 3):
        self._kept: dict[tuple[Lattice, int, int], GridSlicer] = {}
        self._num_kept = num_kept

    def slicer(self, lattice: Lattice, band: Band, rotations: Float[Tensor, "q 3 3"]) -> GridSlicer:
        """The slicer of a grid, told from others by its number of rotations."""
        key = (lattice, band.radius, len(rotations))
        if key not in self._kept:
            while len(self._kept) >= self._num_kept:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = GridSlicer(lattice, band, rotations)
        return self._kept[key]
