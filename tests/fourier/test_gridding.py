"""The transform between lattice points, against plain sums."""

import math

import torch

from cryohydra.fourier.gridding import FourierSampler
from cryohydra.fourier.resampling import resample_map


def direct_sum(volume, frequencies):
    """The definition: a sum over voxels with the origin at index D//2."""
    axis = torch.arange(volume.shape[0], dtype=torch.float64) - volume.shape[0] // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    phase = -2 * math.pi * (frequencies.double() @ torch.stack([x, y, z]).flatten(1))
    return (torch.polar(torch.ones_like(phase), phase) * volume.double().flatten()).sum(-1)


def test_between_lattice_points_it_is_the_sum_over_voxels(generator):
    volume = torch.randn(16, 16, 16, generator=generator)
    frequencies = torch.rand(200, 3, generator=generator) - 0.5
    found, true = FourierSampler(volume).at(frequencies), direct_sum(volume, frequencies)
    # Noise up to the corners of the box is the worst case; the kernel is chosen for one part in a thousand.
    assert float((found - true).abs().square().mean().sqrt() / true.abs().square().mean().sqrt()) < 2e-3


def test_leading_axes_are_kept(generator):
    sampler = FourierSampler(torch.randn(8, 8, 8, generator=generator))
    frequencies = torch.rand(2, 3, 5, 3, generator=generator) - 0.5
    torch.testing.assert_close(sampler.at(frequencies)[1, 2], sampler.at(frequencies[1, 2]))


def blob(box_size, pixel_size, sigma=12.0, centre=(10.0, -6.0, 4.0)):
    """A Gaussian in angstrom, (x, y, z), sampled."""
    axis = (torch.arange(box_size) - box_size // 2) * pixel_size
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    square = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    return torch.exp(-square / (2 * sigma**2))


def test_resampling_gives_the_same_density_on_other_voxels():
    found = resample_map(blob(32, 4.0), 4.0, 24, 5.0)
    wanted = blob(24, 5.0) * (5.0 / 4.0) ** 3  # the sum over voxels stays
    assert float((found - wanted).norm() / wanted.norm()) < 5e-3


def test_the_same_voxels_are_left_alone():
    volume = blob(16, 5.0)
    assert resample_map(volume, 5.0, 16, 5.0) is volume
