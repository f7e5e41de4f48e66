"""Laying one map on another: rotation, shift and hand."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from cryohydra._typing import Complex, Float, Int, Tensor
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.fourier.gridding import FourierSampler
from cryohydra.geometry.rotations import geodesic_angle, rotation_vector_to_matrix
from cryohydra.geometry.so3_grid import all_rotations

_COARSE_LEVEL = 2
_COARSE_RADIUS = 5
_LOCAL_RADIUS = 10
_WIDE_RADIUS = 16
_FINE_RADIUS = 24
_KEPT = 24
_FINE_POINTS = 6_000


@dataclass(frozen=True)
class Alignment:
    """What lays a moving map on a reference.

    The aligned map has at frequency f the value of the moving map at f @ rotation, of its complex conjugate
    if it is mirrored, then shifted.
    """

    rotation: Float[Tensor, "3 3"]
    shift_px: Float[Tensor, "3"]
    """(x, y, z), where the centre of the moving map goes."""
    is_mirrored: bool
    """Whether the moving map is first inverted through its centre, which changes the hand."""
    correlation: float
    """Of the aligned map with the reference, means taken off, in [-1, 1]."""


def align_map(
    moving: Float[Tensor, "d d d"],
    reference: Float[Tensor, "d d d"],
    max_shift_px: float | None = None,
    keeps_hand: bool = False,
) -> Alignment:
    """Find what lays `moving` on `reference`, over all rotations, shifts in a ball, and both hands.

    Coarse to fine: all rotations of a 15 degree grid at five Fourier pixels, the best of each hand followed
    to smaller steps, then a gradient search in which each shell counts by how well it agrees.

    Args:
        max_shift_px: None for a sixth of the box.
        keeps_hand: Leave the mirror image out of the search.
    """
    assert moving.shape == reference.shape
    box_size = reference.shape[-1]
    furthest = box_size / 6 if max_shift_px is None else max_shift_px
    sampler, target = FourierSampler(moving.float()), FourierSampler(reference.float())
    largest = box_size // 2 - 1
    lattice = _PaddedTransform(moving.float(), min(_FINE_RADIUS, largest))
    coarse = _Comparison.between(lattice, target, min(_COARSE_RADIUS, largest))
    local = _Comparison.between(lattice, target, min(_LOCAL_RADIUS, largest))
    wide = _Comparison.between(lattice, target, min(_WIDE_RADIUS, largest))
    hands = (False,) if keeps_hand else (False, True)
    found = []
    for is_mirrored, (rotations, shifts) in zip(hands, _search(coarse, furthest, hands), strict=True):
        rotation, shift = _best_of(local, wide, *_descend(local, rotations, shifts, is_mirrored), is_mirrored)
        found.append(_polish(sampler, lattice, reference, target, Alignment(rotation, shift, is_mirrored, 0.0)))
    # Once more from the better hand: the shells now count by what they hold after the first time.
    best = max(found, key=lambda pair: pair[0])
    return max(best, _polish(sampler, lattice, reference, target, best[1]), key=lambda pair: pair[0])[1]


def _polish(
    sampler: FourierSampler,
    lattice: "_PaddedTransform",
    reference: Float[Tensor, "d d d"],
    target: FourierSampler,
    rough: Alignment,
) -> tuple[float, Alignment]:
    """Follow the gradient in the wide band; also returns the mean shell correlation reached."""
    agreement = fourier_shell_correlation(_transform(sampler, rough), reference)
    fine = _Comparison.between(lattice, target, min(_FINE_RADIUS, sampler.box_size // 2 - 1), agreement)
    rotation, shift = _climb(fine, rough.rotation, rough.shift_px, rough.is_mirrored)
    aligned = _transform(sampler, Alignment(rotation, shift, rough.is_mirrored, 0.0))
    correlation = _correlation(aligned, reference)
    agreement = fourier_shell_correlation(aligned, reference)
    return float(agreement[1:].mean()), Alignment(rotation, shift, rough.is_mirrored, correlation)


def apply_alignment(moving: Float[Tensor, "d d d"], alignment: Alignment) -> Float[Tensor, "d d d"]:
    """Move a map onto its reference; frequencies at and beyond Nyquist are left empty."""
    return _transform(FourierSampler(moving.float()), alignment)


def _transform(sampler: FourierSampler, alignment: Alignment) -> Float[Tensor, "d d d"]:
    size = sampler.box_size
    full, half = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    z, y, x = torch.meshgrid(full, full, half, indexing="ij")
    grid = torch.stack([x, y, z], dim=-1)
    inside = grid.norm(dim=-1) < 0.5 - 1e-6
    values = sampler.at(grid[inside] @ alignment.rotation)
    if alignment.is_mirrored:
        values = values.conj()
    phase = -2 * math.pi * (grid[inside] @ alignment.shift_px)
    fourier = torch.zeros(inside.shape, dtype=values.dtype)
    fourier[inside] = values * torch.polar(torch.ones_like(phase), phase)
    return torch.fft.fftshift(torch.fft.irfftn(fourier, s=(size, size, size)))


def _correlation(a: Float[Tensor, "d d d"], b: Float[Tensor, "d d d"]) -> float:
    first, second = a.double() - a.double().mean(), b.double() - b.double().mean()
    return float((first * second).sum() / (first.norm() * second.norm()).clamp(min=1e-300))


class _PaddedTransform:
    """A volume's Fourier transform around zero, linearly interpolated: coarser than a `FourierSampler`, and faster.

    Padded to twice the box, and corrected for what the interpolation does to the density.
    """

    def __init__(self, volume: Float[Tensor, "d d d"], radius: int):
        box_size = volume.shape[-1]
        self.padded_size = 2 * box_size
        triangle = torch.sinc((torch.arange(box_size) - box_size // 2) / self.padded_size).square()
        corrected = volume / (triangle[:, None, None] * triangle[:, None] * triangle)
        padded = torch.nn.functional.pad(corrected, (box_size // 2,) * 6)
        fourier = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(padded)))
        reach = min(2 * radius + 1, box_size - 1)
        inner = slice(box_size - reach, box_size + reach + 1)
        self.side = 2 * reach + 1
        self._rows = torch.view_as_real(fourier[inner, inner, inner].contiguous()).reshape(-1, 2)

    def at(self, frequencies: Float[Tensor, "*batch 3"]) -> Complex[Tensor, "*batch"]:
        """Values at cycles per pixel, (x, y, z); differentiable in them."""
        cell = frequencies.reshape(-1, 3) * self.padded_size + self.side // 2
        first = cell.detach().floor().clamp(0, self.side - 2)
        rest, index = cell - first, first.int()
        pair = torch.arange(2, dtype=torch.int32)
        x, y, z = (index[:, axis, None] + pair for axis in range(3))
        neighbours = (z[:, :, None, None] * self.side + y[:, None, :, None]) * self.side + x[:, None, None, :]
        along_x, along_y, along_z = torch.stack([1 - rest, rest], dim=-1).unbind(-2)
        weights = along_z[:, :, None, None] * along_y[:, None, :, None] * along_x[:, None, None, :]
        summed = torch.nn.functional.embedding_bag(
            neighbours.flatten(1), self._rows, mode="sum", per_sample_weights=weights.flatten(1)
        )
        return torch.view_as_complex(summed).reshape(frequencies.shape[:-1])


class _Comparison:
    """The correlation of a turned and shifted map with a reference, within a ball of frequencies.

    Each shell of both maps is scaled to the same power, then weighted.
    """

    def __init__(
        self,
        moving: _PaddedTransform,
        frequencies: Float[Tensor, "p 3"],
        reference: Complex[Tensor, "p"],
        moving_scale: Float[Tensor, "p"],
    ):
        self.frequencies = frequencies
        self._moving = moving
        self._reference = reference
        self._moving_scale = moving_scale

    @classmethod
    def between(
        cls,
        moving: _PaddedTransform,
        reference: FourierSampler,
        radius: int,
        agreement: Float[Tensor, "shells"] | None = None,
    ) -> "_Comparison":
        """Compare within `radius` Fourier pixels; shells weighted by their number of points if nothing is known.

        Args:
            agreement: Correlation per shell, from an earlier comparison.
        """
        points = _half_ball(radius)
        if len(points) > _FINE_POINTS:
            chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:_FINE_POINTS]
            points = points[chosen]
        shell = points.float().norm(dim=-1).round().long()
        frequencies = points / reference.box_size
        target, own = reference.at(frequencies), moving.at(frequencies)
        weight = torch.ones(radius + 1) if agreement is None else agreement[: radius + 1].clamp(min=0.02)
        scaled_target = target * weight[shell] / _shell_amplitude(target, shell)
        unit_target = scaled_target / scaled_target.abs().square().sum().clamp(min=1e-30).sqrt()
        return cls(moving, frequencies, unit_target, 1 / _shell_amplitude(own, shell))

    def scores(
        self, rotation: Float[Tensor, "q 3 3"], shift_px: Float[Tensor, "s 3"], hands: tuple[bool, ...]
    ) -> Float[Tensor, "hands q s"]:
        """Correlation for each rotation with each shift; True in `hands` stands for the mirror image."""
        phase = -2 * math.pi * (self.frequencies @ shift_px.T)
        values = self._rotated(rotation)
        found = []
        for is_mirrored in hands:
            product = (values.conj() if is_mirrored else values) * self._reference.conj()
            found.append(product.real @ phase.cos() - product.imag @ phase.sin())
        return torch.stack(found)

    def score(
        self, rotation: Float[Tensor, "3 3"], shift_px: Float[Tensor, "3"], is_mirrored: bool
    ) -> Float[Tensor, ""]:
        """Correlation for one rotation and shift, differentiable in both."""
        phase = -2 * math.pi * (self.frequencies @ shift_px)
        values = self._rotated(rotation[None])[0]
        product = (values.conj() if is_mirrored else values) * self._reference.conj()
        return (product.real * phase.cos() - product.imag * phase.sin()).sum()

    def _rotated(self, rotation: Float[Tensor, "q 3 3"]) -> Complex[Tensor, "q p"]:
        """The moving map at every compared frequency, normalised."""
        values = self._moving.at(self.frequencies @ rotation) * self._moving_scale
        power = values.abs().square().sum(-1, keepdim=True).clamp(min=1e-30).sqrt()
        return values / power


def _half_ball(radius: int) -> Int[Tensor, "p 3"]:
    """Fourier pixels (x, y, z) in a ball without its centre, one of each pair of opposite points."""
    axis = torch.arange(-radius, radius + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).flatten(0, 2)
    side = (2 * radius + 1) ** 2 * points[:, 2] + (2 * radius + 1) * points[:, 1] + points[:, 0]
    return points[(side > 0) & (points.square().sum(-1) <= radius**2)]


def _shell_amplitude(values: Complex[Tensor, "p"], shell: Int[Tensor, "p"]) -> Float[Tensor, "p"]:
    """Root mean square amplitude of each point's shell."""
    count = torch.bincount(shell).clamp(min=1)
    power = torch.bincount(shell, weights=values.abs().square().double()) / count
    return power.clamp(min=1e-30).sqrt().float()[shell]


def _search(
    comparison: _Comparison, furthest_px: float, hands: tuple[bool, ...]
) -> list[tuple[Float[Tensor, "best 3 3"], Float[Tensor, "best 3"]]]:
    """For each hand the best rotations of a grid over all of SO(3), each with its best shift."""
    # A quarter of the shortest wavelength compared.
    step = float(1 / (4 * comparison.frequencies.norm(dim=-1).max()))
    steps = int(furthest_px / step)
    axis = torch.arange(-steps, steps + 1) * step
    shifts = torch.cartesian_prod(axis, axis, axis).reshape(-1, 3)
    shifts = shifts[shifts.norm(dim=-1) <= max(furthest_px, 1e-6)]
    rotations = all_rotations(_COARSE_LEVEL)
    best = [comparison.scores(part, shifts, hands).max(-1) for part in rotations.split(512)]
    score, position = torch.cat([b.values for b in best], dim=1), torch.cat([b.indices for b in best], dim=1)
    order = score.argsort(dim=1, descending=True)[:, :_KEPT]
    return [(rotations[order[i]], shifts[position[i, order[i]]]) for i in range(len(hands))]


def _descend(
    comparison: _Comparison, rotation: Float[Tensor, "q 3 3"], shift_px: Float[Tensor, "q 3"], is_mirrored: bool
) -> tuple[Float[Tensor, "best 3 3"], Float[Tensor, "best 3"]]:
    """Follow candidates through smaller and smaller steps and return the best few."""
    cube = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
    wavelength_px = float(1 / comparison.frequencies.norm(dim=-1).max())
    for degrees, fraction, num_kept in ((7.0, 0.2, 12), (3.5, 0.1, 6), (1.8, 0.05, 6)):
        turn = rotation_vector_to_matrix(cube * math.radians(degrees))
        moves = cube * fraction * wavelength_px
        found = []
        for start, place in zip(rotation, shift_px, strict=True):
            turned = start @ turn
            table = comparison.scores(turned, place + moves, (is_mirrored,))[0]
            best = int(table.argmax())
            found.append((float(table.max()), turned[best // len(moves)], place + moves[best % len(moves)]))
        found.sort(key=lambda candidate: -candidate[0])
        rotation = torch.stack([candidate[1] for candidate in found[:num_kept]])
        shift_px = torch.stack([candidate[2] for candidate in found[:num_kept]])
    return rotation, shift_px


def _best_of(
    local: _Comparison,
    wide: _Comparison,
    rotation: Float[Tensor, "q 3 3"],
    shift_px: Float[Tensor, "q 3"],
    is_mirrored: bool,
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Of several candidates, followed to their optima, the best in a wider band.

    A nearly symmetric map has several optima that only high frequencies tell apart.
    """
    found: list[tuple[float, Tensor, Tensor]] = []
    for start, place in zip(rotation, shift_px, strict=True):
        if any(float(geodesic_angle(start, other[1])) < math.radians(4) for other in found):
            continue
        turned, shifted = _climb(local, start, place, is_mirrored)
        found.append((float(wide.score(turned, shifted, is_mirrored)), turned, shifted))
    _, best_rotation, best_shift = max(found, key=lambda candidate: candidate[0])
    return best_rotation, best_shift


def _climb(
    comparison: _Comparison, rotation: Float[Tensor, "3 3"], shift_px: Float[Tensor, "3"], is_mirrored: bool
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Go to the nearest optimum along the gradient."""
    wavelength_px = float(1 / comparison.frequencies.norm(dim=-1).max())

    def placed(step: Tensor) -> tuple[Tensor, Tensor]:
        # Radians and wavelengths: numbers of one size.
        return rotation @ rotation_vector_to_matrix(step[:3]), shift_px + step[3:] * wavelength_px

    def loss(step: np.ndarray) -> tuple[float, np.ndarray]:
        variable = torch.tensor(step, dtype=torch.float32, requires_grad=True)
        turned, shifted = placed(variable)
        value = -comparison.score(turned, shifted, is_mirrored)
        (gradient,) = torch.autograd.grad(value, variable)
        return float(value.detach()), gradient.double().numpy()

    found = minimize(loss, np.zeros(6), jac=True, method="L-BFGS-B", options={"maxiter": 30, "ftol": 1e-9})
    with torch.no_grad():
        turned, shifted = placed(torch.tensor(found.x, dtype=torch.float32))
    return turned, shifted
