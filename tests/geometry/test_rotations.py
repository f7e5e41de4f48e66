"""Rotations and their ways of being written."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cryohydra.geometry.rotations import (
    euler_to_matrix,
    geodesic_angle,
    matrix_to_euler,
    matrix_to_quaternion,
    matrix_to_rotation_vector,
    quaternion_to_matrix,
    random_rotations,
    rotation_vector_to_matrix,
)

angles = st.floats(-3.1, 3.1)


@given(angles, st.floats(0, math.pi), angles)
def test_euler_angles_come_back_as_the_same_rotation(rot, tilt, psi):
    matrix = euler_to_matrix(torch.tensor([rot, tilt, psi], dtype=torch.float64))
    again = euler_to_matrix(matrix_to_euler(matrix))
    torch.testing.assert_close(again, matrix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tilt", [0.0, math.pi])
def test_euler_angles_at_the_poles(tilt):
    matrix = euler_to_matrix(torch.tensor([0.4, tilt, 1.1], dtype=torch.float64))
    torch.testing.assert_close(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tilt", [1e-7, 1e-6, 1e-4, math.pi - 1e-5])
def test_euler_angles_near_the_poles_keep_the_digits_of_float32(tilt):
    # rot is hardly determined there, and psi must make up for it.
    matrix = euler_to_matrix(torch.tensor([0.4, tilt, 1.1], dtype=torch.float64)).float().double()
    torch.testing.assert_close(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=3e-7, rtol=0)


def test_matrices_are_rotations(generator):
    matrix = random_rotations(100, generator)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).expand(100, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(100), atol=1e-5, rtol=0)


def test_random_rotations_are_uniform(generator):
    # The rotation angle has density (1 - cos) / pi: its mean is pi/2 + 2/pi, 126.5 degrees.
    matrix = random_rotations(20_000, generator)
    mean = float(geodesic_angle(matrix, torch.eye(3).expand_as(matrix)).mean())
    assert mean == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)


def test_quaternions_come_back(generator):
    matrix = random_rotations(500, generator)
    torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix, atol=1e-5, rtol=0)


@given(st.floats(1e-5, 3.1))
def test_a_rotation_vector_turns_by_its_length(angle):
    vector = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64) * angle
    found = float(geodesic_angle(rotation_vector_to_matrix(vector), torch.eye(3, dtype=torch.float64)))
    assert found == pytest.approx(angle, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1.0, 3.1, math.pi])
def test_rotation_vectors_come_back(angle):
    vector = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64) * angle
    matrix = rotation_vector_to_matrix(vector)
    again = matrix_to_rotation_vector(matrix)
    torch.testing.assert_close(rotation_vector_to_matrix(again), matrix, atol=1e-7, rtol=0)
    assert float(again.norm()) == pytest.approx(angle, abs=1e-7)


def test_the_rotation_vector_has_a_gradient_at_zero():
    vector = torch.zeros(3, requires_grad=True)
    rotation_vector_to_matrix(vector)[1, 0].backward()
    torch.testing.assert_close(vector.grad, torch.tensor([0.0, 0.0, 1.0]))


def test_in_plane_rotation_turns_rows_against_columns():
    # At psi = 30 degrees a point at (column, row) = (1, 0) goes to (cos 30, -sin 30): R x for columns x.
    matrix = euler_to_matrix(torch.tensor([0.0, 0.0, math.radians(30)]))
    moved = matrix @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(moved, torch.tensor([math.cos(math.pi / 6), -math.sin(math.pi / 6), 0.0]))
