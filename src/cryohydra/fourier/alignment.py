"""Laying one map on another: rotation, shift and hand.

From coarse to fine. All rotations, shifts and both hands are compared at five Fourier pixels as one matrix
product; the best of them climb in a band that widens (Levenberg-Marquardt on all of them at once); the
last climb counts each shell by how well it agrees.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cryohydra._typing import Complex, Float, Int, Tensor
from cryohydra.fourier.gridding import FourierSampler
from cryohydra.geometry.rotations import geodesic_angle, rotation_vector_to_matrix
from cryohydra.geometry.so3_grid import all_rotations

_COARSE_LEVEL = 2
_COARSE_RADIUS = 5
_LOCAL_RADIUS = 10
_FINE_RADIUS = 24
_FULL_RADIUS = 8
"""Up to here all points are compared, beyond it a sample."""
_FINE_POINTS = 5_000
_NUM_TRIED = 16
"""Optima of the coarse grid, of each hand, that climb."""
_NUM_FOLLOWED = 8
"""Of those, the ones that climb on in a wider band."""
_NUM_FINISHED = 2
"""Of those, the ones that climb on with weighted shells."""
_LEAST_AGREEMENT = 0.02
"""Correlation with which a shell counts at least."""


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


class AlignableMap:
    """A map and what aligning it needs, computed when first asked: worth keeping where it meets several others."""

    def __init__(self, volume: Float[Tensor, "d d d"]):
        self.volume = volume.float()
        self.box_size = volume.shape[-1]

    @functools.cached_property
    def sampler(self) -> FourierSampler:
        """Its transform, exactly."""
        return FourierSampler(self.volume)

    @functools.cached_property
    def lattice(self) -> "_PaddedTransform":
        """Its transform and the gradient of it, quickly."""
        return _PaddedTransform(self.volume, min(_FINE_RADIUS, self.largest_radius))

    @functools.cached_property
    def _fourier(self) -> Complex[Tensor, "d d d"]:
        fourier: Tensor = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(self.volume)))
        return fourier

    @functools.cached_property
    def coarse_turns(self) -> Float[Tensor, "2 r p"]:
        """Its coarse band at the rotations of `_turns_in_cell`: real and imaginary parts.

        Shells of equal power, rows of unit length.
        """
        points = _half_ball(min(_COARSE_RADIUS, self.largest_radius))
        values = self.lattice.at(points / self.box_size @ _turns_in_cell())
        scaled = values / _shell_amplitude(self.at_pixels(points), _shell(points))
        unit = scaled / scaled.abs().square().sum(-1, keepdim=True).clamp(min=1e-30).sqrt()
        return torch.stack([unit.real, unit.imag])

    @property
    def largest_radius(self) -> int:
        """Below Nyquist, whose points have no partner."""
        return self.box_size // 2 - 1

    def at_pixels(self, points: Int[Tensor, "p 3"]) -> Complex[Tensor, "p"]:
        """Values at whole Fourier pixels (x, y, z)."""
        x, y, z = (points + self.box_size // 2).unbind(-1)
        return self._fourier[z, y, x]


def align_map(
    moving: AlignableMap | Float[Tensor, "d d d"],
    reference: AlignableMap | Float[Tensor, "d d d"],
    max_shift_px: float | None = None,
    keeps_hand: bool = False,
) -> Alignment:
    """Find what lays `moving` on `reference`, over all rotations, shifts in a ball, and both hands.

    Args:
        max_shift_px: None for a sixth of the box.
        keeps_hand: Leave the mirror image out of the search.
    """
    moving = moving if isinstance(moving, AlignableMap) else AlignableMap(moving)
    reference = reference if isinstance(reference, AlignableMap) else AlignableMap(reference)
    assert moving.box_size == reference.box_size
    largest = reference.largest_radius
    furthest = reference.box_size / 6 if max_shift_px is None else max_shift_px
    is_mirrored = torch.tensor([False] if keeps_hand else [False, True])
    found = _search(moving, reference, furthest, is_mirrored)
    coarse, local, fine = (
        _Comparison(moving, reference, min(radius, largest)) for radius in (_COARSE_RADIUS, _LOCAL_RADIUS, _FINE_RADIUS)
    )
    # A nearly symmetric map has several optima that only high frequencies tell apart.
    found = coarse.climb(found, num_steps=5).best_of_each_hand(_NUM_FOLLOWED)
    found = local.climb(found, num_steps=5)
    found = fine.scored(found).best_of_each_hand(_NUM_FINISHED)
    for num_steps in (6, 4):
        # Once more: the shells then count by what they hold after the first time.
        found = fine.weighted_for(found).climb(found, num_steps)
    best = found.at(int(fine.mean_shell_correlation(found).argmax()))
    rough = Alignment(best.rotation[0], best.shift_px[0], bool(best.is_mirrored[0]), 0.0)
    correlation = _correlation(_transform(moving.sampler, rough), reference.volume)
    return Alignment(rough.rotation, rough.shift_px, rough.is_mirrored, correlation)


def apply_alignment(moving: AlignableMap | Float[Tensor, "d d d"], alignment: Alignment) -> Float[Tensor, "d d d"]:
    """Move a map onto its reference; frequencies at and beyond Nyquist are left empty."""
    held = moving if isinstance(moving, AlignableMap) else AlignableMap(moving)
    return _transform(held.sampler, alignment)


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
    """A volume's Fourier transform around zero and its gradient, linearly interpolated: rougher and faster than
    a `FourierSampler`.

    Padded to twice the box, and corrected for what the interpolation does to the density.
    """

    def __init__(self, volume: Float[Tensor, "d d d"], radius: int):
        box_size = volume.shape[-1]
        self.padded_size = 2 * box_size
        axis = torch.arange(box_size) - box_size // 2
        triangle = torch.sinc(axis / self.padded_size).square()
        corrected = volume / (triangle[:, None, None] * triangle[:, None] * triangle)
        reach = min(2 * radius + 2, box_size - 1)
        self.side = 2 * reach + 1
        # Only what is kept is computed: one matrix per axis instead of a transform of the padded box.
        kept = torch.arange(-reach, reach + 1) / self.padded_size
        phase = -2 * math.pi * kept[:, None] * axis
        wave = torch.polar(torch.ones_like(phase), phase)
        along = torch.stack([wave, -2j * math.pi * axis * wave])
        rows = torch.einsum("zyx,dfx->dzyf", corrected.to(wave.dtype), along)
        value_y, by_x = torch.einsum("dzyf,gy->dzgf", rows, wave)
        by_y = torch.einsum("zyf,gy->zgf", rows[0], along[1])
        value, by_x, by_y = torch.einsum("dzgf,hz->dhgf", torch.stack([value_y, by_x, by_y]), wave)
        by_z = torch.einsum("zgf,hz->hgf", value_y, along[1])
        self._rows = torch.view_as_real(torch.stack([value, by_x, by_y, by_z], dim=-1)).reshape(-1, 8).contiguous()
        self._values = self._rows[:, :2].contiguous()

    def at(self, frequencies: Float[Tensor, "*batch 3"]) -> Complex[Tensor, "*batch"]:
        """Values at cycles per pixel, (x, y, z)."""
        found = self._interpolate(self._values, frequencies)
        return torch.view_as_complex(found).reshape(frequencies.shape[:-1])

    def with_gradient(
        self, frequencies: Float[Tensor, "*batch 3"]
    ) -> tuple[Complex[Tensor, "*batch"], Complex[Tensor, "*batch 3"]]:
        """Values, and their derivatives by the frequencies."""
        found = torch.view_as_complex(self._interpolate(self._rows, frequencies).unflatten(-1, (4, 2)))
        found = found.reshape(*frequencies.shape[:-1], 4)
        return found[..., 0], found[..., 1:]

    def _interpolate(self, rows: Float[Tensor, "n c"], frequencies: Float[Tensor, "*batch 3"]) -> Float[Tensor, "m c"]:
        cell = frequencies.reshape(-1, 3) * self.padded_size + self.side // 2
        first = cell.floor().clamp_(0, self.side - 2)
        x, y, z = (cell - first).unbind(-1)
        index = first.int()
        corner = (index[:, 2] * self.side + index[:, 1]) * self.side + index[:, 0]
        steps = [dz * self.side**2 + dy * self.side + dx for dz, dy, dx in itertools.product((0, 1), repeat=3)]
        neighbours = corner[:, None] + torch.tensor(steps, dtype=torch.int32)
        pairs_x = torch.stack([1 - x, x], dim=-1)
        pairs_yz = torch.stack([(1 - z) * (1 - y), (1 - z) * y, z * (1 - y), z * y], dim=-1)
        weights = (pairs_yz[:, :, None] * pairs_x[:, None, :]).flatten(1)
        summed: Tensor = torch.nn.functional.embedding_bag(neighbours, rows, mode="sum", per_sample_weights=weights)
        return summed


@dataclass(frozen=True)
class _Placements:
    """Ways to lay a map, and how well each agrees."""

    rotation: Float[Tensor, "c 3 3"]
    shift_px: Float[Tensor, "c 3"]
    is_mirrored: Tensor
    score: Float[Tensor, "c"]

    @classmethod
    def concatenate(cls, parts: Sequence["_Placements"]) -> "_Placements":
        """All of several."""
        columns = zip(*((p.rotation, p.shift_px, p.is_mirrored, p.score) for p in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))

    def at(self, index: int | Int[Tensor, "_"]) -> "_Placements":
        rows = torch.as_tensor(index).reshape(-1)
        return _Placements(self.rotation[rows], self.shift_px[rows], self.is_mirrored[rows], self.score[rows])

    def best_of_each_hand(self, count: int, least_angle: float = math.radians(5)) -> "_Placements":
        """The best, none within an angle of a better one of its hand."""
        kept: list[int] = []
        left = {False: count, True: count}
        for c in self.score.argsort(descending=True).tolist():
            hand = bool(self.is_mirrored[c])
            others = [k for k in kept if bool(self.is_mirrored[k]) == hand]
            if left[hand] == 0:
                continue
            better = self.rotation[others]
            if others and float(geodesic_angle(better, self.rotation[c].expand_as(better)).min()) < least_angle:
                continue
            kept.append(c)
            left[hand] -= 1
        return self.at(torch.tensor(kept))


class _Comparison:
    """The correlation of a turned and shifted map with a reference, within a ball of frequencies.

    Each shell of both maps is scaled to the same power, then weighted.
    """

    def __init__(
        self,
        moving: AlignableMap,
        reference: AlignableMap,
        radius: int,
        agreement: Float[Tensor, "shells"] | None = None,
    ):
        """Compare within `radius` Fourier pixels.

        Args:
            agreement: Correlation per shell, from an earlier comparison; None to count all points alike.
        """
        self._maps = moving, reference
        self.radius = radius
        points = _points_of_band(radius)
        self.shell = _shell(points)
        self.frequencies = points / reference.box_size
        weight = torch.ones(radius + 1) if agreement is None else agreement.clamp(min=_LEAST_AGREEMENT)
        target, own = reference.at_pixels(points), moving.at_pixels(points)
        root = weight.sqrt()[self.shell]
        scaled = target * root / _shell_amplitude(target, self.shell)
        self._reference = scaled / scaled.abs().square().sum().clamp(min=1e-30).sqrt()
        self._scale = root / _shell_amplitude(own, self.shell)

    def weighted_for(self, found: _Placements) -> "_Comparison":
        """The same with its shells weighted by how they agree in the best of some placements."""
        best = found.at(int(self.mean_shell_correlation(found).argmax()))
        return _Comparison(*self._maps, self.radius, self._shell_correlation(self._placed(best)[0])[0])

    def scored(self, found: _Placements) -> _Placements:
        """The same placements, their scores those of this comparison."""
        score = (self._placed(found)[0] * self._reference.conj()).real.sum(-1)
        return _Placements(found.rotation, found.shift_px, found.is_mirrored, score)

    def mean_shell_correlation(self, found: _Placements) -> Float[Tensor, "c"]:
        """Mean over all shells but the first, whatever their weights."""
        return self._shell_correlation(self._placed(found)[0])[:, 1:].mean(-1)

    def _shell_correlation(self, values: Complex[Tensor, "c p"]) -> Float[Tensor, "c shells"]:
        sums = torch.zeros(len(values), self.radius + 1)
        cross = sums.index_add(1, self.shell, (values * self._reference.conj()).real)
        own = sums.index_add(1, self.shell, values.abs().square())
        other = sums.index_add(1, self.shell, self._reference.abs().square().expand(len(values), -1))
        return cross / (own * other).clamp(min=1e-30).sqrt()

    def climb(self, found: _Placements, num_steps: int) -> _Placements:
        """Follow each placement towards its optimum by Levenberg-Marquardt steps, only ever upwards."""
        damping, stride = torch.full_like(found.score, 1e-3), torch.ones_like(found.score)
        found, normal, gradient = self._expanded(found)
        for _ in range(num_steps):
            diagonal = torch.diag_embed(normal.diagonal(dim1=-2, dim2=-1)) * damping[:, None, None]
            floor = 1e-9 * torch.eye(6)
            step = torch.linalg.solve(normal + diagonal + floor, gradient)
            trial, trial_normal, trial_gradient = self._expanded(self._moved(found, step * stride[:, None]))
            better = trial.score > found.score
            found = _Placements(
                torch.where(better[:, None, None], trial.rotation, found.rotation),
                torch.where(better[:, None], trial.shift_px, found.shift_px),
                found.is_mirrored,
                torch.where(better, trial.score, found.score),
            )
            normal = torch.where(better[:, None, None], trial_normal, normal)
            gradient = torch.where(better[:, None], trial_gradient, gradient)
            # Success lengthens the next step: along the axis of a ring the way up is long and even.
            damping = torch.where(better, damping / 4, torch.where(stride > 1, damping, damping.clamp(min=0.05) * 8))
            stride = torch.where(better, (1.7 * stride).clamp(max=8), 1.0)
        return found

    def _moved(self, found: _Placements, step: Float[Tensor, "c 6"]) -> _Placements:
        # Half a radian is further than linearisation reaches; a wavelength too.
        turn = step[:, :3] * (0.5 / step[:, :3].norm(dim=-1, keepdim=True).clamp(min=0.5))
        shift = step[:, 3:] * (0.5 / step[:, 3:].norm(dim=-1, keepdim=True).clamp(min=0.5)) * self._wavelength_px
        rotation = found.rotation @ rotation_vector_to_matrix(turn)
        return _Placements(rotation, found.shift_px + shift, found.is_mirrored, found.score)

    @property
    def _wavelength_px(self) -> float:
        return float(1 / self.frequencies.norm(dim=-1).max())

    def _expanded(self, found: _Placements) -> tuple[_Placements, Float[Tensor, "c 6 6"], Float[Tensor, "c 6"]]:
        """Scores, normal matrices and gradients in radians and wavelengths."""
        values, turned, gradient, length = self._placed(found)
        by_turn = torch.linalg.cross(gradient, turned.to(gradient.dtype))
        by_shift = (-2j * math.pi * self._wavelength_px) * self.frequencies * values[..., None]
        by_step = torch.cat([by_turn * (self._scale / length)[..., None], by_shift], dim=-1)
        jacobian = torch.view_as_real(by_step.transpose(1, 2).contiguous()).flatten(2)  # c 6 2p
        unit = torch.view_as_real(values).flatten(1)
        target = torch.view_as_real(self._reference).flatten()
        score = unit @ target
        # The length of the turned map is no part of what is compared.
        jacobian = jacobian - (jacobian @ unit[:, :, None]) * unit[:, None]
        # A shell bends the score by as much of it as agrees.
        agreement = self._shell_correlation(values).clamp(min=_LEAST_AGREEMENT)[:, self.shell].repeat_interleave(2, 1)
        normal = (jacobian * agreement[:, None]) @ jacobian.transpose(1, 2)
        scored = _Placements(found.rotation, found.shift_px, found.is_mirrored, score)
        return scored, normal, jacobian @ target

    def _placed(
        self, found: _Placements
    ) -> tuple[Complex[Tensor, "c p"], Float[Tensor, "c p 3"], Complex[Tensor, "c p 3"], Float[Tensor, "c 1"]]:
        """Unit predictions; the turned frequencies, the phased gradients there, and the predictions' lengths."""
        turned = self.frequencies @ found.rotation
        values, gradient = self._maps[0].lattice.with_gradient(turned)
        hand = found.is_mirrored[:, None]
        values = torch.where(hand, values.conj(), values)
        gradient = torch.where(hand[..., None], gradient.conj(), gradient)
        phase = -2 * math.pi * (found.shift_px @ self.frequencies.T)
        wave = torch.polar(torch.ones_like(phase), phase)
        scaled = values * wave * self._scale
        length = scaled.abs().square().sum(-1, keepdim=True).clamp(min=1e-30).sqrt()
        return scaled / length, turned, gradient * wave[..., None], length


@functools.cache
def _half_ball(radius: int) -> Int[Tensor, "p 3"]:
    """Fourier pixels (x, y, z) in a ball without its centre, one of each pair of opposite points."""
    axis = torch.arange(-radius, radius + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).flatten(0, 2)
    side = (2 * radius + 1) ** 2 * points[:, 2] + (2 * radius + 1) * points[:, 1] + points[:, 0]
    return points[(side > 0) & (points.square().sum(-1) <= radius**2)]


@functools.cache
def _points_of_band(radius: int) -> Int[Tensor, "p 3"]:
    """All points of a narrow band; of a wide one all inner points and a sample of the outer ones."""
    points = _half_ball(radius)
    if len(points) <= _FINE_POINTS:
        return points
    is_inner = points.square().sum(-1) <= _FULL_RADIUS**2
    outer = points[~is_inner]
    order = torch.randperm(len(outer), generator=torch.Generator().manual_seed(0))
    return torch.cat([points[is_inner], outer[order[: _FINE_POINTS - int(is_inner.sum())]]])


def _shell(points: Int[Tensor, "p 3"]) -> Int[Tensor, "p"]:
    return points.float().norm(dim=-1).round().long()


def _shell_amplitude(values: Complex[Tensor, "p"], shell: Int[Tensor, "p"]) -> Float[Tensor, "p"]:
    """Root mean square amplitude of each point's shell.

    No less than a thousandth of the strongest: a shell that was filtered away stays weak, what interpolation
    leaves in it must not be raised to the power of the others.
    """
    count = torch.bincount(shell).clamp(min=1)
    amplitude = (torch.bincount(shell, weights=values.abs().square().double()) / count).sqrt()
    return amplitude.clamp(min=max(1e-3 * float(amplitude.max()), 1e-15)).float()[shell]


@functools.cache
def _cube_rotations() -> Float[Tensor, "24 3 3"]:
    """The rotations of a cube: they only reorder whole Fourier pixels."""
    signed = [
        torch.diag(torch.tensor(signs)) @ torch.eye(3)[list(order)]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]
    return torch.stack([matrix for matrix in signed if torch.linalg.det(matrix) > 0])


@functools.cache
def _turns_in_cell() -> Float[Tensor, "r 3 3"]:
    """Rotations of the coarse grid that are nearer to the identity than to another rotation of the cube.

    Those of the cube times these are a grid over all rotations; the margin closes the seams between cells.
    """
    rotations = all_rotations(_COARSE_LEVEL)
    angle = torch.stack([geodesic_angle(rotations, turn.expand_as(rotations)) for turn in _cube_rotations()])
    is_near = geodesic_angle(rotations, torch.eye(3).expand_as(rotations)) < angle.amin(0) + math.radians(6)
    return rotations[is_near]


def _search(moving: AlignableMap, reference: AlignableMap, furthest_px: float, is_mirrored: Tensor) -> _Placements:
    """Of each hand the best optima over all rotations and shifts in the coarse band.

    With a rotation C of the cube, V(f C R) compared with W(f) is V(g R) compared with W(g C^-1): the
    reference is reordered 24 times instead of turning the map 24 times as often.
    """
    radius = min(_COARSE_RADIUS, reference.largest_radius)
    points = _half_ball(radius)
    shifts = _shift_ball(furthest_px, reference.box_size / (4 * radius))
    cube, turns = _cube_rotations(), _turns_in_cell()
    reordered = (points.float() @ cube.mT).round().long()  # 24 p 3
    phase = 2 * math.pi / reference.box_size * (reordered.float() @ shifts.T)  # 24 p s
    values = reference.at_pixels(reordered.flatten(0, 1)).unflatten(0, reordered.shape[:2])
    scaled = values / _shell_amplitude(values[0], _shell(points))
    unit = scaled / scaled[0].abs().square().sum().clamp(min=1e-30).sqrt()
    target = unit[..., None] * torch.polar(torch.ones_like(phase), phase)
    turned_real, turned_imag = moving.coarse_turns
    real, imag = (turned_real @ target.real).transpose(0, 1), (turned_imag @ target.imag).transpose(0, 1)  # r 24 s
    rotation = (cube[None] @ turns[:, None]).flatten(0, 1)
    parts = []
    for hand in is_mirrored:
        # The mirror image has conjugate values.
        score, best_shift = ((real - imag) if hand else (real + imag)).max(-1)
        score, best_shift = score.flatten(), best_shift.flatten()
        order = score.argsort(descending=True)[: 12 * _NUM_TRIED]
        every = _Placements(rotation[order], shifts[best_shift[order]], hand.expand(len(order)), score[order])
        parts.append(every.best_of_each_hand(_NUM_TRIED, math.radians(14)))
    return _Placements.concatenate(parts)


def _shift_ball(furthest_px: float, step: float) -> Float[Tensor, "s 3"]:
    """A cubic grid in a ball; the step is a quarter of the shortest wavelength compared."""
    steps = int(furthest_px / step)
    axis = torch.arange(-steps, steps + 1) * step
    shifts = torch.cartesian_prod(axis, axis, axis).reshape(-1, 3)
    return shifts[shifts.norm(dim=-1) <= max(furthest_px, 1e-6)]
