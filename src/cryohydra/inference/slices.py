"""Where a search gets its slices from: it knows no field and no file."""

from typing import Protocol, runtime_checkable

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import (
    GridSlicer,
    Lattice,
    correct_interpolation,
    interpolate,
    interpolate_with_gradient,
    slice_frequencies,
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

    def with_tangents(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m 3 p"]]:
        """What `of_candidates` gives, and what turning R to R @ exp(w) adds to it per radian of w along x, y and z."""
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

    def with_tangents(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m 3 p"]]:
        """What `of_candidates` gives, and what a small turn adds to it, by the gradient of what interpolates."""
        position = self._positions(band, rotation)
        slices, gradient = interpolate_with_gradient(self._values, class_index, position)
        along_x, along_y, along_z = gradient.unbind(1)
        x, y, z = position.unbind(-1)
        # A point g of the slice moves to g + g x w: the slice changes by w . (gradient x g).
        turns = (along_y * z - along_z * y, along_z * x - along_x * z, along_x * y - along_y * x)
        return slices, torch.stack(turns, dim=1)

    def _positions(self, band: Band, rotation: Float[Tensor, "m 3 3"]) -> Float[Tensor, "m p 3"]:
        return slice_frequencies(band, rotation) * (self.lattice.oversampling * self.lattice.box_size)


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
