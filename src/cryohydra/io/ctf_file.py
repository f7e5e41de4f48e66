"""CTF parameters in a pickled table, one row per image.

Columns: box size (px), pixel size (A), defocus U, V (A), defocus angle (deg), voltage (kV),
spherical aberration (mm), amplitude contrast, phase shift (deg).
"""

from pathlib import Path

import numpy as np

from cryohydra._typing import Float
from cryohydra.errors import UnreadableFile
from cryohydra.io.pickles import read_pickle, write_pickle

NUM_COLUMNS = 9
_POSITIVE = {0: "box size", 1: "pixel size", 5: "voltage"}


def read_ctf_file(path: Path) -> Float[np.ndarray, "n 9"]:
    """Read CTF parameters.

    Raises:
        UnreadableFile: If the file does not hold such a table.
    """
    table = read_pickle(path)
    is_array = isinstance(table, np.ndarray)
    if not is_array or table.shape[1:] != (NUM_COLUMNS,) or table.dtype.kind not in "fiu":
        came = f"an array of shape {table.shape}" if is_array else f"a {type(table).__name__}"
        raise UnreadableFile(
            f"{path} holds {came}; wanted a table of numbers with {NUM_COLUMNS} columns, one row per image: box size, "
            "pixel size, defocus U and V, defocus angle, voltage, Cs, amplitude contrast, phase shift. "
            "Is it a pose file, or from another program?"
        )
    return check_ctf_table(path, table.astype(np.float64))


def check_ctf_table(path: Path, table: Float[np.ndarray, "n 9"]) -> Float[np.ndarray, "n 9"]:
    """The table, if a CTF can be computed from it.

    Args:
        path: Where it came from.

    Raises:
        UnreadableFile: If numbers are not finite, or not positive where they must be.
    """
    rows = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(rows):
        raise UnreadableFile(
            f"{path} has CTF values that are not finite in {len(rows)} rows, the first {rows[0]}; "
            "wanted numbers. Correct them, or leave these images out."
        )
    for column, name in _POSITIVE.items():
        rows = np.flatnonzero(table[:, column] <= 0)
        if len(rows):
            raise UnreadableFile(
                f"{path} has a {name} of {table[rows[0], column]:g} in row {rows[0]}; wanted a positive number. "
                "Check the columns and their order."
            )
    return table


def write_ctf_file(path: Path, table: Float[np.ndarray, "n 9"]) -> None:
    """Write CTF parameters, in float32 as other programs read them."""
    assert table.shape[1] == NUM_COLUMNS
    write_pickle(path, table.astype(np.float32))
