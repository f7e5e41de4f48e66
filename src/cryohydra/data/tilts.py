"""Which images are the tilts of a particle, in the order in which they were taken."""

from dataclasses import dataclass

import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.data.table import ImageTable
from cryohydra.errors import InputMismatch, UserError


@dataclass(frozen=True, eq=False)
class TiltSeries:
    """The images of each particle, and how their dose and tilt damp them."""

    rows: Int[np.ndarray, "n t"]
    """Of the table, by increasing dose."""
    particle: Int[np.ndarray, "n"]
    """Number of each particle, in order of first appearance in the whole table."""
    num_particles_described: int
    """In the whole table."""
    scale: Float[np.ndarray, "m"]
    """Factor on the CTF of each image of the table."""
    dose: Float[np.ndarray, "m"]
    """Electrons per square angstrom of each image of the table."""
    notes: tuple[str, ...]


def single_images(table: ImageTable, selected: Int[np.ndarray, "n"]) -> TiltSeries:
    """Each selected image is a particle of its own."""
    notes: tuple[str, ...] = ()
    if table.dose is not None and np.any(table.dose[selected] != 0):
        notes = (f"{table.origin} gives doses or B factors; for single particles they are not applied.",)
    return TiltSeries(selected[:, None], selected, len(table), table.scale, np.zeros(len(table)), notes)


def group_tilts(
    table: ImageTable,
    selected: Int[np.ndarray, "m"],
    num_tilts: int,
    dose_per_tilt: float | None,
    angle_per_tilt: float,
    dose_exposure_correction: bool,
) -> TiltSeries:
    """The first `num_tilts` images of each particle by dose, not by place in the file.

    Args:
        selected: Images that may be used.
        dose_per_tilt: Electrons per square angstrom; None takes what the file says.
        angle_per_tilt: Degrees between tilts of a dose-symmetric scheme, used where the file tells no tilt.
        dose_exposure_correction: Whether images fade with dose and with the cosine of their tilt.

    Raises:
        UserError: If the file does not tell which images belong together, or no particle has enough of them.
    """
    if table.particle is None:
        raise InputMismatch(
            f"{table.origin} does not tell which images are tilts of one particle; wanted a STAR file with a column "
            "_rlnGroupName for capture_setup: et."
        )
    _, first_row, name_index = np.unique(table.particle, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first_row))[name_index]
    has_scale = bool(np.any(table.scale != table.scale[0]))
    order, notes = _order(table, has_scale)
    order = order[np.isin(order, selected)]
    order = order[np.argsort(number[order], kind="stable")]
    counts = np.bincount(number[order], minlength=len(first_row))
    members = np.split(order, np.cumsum(counts)[:-1])
    kept = np.flatnonzero(counts >= num_tilts)
    if not len(kept):
        raise UserError(
            f"{table.origin} has at most {counts.max()} tilts for a particle but n_tilts is {num_tilts}; "
            f"set n_tilts to {counts.max()} or less."
        )
    short = np.flatnonzero((counts < num_tilts) & (counts > 0))
    if len(short):
        notes += (f"Particles with fewer than {num_tilts} tilts are left out: {len(short)}; {len(kept)} stay.",)
    rank = np.zeros(len(table))
    for rows in members:
        rank[rows] = np.arange(len(rows))
    scale, dose = np.ones(len(table)), np.zeros(len(table))
    if dose_exposure_correction:
        # A dose-symmetric scheme goes 0, +1, -1, +2, -2, ... steps.
        scheme = np.cos(np.deg2rad(angle_per_tilt * np.ceil(rank / 2)))
        scale = table.scale if has_scale else scheme
        if dose_per_tilt is not None:
            dose = rank * dose_per_tilt
        elif table.dose is not None:
            dose = table.dose
        else:
            notes += (f"{table.origin} gives no dose; set dose_per_tilt to let images fade with it.",)
    rows = np.stack([members[particle][:num_tilts] for particle in kept])
    return TiltSeries(rows, kept, len(first_row), scale, dose, notes)


def _order(table: ImageTable, has_scale: bool) -> tuple[Int[np.ndarray, "m"], tuple[str, ...]]:
    """Rows by increasing dose, or else by increasing tilt; and what was assumed."""
    if table.dose is not None and np.any(table.dose != table.dose[0]):
        return np.argsort(table.dose, kind="stable"), ()
    if has_scale:
        return np.argsort(-table.scale, kind="stable"), (
            f"{table.origin} gives no dose: tilts are taken in order of increasing tilt angle.",
        )
    return np.arange(len(table)), (f"{table.origin} gives no dose or tilt: tilts are taken in the order of the file.",)
