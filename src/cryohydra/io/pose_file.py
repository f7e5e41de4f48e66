"""Poses in a pickle: rotations that act on lattice rows, and shifts that bring particles to the centre."""

from pathlib import Path

import numpy as np

from cryohydra._typing import Float
from cryohydra.errors import UnreadableFile
from cryohydra.io.pickles import read_pickle, write_pickle


def read_pose_file(path: Path) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 2"] | None]:
    """Read rotations and, if the file has them, shifts as fractions of the box.

    Raises:
        UnreadableFile: If the file does not hold rotations, or its shifts cannot be fractions of a box.
    """
    content = read_pickle(path)
    parts = content if isinstance(content, (tuple, list)) else (content,)
    if len(parts) not in (1, 2) or not all(isinstance(part, np.ndarray) and part.dtype.kind in "fiu" for part in parts):
        raise UnreadableFile(
            f"{path} holds a {type(content).__name__}; wanted rotations of shape (N, 3, 3), or a tuple of them and of "
            "shifts of shape (N, 2). Is it a pose file?"
        )
    rotations = parts[0].astype(np.float64)
    if rotations.ndim != 3 or rotations.shape[1:] != (3, 3):
        raise UnreadableFile(f"{path} holds rotations of shape {parts[0].shape}; wanted (N, 3, 3). Is it a pose file?")
    if not np.isfinite(rotations).all():
        raise UnreadableFile(f"{path} has rotations that are not finite; wanted rotation matrices. Write it again.")
    off = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    off = np.maximum(off, np.abs(np.linalg.det(rotations) - 1))
    rows = np.flatnonzero(~(off < 1e-3))
    if len(rows):
        raise UnreadableFile(
            f"{path} has {len(rows)} matrices that are no rotations, the first in row {rows[0]}; wanted orthonormal "
            "ones with determinant 1. Write it again."
        )
    if len(parts) == 1:
        return rotations, None
    return rotations, _checked_shifts(path, parts[1].astype(np.float64), len(rotations))


def _checked_shifts(path: Path, shifts: np.ndarray, num_rotations: int) -> Float[np.ndarray, "n 2"]:
    if shifts.shape != (num_rotations, 2):
        raise UnreadableFile(
            f"{path} holds {num_rotations} rotations but shifts of shape {shifts.shape}; wanted ({num_rotations}, 2). "
            "Write it again."
        )
    if not np.isfinite(shifts).all():
        raise UnreadableFile(f"{path} has shifts that are not finite; write it again.")
    if len(shifts) and np.abs(shifts).max() > 1:
        raise UnreadableFile(
            f"{path} has shifts up to {np.abs(shifts).max():.3g}; wanted fractions of the box, below 1. "
            "If they are in pixels, divide them by the box size."
        )
    return shifts


def write_pose_file(
    path: Path, rotations: Float[np.ndarray, "n 3 3"], shifts_fraction: Float[np.ndarray, "n 2"] | None
) -> None:
    """Write rotations and, unless None, shifts that bring particles to the centre as fractions of the box."""
    if shifts_fraction is None:
        write_pickle(path, rotations)
    else:
        write_pickle(path, (rotations, shifts_fraction))
