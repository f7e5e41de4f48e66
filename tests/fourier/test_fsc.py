"""Shell correlation and resolution."""

import pytest
import torch

from cryohydra.fourier.fsc import crossing_shell, fourier_shell_correlation, resolution_at


def test_a_map_agrees_with_itself_whatever_its_scale(generator):
    volume = torch.randn(16, 16, 16, generator=generator)
    fsc = fourier_shell_correlation(volume, 3 * volume)
    assert fsc.shape == (9,)
    torch.testing.assert_close(fsc, torch.ones(9))


def test_it_has_a_sign(generator):
    volume = torch.randn(16, 16, 16, generator=generator)
    torch.testing.assert_close(fourier_shell_correlation(volume, -volume), -torch.ones(9))


def test_independent_noise_does_not_correlate(generator):
    a, b = torch.randn(2, 32, 32, 32, generator=generator)
    # Shell r holds about 2 pi r^2 independent points: three standard deviations.
    shells = torch.arange(4, 17)
    assert bool((fourier_shell_correlation(a, b)[4:].abs() < 3 / (2 * torch.pi * shells**2).sqrt()).all())


def test_equal_signal_and_noise_give_half(generator):
    signal, noise = torch.randn(2, 48, 48, 48, generator=generator)
    other = torch.randn(48, 48, 48, generator=generator)
    fsc = fourier_shell_correlation(signal + noise, signal + other)
    assert abs(float(fsc[10:].mean()) - 0.5) < 0.02


def test_an_empty_map_gives_zero():
    volume = torch.zeros(8, 8, 8)
    assert torch.equal(fourier_shell_correlation(volume, volume), torch.zeros(5))


def test_the_crossing_is_interpolated():
    fsc = torch.tensor([1.0, 1.0, 0.8, 0.3, 0.9])
    assert crossing_shell(fsc, 0.5) == pytest.approx(2.6)
    assert resolution_at(fsc, 0.5, box_size=26, pixel_size_angstrom=2.0) == pytest.approx(20.0)


def test_a_curve_that_never_falls_ends_at_nyquist():
    assert resolution_at(torch.ones(9), 0.5, box_size=16, pixel_size_angstrom=3.0) == pytest.approx(6.0)
