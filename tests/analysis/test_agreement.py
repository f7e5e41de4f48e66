"""Measures of agreement with a truth."""

import math

import numpy as np
import pytest
import torch

from cryohydra.analysis.agreement import (
    calibration,
    compare_poses,
    confusion_matrix,
    match_classes,
    motion_correlation,
)
from cryohydra.geometry.rotations import random_rotations, rotation_vector_to_matrix
from cryohydra.physics.demo_structures import entry_symmetry

IDENTITY = torch.eye(3)[None]
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


def wobble(count, degrees, generator):
    """Rotations by exactly so much about random axes."""
    axis = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return rotation_vector_to_matrix(axis * math.radians(degrees))


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_pose_error_forgets_frame_and_hand(generator, is_mirrored):
    true, frame = random_rotations(300, generator), random_rotations(1, generator)[0]
    estimated = wobble(300, 4.0, generator) @ true @ frame
    if is_mirrored:
        estimated = HALF_TURN @ estimated
    shift = torch.randn(300, 2, generator=generator)
    found = compare_poses(estimated, true, shift, shift, IDENTITY)
    assert math.degrees(found.median_error) == pytest.approx(4.0, abs=0.3)
    assert found.is_mirrored == is_mirrored


def test_pose_error_survives_a_third_of_lost_particles(generator):
    true, frame = random_rotations(300, generator), random_rotations(1, generator)[0]
    estimated = wobble(300, 2.0, generator) @ true @ frame
    estimated[:100] = random_rotations(100, generator)
    shift = torch.zeros(300, 2)
    found = compare_poses(estimated, true, shift, shift, IDENTITY)
    assert math.degrees(found.median_error) < 2.5


def test_random_poses_have_no_small_error(generator):
    shift = torch.zeros(300, 2)
    found = compare_poses(random_rotations(300, generator), random_rotations(300, generator), shift, shift, IDENTITY)
    assert math.degrees(found.median_error) > 100


def test_symmetric_classes_are_compared_modulo_their_group(generator):
    group = entry_symmetry("6z6u")
    true, frame = random_rotations(200, generator), random_rotations(1, generator)[0]
    member = group[torch.randint(24, (200,), generator=generator)]
    estimated = wobble(200, 3.0, generator) @ true @ member @ frame
    shift = torch.zeros(200, 2)
    assert math.degrees(compare_poses(estimated, true, shift, shift, group).median_error) == pytest.approx(3, abs=0.5)


def test_shift_error_forgets_where_the_map_lies(generator):
    true, frame = random_rotations(200, generator), random_rotations(1, generator)[0]
    estimated = true @ frame
    offset = torch.tensor([2.0, -1.0, 3.0])
    true_shift = torch.randn(200, 2, generator=generator)
    moved = true_shift + (estimated @ offset)[:, :2]
    found = compare_poses(estimated, true, moved, true_shift, IDENTITY)
    assert found.median_shift_error_px < 1e-3


def test_one_particle_is_enough():
    found = compare_poses(torch.eye(3)[None], torch.eye(3)[None], torch.zeros(1, 2), torch.zeros(1, 2), IDENTITY)
    assert found.median_error == pytest.approx(0.0, abs=1e-5)


def test_matching_is_one_to_one():
    labels, found = np.array([0, 0, 0, 1, 1, 2]), np.array([2, 2, 2, 0, 2, 1])
    confusion = confusion_matrix(labels, found, 3, 4)
    assert confusion.sum() == 6 and confusion[0, 2] == 3
    assert match_classes(confusion) == {0: 2, 1: 0, 2: 1}


def test_classes_without_a_common_particle_are_not_paired():
    assert match_classes(np.array([[5, 0], [4, 0]])) == {0: 0}


def test_honest_probabilities_are_calibrated():
    generator = np.random.default_rng(0)
    probability = generator.dirichlet([0.5, 0.5, 0.5], size=20_000)
    labels = np.array([generator.choice(3, p=p) for p in probability])
    # Bins of some hundred particles each: their accuracy is known to about two per cent.
    assert calibration(probability, labels, 3).expected_error < 0.02


def test_overconfidence_is_seen():
    labels = np.arange(1000) % 2
    stated = np.where(np.arange(1000) % 10 == 0, 1 - labels, labels)  # one in ten is wrong
    probability = np.eye(2)[stated]
    found = calibration(probability, labels, 2)
    assert found.expected_error == pytest.approx(0.1)
    assert found.confidence == (1.0,) and found.accuracy == (0.9,) and found.num_particles == (1000,)


def test_a_class_cut_in_two_is_no_doubt():
    labels = np.array([0] * 50 + [1] * 50)
    probability = np.zeros((100, 3))
    probability[:50, :2] = 0.5
    probability[50:, 2] = 1.0
    assert calibration(probability, labels, 2).expected_error == pytest.approx(0.0)


def test_motion_is_followed_whatever_its_sign_and_shape():
    coordinate = np.linspace(-10, 10, 50)
    latent = np.stack([0.1 * np.cos(coordinate), -np.exp(coordinate / 5)], axis=1)
    assert motion_correlation(latent, coordinate) > 0.99
    assert motion_correlation(np.zeros((50, 2)), coordinate) == 0.0
    assert motion_correlation(np.zeros((50, 0)), coordinate) == 0.0
