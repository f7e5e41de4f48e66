"""How well two half maps agree: unmasked, masked, and with what the mask adds taken off again."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.band import largest_radius
from cryohydra.fourier.fsc import crossing_shell, fourier_shell_correlation, shell_index

_RANDOMISED_BELOW = 0.8
"""Unmasked correlation from which on phases are randomised: before it, a mask has nothing to add."""
_SHELLS_OF_THE_CUT = 2
"""Shells after the cut that are left uncorrected: a mask spreads phases that were kept over it."""


@dataclass(frozen=True)
class HalfMapFsc:
    """Fourier shell correlations of two half maps, in shells 0, 1, ... of one Fourier pixel each."""

    unmasked: Float[Tensor, "shells"]
    masked: Float[Tensor, "shells"]
    randomised: Float[Tensor, "shells"]
    """Masked, after the phases of both maps were made random from `first_randomised` on: the mask's own part."""
    corrected: Float[Tensor, "shells"]
    """What is left of `masked` without that part."""
    first_randomised: int


@dataclass(frozen=True)
class Resolution:
    """Where a curve falls below a threshold."""

    angstrom: float
    is_limit: bool
    """Whether the curve never falls below it, so that the box sets the limit and not the maps."""

    def __str__(self) -> str:
        return f"{self.angstrom:.1f} Å" + (" (the limit of the box)" if self.is_limit else "")


def half_map_fsc(
    first: Float[Tensor, "d d d"],
    second: Float[Tensor, "d d d"],
    mask: Float[Tensor, "d d d"],
    generator: torch.Generator,
    shared_radius: int = 0,
) -> HalfMapFsc:
    """Correlate two half maps, up to one Fourier pixel before Nyquist.

    Args:
        mask: In [0, 1], with a soft edge.
        shared_radius: Up to which the halves began alike; phases are kept to there, to see what the mask makes of them.
        generator: Of the random phases.

    References:
        Chen et al., High-resolution noise substitution to measure overfitting and validate resolution in 3D structure
        determination by single particle electron cryomicroscopy, Ultramicroscopy 2013.
    """
    unmasked, masked = _fsc(first, second), _fsc(first * mask, second * mask)
    below = torch.nonzero(unmasked[1:] < _RANDOMISED_BELOW).flatten()
    cut = max(int(below[0]) + 1 if len(below) else len(unmasked), shared_radius + 1)
    random = [randomise_phases(half, cut, generator) * mask for half in (first, second)]
    randomised = _fsc(*random)
    corrected = masked.clone()
    beyond = slice(cut + _SHELLS_OF_THE_CUT, None)
    # A mask adds correlation; where random phases show less than none, that is chance.
    added = randomised[beyond].clamp(0, 0.999)
    corrected[beyond] = (masked[beyond] - added) / (1 - added)
    return HalfMapFsc(unmasked, masked, randomised, corrected, cut)


def randomise_phases(
    density: Float[Tensor, "d d d"], first_shell: int, generator: torch.Generator
) -> Float[Tensor, "d d d"]:
    """The same amplitudes with random phases from a shell on."""
    box_size = density.shape[-1]
    noise = torch.randn(density.shape, generator=generator).to(density.device)
    fourier, random = torch.fft.rfftn(density), torch.fft.rfftn(noise)
    # The phases of a real density's transform: those of f and -f belong together.
    turned = fourier.abs() * random / random.abs().clamp(min=1e-20)
    is_random = shell_index(box_size, density.device) >= first_shell
    return torch.fft.irfftn(torch.where(is_random, turned, fourier), s=density.shape)


def filter_shells(density: Float[Tensor, "d d d"], factor: Float[Tensor, "shells"]) -> Float[Tensor, "d d d"]:
    """Multiply each shell by a number; shells beyond the last are taken out."""
    shell = shell_index(density.shape[-1], density.device)
    factor = torch.nn.functional.pad(factor.to(density), (0, int(shell.max()) + 1 - len(factor)))
    return torch.fft.irfftn(torch.fft.rfftn(density) * factor[shell], s=density.shape)


def resolution_of(
    curve: Float[Tensor, "shells"], threshold: float, box_size: int, pixel_size_angstrom: float
) -> Resolution:
    """The resolution at which a curve first falls below a threshold."""
    shell = crossing_shell(curve, threshold)
    is_limit = not bool((curve[1:] < threshold).any())
    return Resolution(box_size * pixel_size_angstrom / shell, is_limit)


def _fsc(first: Float[Tensor, "d d d"], second: Float[Tensor, "d d d"]) -> Float[Tensor, "shells"]:
    return fourier_shell_correlation(first, second)[: largest_radius(first.shape[-1]) + 1]
