"""Laying maps on one another."""

import math

import pytest
import torch

from cryohydra.fourier.alignment import AlignableMap, Alignment, align_map, apply_alignment
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.geometry.rotations import geodesic_angle, random_rotations, rotation_vector_to_matrix
from cryohydra.physics.demo_structures import demo_class

IDENTITY = torch.eye(3)


@pytest.fixture(scope="module")
def asymmetric():
    return demo_class("spliceosome", 32, 13.0).maps[0]


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_finds_rotation_shift_and_hand(asymmetric, is_mirrored):
    generator = torch.Generator().manual_seed(5)
    true = Alignment(random_rotations(1, generator)[0], torch.tensor([1.5, -2.0, 0.7]), is_mirrored, 0.0)
    noise = 0.2 * asymmetric.std() * torch.randn(asymmetric.shape, generator=generator)
    moving = apply_alignment(asymmetric, true) + noise
    found = align_map(moving, asymmetric)
    assert found.is_mirrored == is_mirrored
    # One after the other they are nothing: f @ found @ true.
    assert math.degrees(float(geodesic_angle(found.rotation @ true.rotation, IDENTITY))) < 1.0
    aligned = apply_alignment(moving, found)
    # Further out the noise that was added takes over.
    assert float(fourier_shell_correlation(aligned, asymmetric)[1:9].min()) > 0.97
    assert found.correlation > 0.95


def test_keeps_the_hand_if_told(asymmetric):
    mirrored = apply_alignment(asymmetric, Alignment(IDENTITY, torch.zeros(3), True, 0.0))
    assert not align_map(mirrored, asymmetric, keeps_hand=True).is_mirrored


def point(x, y, z, box_size=32):
    """A soft point that far from the centre."""
    axis = torch.arange(box_size) - box_size // 2
    square = (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis - x) ** 2
    return torch.exp(-square / 4.5)


def test_a_map_is_moved_by_the_transposed_rotation_then_shifted():
    # V(f @ R) is the density whose points x are at R x (columns).
    rotation = rotation_vector_to_matrix(torch.tensor([0.0, 0.0, math.pi / 2]))
    moved = apply_alignment(point(6, 1, -3), Alignment(rotation, torch.tensor([0.0, 2.0, 0.0]), False, 0.0))
    x, y, z = (rotation @ torch.tensor([6.0, 1.0, -3.0])).tolist()
    wanted = point(x, y + 2, z)
    assert float((moved - wanted).norm() / wanted.norm()) < 0.01


def test_mirroring_inverts_through_the_centre():
    moved = apply_alignment(point(6, 1, -3), Alignment(IDENTITY, torch.zeros(3), True, 0.0))
    wanted = point(-6, -1, 3)
    assert float((moved - wanted).norm() / wanted.norm()) < 0.01


def test_prepared_maps_are_aligned_as_plain_ones(asymmetric):
    generator = torch.Generator().manual_seed(9)
    true = Alignment(random_rotations(1, generator)[0], torch.tensor([-1.0, 0.5, 2.0]), False, 0.0)
    moving = apply_alignment(asymmetric, true)
    prepared = AlignableMap(moving)
    plain, again = align_map(moving, asymmetric), align_map(prepared, AlignableMap(asymmetric))
    assert torch.equal(plain.rotation, again.rotation) and plain.correlation == again.correlation
    assert torch.equal(apply_alignment(moving, plain), apply_alignment(prepared, plain))


def test_of_the_places_of_a_nearly_symmetric_map_a_good_one_is_found():
    # Turns of 45 degrees leave it nearly as it is, and only its high frequencies tell them apart.
    ring = demo_class("tric", 32, 14.0).maps[0]
    generator = torch.Generator().manual_seed(1)
    true = Alignment(random_rotations(1, generator)[0], torch.tensor([0.5, -1.0, 0.3]), True, 0.0)
    moving = apply_alignment(ring, true) + 0.2 * ring.std() * torch.randn(ring.shape, generator=generator)
    best = align_map(moving, ring)
    # As well as the true place: the correlation of a map with itself under noise of a fifth is 0.98.
    assert best.correlation > 0.975
    group = demo_class("tric", 32, 14.0).pseudo_symmetry
    turned = (best.rotation @ true.rotation).expand_as(group)
    assert math.degrees(float(geodesic_angle(turned, group.mT).min())) < 4.0


def test_a_filtered_map_is_laid_on_its_reference(asymmetric):
    # Shells that hold nothing say nothing: a band-limited map, as refinement gives it, lies where it lies.
    frequency = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(32)] * 3, indexing="ij")).norm(dim=0)
    filtered = torch.fft.ifftn(torch.fft.fftn(asymmetric) * (frequency < 9 / 32)).real
    found = align_map(filtered, asymmetric)
    assert not found.is_mirrored
    assert math.degrees(float(geodesic_angle(found.rotation, IDENTITY))) < 0.5
    assert float(found.shift_px.norm()) < 0.1
