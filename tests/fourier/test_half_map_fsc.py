"""Half maps agree as far as they share something, whatever the mask."""

import pytest
import torch

from cryohydra.fourier.fsc import shell_index
from cryohydra.fourier.half_map_fsc import filter_shells, half_map_fsc, randomise_phases, resolution_of
from cryohydra.fourier.soft_mask import mask_around

D = 48
SHARED = 10
"""Shells that the halves below have in common."""


def _ball(radius_px: float) -> torch.Tensor:
    axis = torch.arange(D) - D // 2
    return ((axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt() < radius_px).float()


@pytest.fixture
def halves(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A common part up to a shell, noise that falls off beyond it."""
    common = filter_shells(torch.randn(D, D, D, generator=generator) * _ball(12), torch.ones(SHARED + 1)) * 3
    falling = torch.exp(-torch.arange(D) / 12.0)
    first, second = (common + 0.3 * filter_shells(torch.randn(D, D, D, generator=generator), falling) for _ in "ab")
    return first, second


def test_random_phases_keep_amplitudes_and_what_lies_before_them(generator: torch.Generator) -> None:
    density = torch.randn(D, D, D, generator=generator)
    before, after = torch.fft.rfftn(density), torch.fft.rfftn(randomise_phases(density, 6, generator))
    torch.testing.assert_close(after.abs(), before.abs(), atol=1e-2, rtol=1e-3)
    kept = shell_index(D) < 6
    torch.testing.assert_close(after[kept], before[kept], atol=1e-2, rtol=1e-3)
    overlap = (before[~kept] * after[~kept].conj()).real.sum() / before[~kept].abs().square().sum()
    assert abs(float(overlap)) < 0.05


def test_what_a_mask_adds_is_taken_off(halves: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator) -> None:
    # A hard edge spreads each shell over many.
    found = half_map_fsc(*halves, _ball(9), generator)
    beyond = slice(found.first_randomised + 2, 20)
    assert SHARED < found.first_randomised <= SHARED + 2
    assert float(found.unmasked[beyond].mean()) < 0.05
    assert float(found.masked[beyond].mean()) > 0.2
    # Correlations in a ball this small scatter by about 0.1 in a shell.
    assert abs(float(found.corrected[beyond].mean())) < 0.1
    assert float(found.corrected[1:SHARED].min()) > 0.9


def test_noise_alone_agrees_nowhere(generator: torch.Generator) -> None:
    found = half_map_fsc(*torch.randn(2, D, D, D, generator=generator), _ball(20), generator)
    assert float(found.corrected[6:].abs().max()) < 0.143


def test_a_curve_that_never_falls_is_limited_by_the_box() -> None:
    assert str(resolution_of(torch.ones(24), 0.143, D, 2.0)).endswith("(the limit of the box)")
    falls = torch.cat([torch.ones(12), torch.zeros(12)])
    assert not resolution_of(falls, 0.143, D, 2.0).is_limit
    assert resolution_of(falls, 0.5, D, 2.0).angstrom == pytest.approx(D * 2.0 / 11.5)


def test_a_mask_surrounds_its_density_softly(generator: torch.Generator) -> None:
    density = _ball(8)
    noisy = density + 0.2 * torch.randn(D, D, D, generator=generator)
    mask = mask_around(noisy, 8, extend_px=2.0, edge_px=4.0)
    assert float(mask[density > 0].min()) > 0.999
    assert float((mask * (1 - _ball(18))).max()) == 0
    steps = (mask[1:] - mask[:-1]).abs()
    assert float(steps.max()) < 0.6
    assert 0 <= float(mask.min()) and float(mask.max()) <= 1


def test_nothing_beyond_the_low_pass_shapes_a_mask(generator: torch.Generator) -> None:
    density = _ball(8)
    fine = filter_shells(torch.randn(D, D, D, generator=generator), (torch.arange(D) > 8).float())
    torch.testing.assert_close(mask_around(density + fine, 8, 2.0, 4.0), mask_around(density, 8, 2.0, 4.0))
