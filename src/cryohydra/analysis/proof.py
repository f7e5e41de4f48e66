"""How far a class is borne out by its images: half maps against each other, the neural map against both."""

from dataclasses import dataclass

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.fsc import crossing_shell, fourier_shell_correlation, shell_index
from cryohydra.fourier.half_map_fsc import HalfMapFsc, Resolution, filter_shells, half_map_fsc, resolution_of
from cryohydra.fourier.soft_mask import mask_around
from cryohydra.inference.half_maps import HalfMaps

GOLD = 0.143
HALF = 0.5
_LEAST_MASK_RADIUS = 4
"""Fourier pixels: a mask is never made from less."""
_VISIBLE = 0.5
"""Of the noise's amplitude in the backprojection: detail of the neural map that is weaker contradicts nothing."""

_AS_FAR = 0.85
"""Of the frequency of the half maps' resolution: a map that agrees up to there agrees as far as can be told."""


@dataclass(frozen=True)
class HalvesMade:
    """How half maps came about, for the reader of a figure."""

    kind: str
    """Short, as in names of files."""
    label: str
    """As on figures and in files of correlations."""
    start_radius: int | None = None
    """Fourier pixels up to which both halves began from one map; None where they share all."""


SHARED_POSES = HalvesMade("shared", "shared poses, not gold standard")


def independent_halves(start_radius: int, size_angstrom: float) -> HalvesMade:
    """Halves that share nothing beyond a low-passed start.

    Args:
        size_angstrom: Of the box.
    """
    start = size_angstrom / start_radius
    return HalvesMade("independent", f"independent halves, common start at {start:.1f} Å", start_radius)


@dataclass(frozen=True)
class ClassProof:
    """What half maps say of a class. Curves are over shells of one Fourier pixel from zero."""

    class_index: int
    made: HalvesMade
    num_particles: tuple[float, float]
    """In each half, by probability."""
    box_size: int
    pixel_size_angstrom: float
    halves: HalfMapFsc
    model: Float[Tensor, "shells"]
    """Of the neural map and the backprojection of all particles, masked."""
    expected: Float[Tensor, "shells"]
    """The same, were the neural map perfect: what noise in the backprojection allows."""
    model_amplitude: Float[Tensor, "shells"]
    noise_amplitude: Float[Tensor, "shells"]
    """Of the noise in the backprojection within the mask."""
    mask: Float[Tensor, "d d d"]
    filtered: Float[Tensor, "d d d"]
    """The backprojection of all particles, each shell weighed by how well it is known."""
    neural: Float[Tensor, "d d d"]
    local_correlation: Float[Tensor, "d d d"]
    """Of the neural map and the backprojection around each voxel."""

    @property
    def frequency_per_angstrom(self) -> Float[np.ndarray, "shells"]:
        """Of each shell."""
        return np.arange(len(self.model)) / (self.box_size * self.pixel_size_angstrom)

    def resolution(self, curve: Float[Tensor, "shells"], threshold: float) -> Resolution:
        """Where one of the curves falls below a threshold."""
        return resolution_of(curve, threshold, self.box_size, self.pixel_size_angstrom)

    @property
    def invented_from(self) -> float | None:
        """Resolution in angstrom beyond that of the half maps from which on the neural map shows visible detail."""
        known = crossing_shell(self.halves.corrected, GOLD)
        shell = torch.arange(len(self.model))
        is_visible = (shell > known) & (self.model_amplitude > _VISIBLE * self.noise_amplitude)
        found = torch.nonzero(is_visible).flatten()
        return None if not len(found) else self.box_size * self.pixel_size_angstrom / int(found[0])

    def sentences(self, moves: bool) -> tuple[str, ...]:
        """What the numbers mean.

        Args:
            moves: Whether the class has conformations, over which backprojection averages.
        """
        known, half = (self.resolution(self.halves.corrected, threshold) for threshold in (GOLD, HALF))
        agrees = self.resolution(self.model, HALF)
        said = [f"Half maps ({self.made.label}): FSC 0.143 at {known}, 0.5 at {half}, corrected for the mask."]
        start = self.made.start_radius
        if start is not None and crossing_shell(self.halves.corrected, GOLD) <= start + 2:
            said.append("That is no better than the common start: the images bear out nothing beyond it.")
        elif crossing_shell(self.model, HALF) >= _AS_FAR * crossing_shell(self.halves.corrected, GOLD):
            said.append(f"The neural map agrees with the images (FSC 0.5) to {agrees}, as far as the half maps go.")
        else:
            why = " Backprojection averages over the motion, which the neural map does not." if moves else ""
            said.append(
                f"The neural map agrees with the images (FSC 0.5) only to {agrees}, less far than the half maps do "
                f"with each other.{why}"
            )
        if self.invented_from is not None:
            said.append(
                f"From {self.invented_from:.1f} Å on the neural map shows detail that the half maps do not bear out: "
                "low-pass it there before you interpret it."
            )
        return tuple(said)


def prove_class(
    maps: HalfMaps,
    neural: Float[Tensor, "d d d"],
    *,
    class_index: int,
    made: HalvesMade,
    num_particles: tuple[float, float],
    pixel_size_angstrom: float,
) -> ClassProof:
    """Compare the half maps of a class with each other and with its neural map."""
    box_size = neural.shape[-1]
    first, second = maps.halves
    rough = fourier_shell_correlation(first, second)
    limit = box_size // 4 if made.start_radius is None else max(made.start_radius, _LEAST_MASK_RADIUS)
    radius = min(max(int(crossing_shell(rough, HALF) / 2), _LEAST_MASK_RADIUS), limit)
    mask = mask_around(maps.whole, radius, extend_px=box_size / 32, edge_px=box_size / 16)
    halves = half_map_fsc(first, second, mask, torch.Generator().manual_seed(0), made.start_radius or 0)
    # Two halves together are known better than each: Rosenthal and Henderson, J. Mol. Biol. 2003.
    known = halves.corrected.clamp(0, 1)
    whole_known = 2 * known / (1 + known)
    num_shells = len(known)
    filtered = filter_shells(maps.whole, whole_known)
    # In the images' scale: the neural map may be of images that were scaled otherwise.
    neural = neural * _scale_between(neural, filtered)
    amplitude = _shell_amplitude(maps.whole * mask)[:num_shells]
    resolved_px = box_size / crossing_shell(halves.corrected, GOLD)
    return ClassProof(
        class_index=class_index,
        made=made,
        num_particles=num_particles,
        box_size=box_size,
        pixel_size_angstrom=pixel_size_angstrom,
        halves=halves,
        model=fourier_shell_correlation(neural * mask, maps.whole * mask)[:num_shells],
        expected=whole_known.sqrt(),
        # Without the mask, which would carry some of each shell into the next.
        model_amplitude=_shell_amplitude(neural)[:num_shells],
        noise_amplitude=amplitude * (1 - whole_known).sqrt(),
        mask=mask,
        filtered=filtered,
        neural=neural,
        local_correlation=local_correlation(_like(neural, filtered), filtered, max(1.5, resolved_px / 2)),
    )


def local_correlation(
    first: Float[Tensor, "d d d"], second: Float[Tensor, "d d d"], width_px: float
) -> Float[Tensor, "d d d"]:
    """Correlation of two densities in a Gaussian window around each voxel, in [-1, 1].

    Args:
        width_px: Standard deviation of the window.
    """
    frequency = torch.arange(first.shape[-1]) / first.shape[-1]
    window = torch.exp(-2 * (torch.pi * width_px * frequency).square())

    def around(values: Float[Tensor, "d d d"]) -> Float[Tensor, "d d d"]:
        return filter_shells(values, window)

    first, second = first.double(), second.double()
    mean, other = around(first), around(second)
    covariance = around(first * second) - mean * other
    variance = (around(first * first) - mean * mean) * (around(second * second) - other * other)
    floor = 1e-6 * float(variance.amax())
    return torch.where(variance > floor, covariance / variance.clamp(min=floor).sqrt(), 0.0).clamp(-1, 1).float()


def _scale_between(density: Float[Tensor, "d d d"], other: Float[Tensor, "d d d"]) -> float:
    """The factor that brings a density nearest to another one."""
    return float((density * other).sum() / density.square().sum().clamp(min=1e-20))


def _like(density: Float[Tensor, "d d d"], other: Float[Tensor, "d d d"]) -> Float[Tensor, "d d d"]:
    """A density with the shells' amplitudes of another one, so that only what they show is compared."""
    own = _shell_amplitude(density)
    return filter_shells(density, torch.where(own > 1e-6 * own.max(), _shell_amplitude(other) / own, 0.0))


def _shell_amplitude(density: Float[Tensor, "d d d"]) -> Float[Tensor, "shells"]:
    """Root mean square of the Fourier coefficients in each shell."""
    shell = shell_index(density.shape[-1]).flatten()
    power = torch.bincount(shell, weights=torch.fft.rfftn(density.double()).abs().square().flatten())
    return (power / torch.bincount(shell)).sqrt().float()
