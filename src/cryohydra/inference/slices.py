"""Where a search gets its slices from: it knows no field and no file."""

from collections import Counter
from typing import Protocol, runtime_checkable

import torch

from cryohydra._device import chunks
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import (
    Corners,
    GridSlicer,
    Lattice,
    correct_interpolation,
    cut,
    interpolate,
    interpolate_with_gradient,
    slice_frequencies,
)
from cryohydra.fourier.orbits import Orbits
from cryohydra.geometry.so3_grid import all_rotations, grid_rotations, num_rotations

_MOST_POINTS = 2**28
"""Of the slices cut of a whole grid: a GiB."""


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

    def of_cells(
        self, band: Band, class_index: Int[Tensor, "m"], level: int, rotation_index: Int[Tensor, "m"]
    ) -> Float[Tensor, "m p"]:
        """The same at rotations of a level's grid."""
        ...

    def with_tangents(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m 3 p"]]:
        """What `of_candidates` gives, and what turning R to R @ exp(w) adds to it per radian of w along x, y and z."""
        ...


class LatticeSlices:
    """Slices cut out of lattices by trilinear interpolation."""

    def __init__(self, lattice: Lattice, corrected: Float[Tensor, "k n n n"], slicers: "GridSlicers"):
        """Take the lattices as they are.

        Args:
            corrected: Hartley coefficients, corrected for the interpolation (`correct_interpolation`).
            slicers: Remembered grids; they outlast the values.
        """
        self.num_classes = len(corrected)
        self.lattice = lattice
        self._values = corrected
        self._slicers = slicers
        self._cells: dict[tuple[int, int], Float[Tensor, "m p"]] = {}
        """What has to be cut of whole grids, by level and band: one class after the other."""
        self._num_asked: Counter[tuple[int, int]] = Counter()

    @classmethod
    def of_maps(cls, lattice: Lattice, values: Float[Tensor, "k n n n"], slicers: "GridSlicers") -> "LatticeSlices":
        """Slices of Hartley coefficients that are not yet corrected for the interpolation."""
        return cls(lattice, correct_interpolation(lattice, values), slicers)

    def split(self, num_classes: int) -> list["LatticeSlices"]:
        """The same, so many classes at a time; they share memory."""
        return [LatticeSlices(self.lattice, values, self._slicers) for values in self._values.split(num_classes)]

    def on_grid(self, band: Band, rotations: Float[Tensor, "q 3 3"]) -> Float[Tensor, "k q p"]:
        """Every class's slice at every rotation."""
        return self._slicers.slicer(self.lattice, band, rotations).cut(self._values)

    def at_rotations(self, band: Band, rotations: Float[Tensor, "q 3 3"]) -> Float[Tensor, "k q p"]:
        """The same, at rotations that are asked for but once: nothing is remembered."""
        corners = Corners.around(self.lattice, slice_frequencies(band, rotations).flatten(0, 1))
        slices = cut(self._values.flatten(1).T.contiguous(), corners)
        return slices.T.reshape(self.num_classes, len(rotations), -1)

    def of_candidates(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> Float[Tensor, "m p"]:
        """One slice for each pair of class and rotation."""
        return interpolate(self._values, class_index, self._positions(band, rotation))

    def of_cells(
        self, band: Band, class_index: Int[Tensor, "m"], level: int, rotation_index: Int[Tensor, "m"]
    ) -> Float[Tensor, "m p"]:
        """One slice for each pair of class and rotation of a level.

        Once as many were asked for as a whole grid has to cut, it is cut, if it is not too large.
        """
        key = (level, band.radius)
        self._num_asked[key] += len(rotation_index)
        if key not in self._cells:
            if not self.is_worth_cutting(band, level, self._num_asked[key]):
                return self.of_candidates(band, class_index, grid_rotations(level, rotation_index))
            self.keep_cells(band, level, self.cut_cells(band, level, range(self.num_cells(band, level))))
        orbits = self._slicers.orbits(band, level)
        first = class_index * (len(orbits.is_cut) * len(band))
        return self._cells[key].flatten()[orbits.points(rotation_index) + first[:, None]]

    def is_worth_cutting(self, band: Band, level: int, num_asked: int) -> bool:
        """Whether a whole grid is not too large, and to cut it no more work than so many slices one by one."""
        about = num_rotations(level) // 8 * self.num_classes
        return len(band) * about <= _MOST_POINTS and num_asked >= about

    def num_cells(self, band: Band, level: int) -> int:
        """Slices that have to be cut for a whole grid of all classes; the others are their mirror images."""
        return len(self._slicers.orbits(band, level).is_cut) * self.num_classes

    def cut_cells(self, band: Band, level: int, which: range) -> Float[Tensor, "m p"]:
        """Some of the slices of `num_cells`: one class after the other."""
        is_cut = self._slicers.orbits(band, level).is_cut
        number = torch.arange(which.start, which.stop, which.step, device=band.device)
        class_index, rotation = number // len(is_cut), grid_rotations(level, is_cut[number % len(is_cut)])
        rows = chunks(len(which), len(band), rotation.device)
        return torch.cat([self.of_candidates(band, class_index[some], rotation[some]) for some in rows])

    def keep_cells(self, band: Band, level: int, cells: Float[Tensor, "m p"]) -> None:
        """Have all slices of `num_cells` ready for `of_cells`."""
        self._cells[level, band.radius] = cells

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
        self._orbits: dict[tuple[int, int], Orbits] = {}
        self._num_kept = num_kept

    def slicer(self, lattice: Lattice, band: Band, rotations: Float[Tensor, "q 3 3"]) -> GridSlicer:
        """The slicer of a grid, told from others by its number of rotations."""
        key = (lattice, band.radius, len(rotations))
        if key not in self._kept:
            while len(self._kept) >= self._num_kept:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = GridSlicer(lattice, band, rotations)
        return self._kept[key]

    def orbits(self, band: Band, level: int) -> Orbits:
        """Those of a whole grid."""
        key = (level, band.radius)
        if key not in self._orbits:
            while len(self._orbits) >= self._num_kept:
                self._orbits.pop(next(iter(self._orbits)))
            self._orbits[key] = Orbits(band, all_rotations(level, band.device))
        return self._orbits[key]
