"""Rotations as matrices acting on rows: a lattice point f goes to f @ R.

R is RELION's Euler matrix, the transpose of scipy's `Rotation.from_euler("ZYZ", ...)`;
from cryoSPARC it is the transpose of `Rotation.from_rotvec(pose)`.
"""

import math

import torch

from cryohydra._typing import Float, Tensor


def quaternion_to_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert unit quaternions, scalar first, to the rotation matrices that act on columns."""
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Convert rotation matrices to unit quaternions with a scalar part that is not negative."""
    m00, m11, m22 = matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2]
    x_minus = matrix[..., 2, 1] - matrix[..., 1, 2]
    y_minus = matrix[..., 0, 2] - matrix[..., 2, 0]
    z_minus = matrix[..., 1, 0] - matrix[..., 0, 1]
    xy = matrix[..., 0, 1] + matrix[..., 1, 0]
    xz = matrix[..., 0, 2] + matrix[..., 2, 0]
    yz = matrix[..., 1, 2] + matrix[..., 2, 1]
    # Four expressions for the same quaternion, each scaled by one of its parts:
    # the largest is exact where the others lose digits.
    rows = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, x_minus, y_minus, z_minus], -1),
            torch.stack([x_minus, 1 + m00 - m11 - m22, xy, xz], -1),
            torch.stack([y_minus, xy, 1 - m00 + m11 - m22, yz], -1),
            torch.stack([z_minus, xz, yz, 1 - m00 - m11 + m22], -1),
        ],
        dim=-2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(rows, best[..., None, None], dim=-2).squeeze(-2)
    unit = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def rotation_vector_to_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert axis times angle in radians to the rotation matrix that acts on columns (Rodrigues).

    Smooth at zero, so its gradient there is that of the tangent space.
    """
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle_squared = vector.square().sum(-1)[..., None, None]
    is_small = angle_squared < 1e-6
    angle = torch.where(is_small, torch.ones_like(angle_squared), angle_squared).sqrt()
    # Both series are exact to float32 below a thousandth of a radian.
    sine = torch.where(is_small, 1 - angle_squared / 6, angle.sin() / angle)
    cosine = torch.where(is_small, 0.5 - angle_squared / 24, (1 - angle.cos()) / angle.square())
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + sine * cross + cosine * (cross @ cross)


def matrix_to_rotation_vector(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Convert rotation matrices that act on columns to axis times angle in radians, in [0, pi]."""
    scalar, vector = matrix_to_quaternion(matrix).split([1, 3], dim=-1)
    sine = vector.norm(dim=-1, keepdim=True)
    # At no angle any axis will do.
    axis = vector / sine.clamp(min=torch.finfo(matrix.dtype).tiny)
    return 2 * torch.atan2(sine, scalar) * axis


def euler_to_matrix(euler: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert RELION's (rot, tilt, psi) in radians to R, which acts on rows as f @ R."""
    rot, tilt, psi = euler.unbind(-1)
    return _about_z(psi) @ _about_y(tilt) @ _about_z(rot)


def matrix_to_euler(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Convert R, which acts on rows, to RELION's (rot, tilt, psi) in radians, with tilt in [0, pi]."""
    tilt = torch.atan2(matrix[..., 2, :2].norm(dim=-1), matrix[..., 2, 2])
    rot = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 0])
    # Near a pole rot has few digits, or none. What is left after undoing it is about z, so psi makes up for its error.
    about_z = matrix @ (_about_y(tilt) @ _about_z(rot)).mT
    psi = torch.atan2(about_z[..., 0, 1], about_z[..., 0, 0])
    return torch.stack([rot, tilt, psi], dim=-1)


def _about_z(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cosine, sine, zero, -sine, cosine, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def _about_y(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cosine, zero, -sine, zero, one, zero, sine, zero, cosine], -1).unflatten(-1, (3, 3))


def geodesic_angle(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle in radians, in [0, pi], of the rotation from `a` to `b`."""
    # |A - B| = 2 sqrt(2) sin(angle / 2): unlike the arc cosine of the trace, exact for small angles.
    chord = (a - b).square().sum((-2, -1)).sqrt() / (2 * math.sqrt(2))
    return 2 * torch.asin(chord.clamp(0, 1))


def random_rotations(num_rotations: int, generator: torch.Generator) -> Float[Tensor, "n 3 3"]:
    """Draw rotations uniformly over SO(3)."""
    quaternion = torch.randn(num_rotations, 4, generator=generator, device=generator.device)
    return quaternion_to_matrix(quaternion / quaternion.norm(dim=-1, keepdim=True))
