"""Whether particles are white on dark or dark on white."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.data.sources import read_images
from cryohydra.data.table import ImageTable
from cryohydra.errors import UserError

_MAX_IMAGES = 1000
_CHUNK = 128
# Standard errors. Noise alone passes one in a thousand times with 7 images, never with many.
_DECISIVE = 6.0
# Of the spread from image to image, below which a bright centre may be uneven ice. Particles reach one and more.
_LEAST_EFFECT = 0.25
# Fraction of the box. As a weight on frequencies it reaches three Fourier pixels, where the CTF has not yet
# changed its sign and ice hides less than at the very lowest.
_CENTRE_SIGMA = 0.075


@dataclass(frozen=True)
class Polarity:
    """The factor that makes each particle dark on white, and what to tell the user."""

    factor: Float[np.ndarray, "n"]
    note: str | None


def find_polarity(table: ImageTable, rows: Int[np.ndarray, "m"], invert: Literal["auto"] | bool) -> Polarity:
    """Decide by what the user says, else by what the file states, else by the pixels, else by habit.

    Args:
        rows: Images to look at.

    Raises:
        UserError: If the file states one thing and the pixels clearly show the other.
    """
    if invert != "auto":
        return Polarity(np.full(len(table), -1.0 if invert else 1.0), None)
    significance = centre_significance(table, rows)
    if table.is_white is not None:
        factor = np.where(table.is_white, -1.0, 1.0)
        stated = np.median(factor[rows])
        if significance * stated > _DECISIVE:
            colour, other = ("white", "dark") if stated < 0 else ("dark", "white")
            raise UserError(
                f"{table.origin} states that particles are {colour}, but the images show them {other} "
                f"({abs(significance):.0f} standard errors); which is right? Set invert_data to true if particles are "
                "white on dark, to false if they are dark on white."
            )
        return Polarity(factor, None)
    if abs(significance) < _DECISIVE:
        colour = "white on dark" if table.habit_is_white else "dark on white"
        return Polarity(
            np.full(len(table), -1.0 if table.habit_is_white else 1.0),
            f"The images do not show whether particles are white or dark; they were taken as {colour}, as is usual "
            "for such files. If maps come out inverted, set invert_data.",
        )
    is_white = significance > 0
    note = None
    if is_white != table.habit_is_white:
        note = (
            f"The images show {'white particles on dark' if is_white else 'dark particles on white'} "
            f"({abs(significance):.0f} standard errors), unlike most such files; the images were believed. "
            "Set invert_data if they should not be."
        )
    return Polarity(np.full(len(table), -1.0 if is_white else 1.0), note)


def centre_significance(table: ImageTable, rows: Int[np.ndarray, "m"]) -> float:
    """How many standard errors the centres of images are brighter than the images; zero if hardly at all."""
    if len(rows) < 3:
        return 0.0
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_IMAGES)).astype(int)]
    axis = torch.arange(table.box_size) / table.box_size - 0.5
    distance = torch.hypot(axis[:, None], axis[None, :])
    centre = torch.exp(-0.5 * (distance / _CENTRE_SIGMA).square())
    weight = centre / centre.sum() - 1 / table.box_size**2
    contrast = []
    for some in np.array_split(rows, -(-len(rows) // _CHUNK)):
        images = read_images(table.references, some)
        contrast.append((images * weight).sum((1, 2)) / images.std((1, 2)))
    values = torch.cat(contrast).double()
    effect = float(values.mean() / values.std().clamp(min=1e-12))
    return effect * len(values) ** 0.5 if abs(effect) >= _LEAST_EFFECT else 0.0
