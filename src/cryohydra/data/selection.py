"""Files that pick or label particles."""

from pathlib import Path

import numpy as np

from cryohydra._typing import Int
from cryohydra.errors import InputMismatch, UserError
from cryohydra.io.pickles import read_pickle


def read_selection(ind: int | Path | None, num_images: int, origin: Path) -> Int[np.ndarray, "m"]:
    """Rows to use: all, the first `ind`, or those in a file, in its order.

    Raises:
        UserError: If they are not rows of the input.
    """
    if ind is None:
        return np.arange(num_images)
    if isinstance(ind, int):
        if not 0 < ind <= num_images:
            raise InputMismatch(f"ind is {ind} but {origin} holds {num_images} images; wanted 1 to {num_images}.")
        return np.arange(ind)
    rows = read_integers(ind, "the rows to use")
    if not len(rows):
        raise UserError(f"{ind} selects no image; wanted at least one row.")
    outside = rows[(rows < 0) | (rows >= num_images)]
    if len(outside):
        raise InputMismatch(
            f"{ind} selects row {outside[0]} but {origin} holds {num_images} images, numbered from 0. "
            "Give the selection that belongs to this file."
        )
    values, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise InputMismatch(f"{ind} selects row {values[counts > 1][0]} more than once; wanted each row at most once.")
    return rows


def read_labels(path: Path, num_particles: int, origin: Path) -> Int[np.ndarray, "n"]:
    """Class labels of all particles of the input, before any selection.

    Raises:
        UserError: If they are not one integer each.
    """
    labels = read_integers(path, "class labels")
    if len(labels) != num_particles:
        raise InputMismatch(
            f"{path} labels {len(labels)} particles but {origin} holds {num_particles}. "
            "If you select a subset, give both files unfiltered."
        )
    return labels


def read_integers(path: Path, what: str) -> Int[np.ndarray, "n"]:
    """Whole numbers in a .pkl file.

    Args:
        what: They are, for an error.

    Raises:
        UserError: If the file holds something else.
    """
    content = read_pickle(path)
    values = _as_array(content)
    is_empty = values is not None and values.size == 0
    if values is None or values.ndim != 1 or not (is_empty or values.dtype.kind in "iuf"):
        came = f"an array of {values.dtype} of shape {values.shape}" if values is not None else type(content).__name__
        raise UserError(f"{path} holds {came}; wanted {what}: a list of integers. Is it another file?")
    if not np.array_equal(values, np.round(values)):
        raise UserError(f"{path} holds numbers that are not whole; wanted {what}: a list of integers.")
    return values.astype(np.int64)


def _as_array(content: object) -> np.ndarray | None:
    """Numbers in a row or table; None for anything else."""
    if not isinstance(content, (np.ndarray, list, tuple, range)):
        return None
    try:
        return np.asarray(content)
    except ValueError:  # rows of different length
        return None
