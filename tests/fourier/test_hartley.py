"""The Hartley transform: scaling, centre, sign of a shift."""

import torch

from cryohydra.fourier.band import Band, largest_radius
from cryohydra.fourier.hartley import (
    hartley_to_image,
    hartley_to_volume,
    image_to_hartley,
    shift_hartley,
    volume_to_hartley,
)


def test_undoes_itself(generator):
    image, volume = torch.randn(3, 12, 12, generator=generator), torch.randn(2, 10, 10, 10, generator=generator)
    torch.testing.assert_close(hartley_to_image(image_to_hartley(image)), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(hartley_to_volume(volume_to_hartley(volume)), volume, atol=1e-5, rtol=0)


def test_white_noise_keeps_its_variance(generator):
    noise = torch.randn(50, 32, 32, generator=generator)
    # 51,200 values: the variance is known to half a per cent.
    assert abs(float(image_to_hartley(noise).var()) - 1) < 0.02


def test_the_central_slice_is_the_projection(generator):
    volume = torch.randn(16, 16, 16, generator=generator)
    central = volume_to_hartley(volume)[8]
    torch.testing.assert_close(central, image_to_hartley(volume.sum(0)), atol=1e-4, rtol=0)


def test_a_point_in_the_centre_is_flat():
    image = torch.zeros(8, 8)
    image[4, 4] = 1
    torch.testing.assert_close(image_to_hartley(image), torch.full((8, 8), 1 / 8))


def test_a_positive_shift_moves_to_higher_columns_and_rows():
    image = torch.zeros(16, 16)
    image[8, 8] = 1
    band = Band(16, largest_radius(16))
    moved = shift_hartley(band.gather(image_to_hartley(image)), band.frequencies, torch.tensor([3.0, -2.0]))
    peak = int(hartley_to_image(band.scatter(moved)).argmax())
    assert divmod(peak, 16) == (8 - 2, 8 + 3)


def test_shift_and_shift_back(generator):
    band = Band(16, 7)
    values, shift = torch.randn(4, len(band), generator=generator), torch.randn(4, 2, generator=generator)
    there = shift_hartley(values, band.frequencies, shift)
    torch.testing.assert_close(shift_hartley(there, band.frequencies, -shift), values, atol=1e-5, rtol=0)


def test_a_band_reversed_is_negated():
    band = Band(20, 9)
    assert torch.equal(band.points.flip(0), -band.points)
    assert int(band.shells.min()) == 1 and int(band.shells.max()) == 9


def test_band_gathers_what_it_scatters(generator):
    band = Band(16, 5)
    values = torch.randn(2, len(band), generator=generator)
    assert torch.equal(band.gather(band.scatter(values)), values)


def test_a_smaller_band_lies_within():
    wide, narrow = Band(32, 12), Band(32, 7)
    assert torch.equal(wide.points[wide.within(7)], narrow.points)
