"""The contrast transfer function."""

import dataclasses
import math

import pytest
import torch

from cryohydra.physics.ctf import Optics, contrast_transfer, dose_damping, wavelength_angstrom


def optics(**changes):
    values = dict(
        pixel_size_angstrom=2.0, defocus_u_angstrom=15_000.0, defocus_v_angstrom=15_000.0, defocus_angle=0.0,
        voltage_kv=300.0, spherical_aberration_angstrom=2.7e7, amplitude_contrast=0.1, phase_shift=0.0, scale=1.0,
        dose_electrons_per_square_angstrom=0.0,
    )  # fmt: skip
    columns = {name: torch.full((1, 1), value) for name, value in (values | changes).items()}
    return Optics(**columns, group=torch.zeros(1, 1, dtype=torch.long))


def test_it_is_negative_near_zero_at_underfocus():
    ctf = contrast_transfer(optics(), torch.tensor([[0.0, 0.0], [0.01, 0.0], [0.02, 0.01]]))[0, 0]
    assert float(ctf[0]) == pytest.approx(-0.1)
    assert bool((ctf < 0).all()) and bool((ctf[1:] < ctf[0]).all())


def test_the_wavelength_at_300_kv():
    assert float(wavelength_angstrom(torch.tensor(300.0))) == pytest.approx(0.019687, rel=1e-4)


def test_defocus_u_lies_along_its_angle():
    # Along x, where u is, the astigmatic CTF is that of a round one with the defocus u; along y of v.
    frequencies = torch.tensor([[0.05, 0.0], [0.0, 0.05]])
    found = contrast_transfer(optics(defocus_u_angstrom=20_000.0, defocus_v_angstrom=10_000.0), frequencies)[0, 0]
    for value, defocus, point in zip(found, (20_000.0, 10_000.0), frequencies, strict=True):
        round_one = contrast_transfer(optics(defocus_u_angstrom=defocus, defocus_v_angstrom=defocus), point[None])
        torch.testing.assert_close(value, round_one[0, 0, 0])


def test_the_astigmatism_turns_towards_positive_y():
    astigmatic = optics(defocus_u_angstrom=20_000.0, defocus_v_angstrom=10_000.0, defocus_angle=math.pi / 2)
    point = torch.tensor([[0.0, 0.05]])
    round_one = optics(defocus_u_angstrom=20_000.0, defocus_v_angstrom=20_000.0)
    torch.testing.assert_close(
        contrast_transfer(astigmatic, point), contrast_transfer(round_one, point), atol=1e-5, rtol=0
    )


def test_each_image_has_its_own_pixel_size():
    both = Optics.concatenate([optics(), optics(pixel_size_angstrom=4.0)])
    found = contrast_transfer(both, torch.tensor([[0.1, 0.02]]))
    alone = contrast_transfer(optics(), torch.tensor([[0.05, 0.01]]))
    torch.testing.assert_close(found[1], alone[0])
    assert not torch.allclose(found[0], found[1])


def test_a_phase_plate_of_a_quarter_wave_gives_full_contrast_at_zero():
    ctf = contrast_transfer(optics(phase_shift=math.pi / 2), torch.zeros(1, 2))
    assert float(ctf) == pytest.approx(-math.sqrt(1 - 0.01), rel=1e-5)


def test_dose_damps_high_frequencies_more_and_zero_not_at_all():
    frequency = torch.tensor([0.0, 0.05, 0.1, 0.3])
    left = dose_damping(frequency, torch.full((4,), 50.0), torch.full((4,), 300.0))
    assert float(left[0]) == pytest.approx(1.0, abs=1e-4)
    assert bool((left.diff() < 0).all())


def test_dose_takes_more_at_200_kv():
    frequency, dose = torch.tensor([0.1]), torch.tensor([30.0])
    assert float(dose_damping(frequency, dose, torch.tensor([200.0]))) < float(
        dose_damping(frequency, dose, torch.tensor([300.0]))
    )


def test_rows_and_devices():
    both = Optics.concatenate([optics(), optics(voltage_kv=200.0)])
    assert len(both) == 2
    assert float(both[torch.tensor([1])].voltage_kv) == 200.0
    assert dataclasses.asdict(both.to("cpu")).keys() == dataclasses.asdict(both).keys()
