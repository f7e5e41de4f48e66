"""Against independent programs in Python."""

import math

import healpix
import numpy as np
import pytest
import roma
import torch
from scipy.spatial.transform import Rotation
from torch_ctf import calculate_ctf_2d
from torch_fourier_slice import project_3d_to_2d

from cryohydra.fourier.gridding import FourierSampler
from cryohydra.geometry.healpix import num_pixels, pixel_to_angles
from cryohydra.geometry.rotations import (
    euler_to_matrix,
    geodesic_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
    random_rotations,
    rotation_vector_to_matrix,
)
from cryohydra.physics.ctf import Optics, contrast_transfer
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import image_density


@pytest.mark.parametrize(
    ("defocus_u", "defocus_v", "angle", "voltage", "amplitude", "phase"),
    [(15_000, 15_000, 0, 300, 0.1, 0), (22_000, 18_000, 35, 300, 0.07, 0), (9_500, 8_000, 120, 200, 0.1, 70)],
)
def test_ctf_is_minus_that_of_torch_ctf(defocus_u, defocus_v, angle, voltage, amplitude, phase):
    def column(value):
        return torch.full((1, 1), float(value))

    box_size, pixel_size = 64, 1.8
    optics = Optics(
        column(pixel_size), column(defocus_u), column(defocus_v), column(math.radians(angle)), column(voltage),
        column(2.7e7), column(amplitude), column(math.radians(phase)), column(1), column(0),
        torch.zeros(1, 1, dtype=torch.long),
    )  # fmt: skip
    theirs = calculate_ctf_2d(
        defocus=(defocus_u + defocus_v) / 2 * 1e-4, astigmatism=(defocus_u - defocus_v) / 2 * 1e-4,
        astigmatism_angle=angle, voltage=voltage, spherical_aberration=2.7, amplitude_contrast=amplitude,
        phase_shift=phase, pixel_size=pixel_size, image_shape=(box_size, box_size), rfft=False, fftshift=True,
    )  # fmt: skip
    axis = (torch.arange(box_size) - box_size // 2) / box_size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ours = contrast_transfer(optics, torch.stack([x, y], -1).flatten(0, 1)).reshape(box_size, box_size)
    # Float32, and wavelengths that differ in the sixth digit, over some tens of oscillations.
    torch.testing.assert_close(ours, -theirs.reshape(box_size, box_size).float(), atol=0.01, rtol=0)


def test_projections_are_those_of_torch_fourier_slice(generator):
    volume = demo_class("spliceosome", 48, 8.5, 35.0).maps[0]
    rotation = random_rotations(5, generator)
    ours = image_density(FourierSampler(volume), rotation[:, None], torch.zeros(5, 1, 2))[:, 0]
    theirs = project_3d_to_2d(volume, rotation.mT, pad_factor=4.0)
    # Theirs is linear interpolation in a padded transform.
    assert float((ours - theirs).norm() / theirs.norm()) < 0.03


@pytest.mark.parametrize("level", [0, 1, 2, 5])
def test_directions_are_those_of_healpix(level):
    pixel = np.arange(num_pixels(level))
    polar, azimuth = healpix.pix2ang(2**level, pixel, nest=True)
    theirs = np.stack([polar, azimuth % (2 * np.pi)], axis=1)
    ours = pixel_to_angles(level, torch.from_numpy(pixel)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_rotations_are_those_of_roma(generator):
    vector = torch.randn(50, 3, generator=generator)
    matrix = rotation_vector_to_matrix(vector)
    torch.testing.assert_close(matrix, roma.rotvec_to_rotmat(vector), atol=1e-5, rtol=0)
    scalar_last = roma.rotmat_to_unitquat(matrix)
    scalar_first = torch.cat([scalar_last[:, 3:], scalar_last[:, :3]], dim=1)
    torch.testing.assert_close(quaternion_to_matrix(scalar_first), matrix, atol=1e-5, rtol=0)
    ours = matrix_to_quaternion(matrix)
    torch.testing.assert_close((ours * scalar_first).sum(-1).abs(), torch.ones(50), atol=1e-5, rtol=0)
    other = random_rotations(50, generator)
    torch.testing.assert_close(
        geodesic_angle(matrix, other), roma.rotmat_geodesic_distance(matrix, other), atol=1e-3, rtol=0
    )


def test_euler_angles_are_those_of_scipy(generator):
    degrees = (torch.rand(50, 3, generator=generator, dtype=torch.float64) - 0.5) * torch.tensor([360.0, 360.0, 360.0])
    theirs = Rotation.from_euler("ZYZ", degrees.numpy(), degrees=True).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(euler_to_matrix(degrees.deg2rad()).numpy(), theirs, atol=1e-6)
