"""Volumes on a frequency lattice: cutting slices out of them, and adding slices into them.

A lattice is oversampled: its step is a fraction of a Fourier pixel, so that trilinear
interpolation between its points is accurate. What the interpolation does to the density, a
product with sinc^2 along each axis, is divided out beforehand (gridding correction).
"""

import itertools
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag, grid_sample

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.orbits import Orbits


@dataclass(frozen=True)
class Lattice:
    """The points of a cube around zero frequency, odd and symmetric, in steps of 1 / (oversampling * box_size)."""

    box_size: int
    radius: int
    """Highest frequency that can be cut, in Fourier pixels."""
    oversampling: int = 2

    @property
    def size(self) -> int:
        """Points along an axis, odd; at least one beyond the radius on both sides for the interpolation.

        A few more where that makes a number of small primes, which transforms twice as fast.
        """
        least = 2 * (self.radius * self.oversampling + 1) + 1
        return next(size for size in itertools.count(least, 2) if _has_small_primes(size))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The axes z, y, x."""
        return (self.size, self.size, self.size)

    def distance(self, device: torch.device | str = "cpu") -> Float[Tensor, "n n n"]:
        """Each point's distance from zero in Fourier pixels."""
        axis = self._axis(device) / self.oversampling
        return (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()

    def points(self, device: torch.device | str = "cpu") -> Float[Tensor, "n n n 3"]:
        """The points in cycles per pixel, (x, y, z) in the last axis."""
        axis = self._axis(device) / (self.oversampling * self.box_size)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        return torch.stack([x, y, z], dim=-1)

    def real_space_radius_px(self, device: torch.device | str = "cpu") -> Float[Tensor, "n n n"]:
        """Distance from the centre, in pixels, of the points of the lattice's inverse transform."""
        axis = self.real_space_axis_px(device)
        return (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()

    def real_space_axis_px(self, device: torch.device | str = "cpu") -> Float[Tensor, "n"]:
        """Where the points of the lattice's inverse transform lie along an axis, in pixels from the centre."""
        return self._axis(device) * (self.oversampling * self.box_size / self.size)

    def interpolation_damping(self, device: torch.device | str = "cpu") -> Float[Tensor, "n n n"]:
        """What trilinear interpolation of the lattice multiplies the density with, in (0, 1]."""
        damping = torch.sinc(self._axis(device) / self.size).square()
        return damping[:, None, None] * damping[:, None] * damping

    def _axis(self, device: torch.device | str) -> Float[Tensor, "n"]:
        half = self.size // 2
        return torch.arange(-half, half + 1, dtype=torch.float32, device=device)


def _has_small_primes(number: int) -> bool:
    for prime in (2, 3, 5, 7, 11, 13):
        while number % prime == 0:
            number //= prime
    return number == 1


def to_real_space(values: Float[Tensor, "k n n n"]) -> Float[Tensor, "k n n n"]:
    """Inverse Hartley transform of lattices, in the lattice's own coarse voxels."""
    return _hartley(values) / values.shape[-1] ** 3


def to_frequency(density: Float[Tensor, "k n n n"]) -> Float[Tensor, "k n n n"]:
    """Undo `to_real_space`."""
    return _hartley(density)


def _hartley(array: Float[Tensor, "k n n n"]) -> Float[Tensor, "k n n n"]:
    dims = (-3, -2, -1)
    # The half of the transform at x >= 0 tells the other: there the imaginary part changes its sign.
    half = torch.fft.rfftn(torch.fft.ifftshift(array, dim=dims), dim=dims)
    half = torch.fft.fftshift(half, dim=dims[:2])
    opposite = (half.real + half.imag)[..., 1:].flip(dims)
    return torch.cat([opposite, half.real - half.imag], dim=-1)


def enlarge(values: Float[Tensor, "k n n n"], lattice: Lattice) -> Float[Tensor, "k m m m"]:
    """The same coefficients on a lattice of another radius: zero beyond, or cut."""
    old, new = values.shape[-1] // 2, lattice.size // 2
    pad = new - old
    if pad >= 0:
        return torch.nn.functional.pad(values, [pad] * 6)
    return values[:, -pad:pad, -pad:pad, -pad:pad].contiguous()


def correct_interpolation(lattice: Lattice, values: Float[Tensor, "k n n n"]) -> Float[Tensor, "k n n n"]:
    """Divide the density by what trilinear interpolation will multiply it with."""
    return to_frequency(to_real_space(values) / lattice.interpolation_damping(values.device))


@dataclass(frozen=True)
class Corners:
    """The eight lattice points around each sampled point, and their trilinear weights."""

    index: Int[Tensor, "m 8"]
    weight: Float[Tensor, "m 8"]

    @classmethod
    def around(cls, lattice: Lattice, frequencies: Float[Tensor, "m 3"]) -> "Corners":
        """Corners of points given in cycles per pixel, (x, y, z), within the lattice's radius."""
        size = lattice.size
        position = frequencies * (lattice.oversampling * lattice.box_size) + size // 2
        base = position.floor()
        fraction = position - base
        x, y, z = base.long().unbind(-1)
        flat = (z * size + y) * size + x
        offsets = torch.tensor([0, 1, size, size + 1], device=flat.device)
        offsets = torch.cat([offsets, offsets + size * size])
        along_x, along_y, along_z = torch.stack([1 - fraction, fraction], dim=-1).unbind(-2)
        weight = along_z[:, :, None, None] * along_y[:, None, :, None] * along_x[:, None, None, :]
        return cls(index=flat[:, None] + offsets, weight=weight.flatten(1))


def cut(values: Float[Tensor, "n3 k"], corners: Corners) -> Float[Tensor, "m k"]:
    """Interpolate flattened lattices, one per column, at points."""
    return embedding_bag(corners.index, values, per_sample_weights=corners.weight, mode="sum")


def interpolate(
    values: Float[Tensor, "k n n n"], which: Int[Tensor, "m"], position: Float[Tensor, "m p 3"]
) -> Float[Tensor, "m p"]:
    """Interpolate the lattice `which` of several at points in lattice steps from its centre, (x, y, z)."""
    num_lattices, size = values.shape[:2]
    # The lattices stand on one another along z: one call serves points of all of them.
    tower = values.reshape(1, 1, num_lattices * size, size, size)
    height = position[..., 2] + size // 2 + which[:, None] * size
    across = position[..., :2] / (size // 2)
    grid = torch.cat([across, (2 * height / (num_lattices * size - 1) - 1)[..., None]], dim=-1)
    # The CPU's kernel works on one entry of the batch at a time on each core.
    parts = next(parts for parts in (8, 4, 2, 1) if len(which) % parts == 0)
    grid = grid.reshape(parts, 1, -1, *grid.shape[1:])
    cut = grid_sample(tower.expand(parts, -1, -1, -1, -1), grid, align_corners=True)
    return cut.reshape(position.shape[:-1])


def interpolate_with_gradient(
    values: Float[Tensor, "k n n n"], which: Int[Tensor, "m"], position: Float[Tensor, "m p 3"]
) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m 3 p"]]:
    """What `interpolate` gives, and how it changes along x, y and z, per lattice step."""
    size = values.shape[1]
    base = position.floor()
    x, y, z = (position - base)[..., None].unbind(-2)
    column, row, level = (base.long() + size // 2).unbind(-1)
    corner = torch.arange(2, device=values.device)
    corners = ((corner[:, None, None] * size + corner[:, None]) * size + corner).flatten()
    flat = (((which[:, None] * size + level) * size + row) * size + column)[..., None] + corners
    around = values.reshape(-1)[flat]
    # One axis after the other: a difference along it, and the value between.
    along_x = around[..., 1::2] - around[..., 0::2]
    on_x = torch.addcmul(around[..., 0::2], along_x, x)
    along_y = on_x[..., 1::2] - on_x[..., 0::2]
    on_xy = torch.addcmul(on_x[..., 0::2], along_y, y)
    along_x = torch.lerp(along_x[..., 0::2], along_x[..., 1::2], y)
    along_z = on_xy[..., 1] - on_xy[..., 0]
    along_x, along_y = (torch.lerp(along[..., 0], along[..., 1], z[..., 0]) for along in (along_x, along_y))
    value = torch.addcmul(on_xy[..., 0], along_z, z[..., 0])
    return value, torch.stack([along_x, along_y, along_z], dim=1)


def add(total: Float[Tensor, "n3"], corners: Corners, values: Float[Tensor, "m"]) -> None:
    """Add values at points to a flattened lattice in place: the transpose of `cut`."""
    total.scatter_add_(0, corners.index.flatten(), (corners.weight * values[:, None]).flatten())


def slice_frequencies(band: Band, rotations: Float[Tensor, "*q 3 3"]) -> Float[Tensor, "*q p 3"]:
    """Where the plane of an image lies in the volume: the band's points, each as f @ R."""
    return band.frequencies @ rotations[..., :2, :]


class GridSlicer:
    """Slices of one fixed set of rotations, whose corners are found once and used many times."""

    def __init__(self, lattice: Lattice, band: Band, rotations: Float[Tensor, "q 3 3"]):
        self.lattice = lattice
        self.band = band
        self.rotations = rotations
        orbits = Orbits(band, rotations)
        self._points = orbits.points(torch.arange(len(rotations), device=rotations.device))
        self._corners = Corners.around(lattice, slice_frequencies(band, rotations[orbits.is_cut]).flatten(0, 1))

    def cut(self, values: Float[Tensor, "k n n n"]) -> Float[Tensor, "k q p"]:
        """All slices of each volume."""
        columns = values.flatten(1).T.contiguous()
        slices = cut(columns, self._corners).T.contiguous()
        return slices[:, self._points]
