"""Whether what a file says of the optics can be true."""

from dataclasses import dataclass

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.data.inspection.findings import Finding, Severity, counted, rows_named
from cryohydra.physics.ctf import Optics, wavelength_angstrom

_BOX, _PIXEL, _DEFOCUS_U, _DEFOCUS_V, _ANGLE, _VOLTAGE, _CS, _CONTRAST, _PHASE = range(9)


@dataclass(frozen=True)
class OpticsGroup:
    """Images taken alike; of ranges the lowest, the median and the highest."""

    group: int
    """From 0."""
    num_images: int
    box_size: int
    """0 if it is not known."""
    pixel_size_angstrom: float
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    defocus_angstrom: tuple[float, float, float]
    """Mean of the two axes; underfocus is positive."""
    phase_shift_degrees: tuple[float, float, float]


@dataclass(frozen=True)
class _Rule:
    """What a number must, or should, be."""

    column: int
    name: str
    lowest: float
    highest: float
    severity: Severity
    wanted: str
    advice: str


_RULES = (
    _Rule(_PIXEL, "pixel size", 1e-6, np.inf, "error", "a positive number of angstrom",
          "Correct the pixel size, or the magnification it follows from."),
    _Rule(_PIXEL, "pixel size", 0.2, 25.0, "warning", "0.2 to 25 A",
          "Check the pixel size: is it in angstrom, of the images as they are?"),
    _Rule(_VOLTAGE, "voltage", 40.0, 1300.0, "error", "60 to 400 kV", "Give the voltage in kilovolt: 300, not 300000."),
    _Rule(_CS, "spherical aberration", -1e-6, 20.0, "error", "0 to 6 mm",
          "Give Cs in millimetre: 2.7, not 2.7e7; 0.01 where it is corrected."),
    _Rule(_CONTRAST, "amplitude contrast", -1e-6, 0.999, "error", "0 to 0.2, as a fraction",
          "Give a fraction: 0.1, not 10."),
    _Rule(_CONTRAST, "amplitude contrast", -1.0, 0.4, "warning", "0.05 to 0.2 of most samples", "Check the column."),
    _Rule(_DEFOCUS_U, "defocus", -np.inf, 1e5, "warning", "2,000 to 50,000 A",
          "Check the unit, and whether the CTF fits of these micrographs can be believed."),
)  # fmt: skip
_LEAST_DEFOCUS = 100.0
"""Angstrom: if none has more, the column is in micrometre, or empty."""
_MOST_ASTIGMATISM = 5000.0


def ctf_rows(optics: Optics, box_size: int) -> Float[np.ndarray, "n 9"]:
    """Optics as rows of a CTF file."""
    columns = [
        torch.full_like(optics.pixel_size_angstrom, box_size),
        optics.pixel_size_angstrom,
        optics.defocus_u_angstrom,
        optics.defocus_v_angstrom,
        optics.defocus_angle.rad2deg(),
        optics.voltage_kv,
        optics.spherical_aberration_angstrom / 1e7,
        optics.amplitude_contrast,
        optics.phase_shift.rad2deg(),
    ]
    return torch.stack(columns, dim=-1).flatten(0, -2).double().numpy()


def describe_optics(ctf: Float[np.ndarray, "n 9"], group: Int[np.ndarray, "n"]) -> tuple[OpticsGroup, ...]:
    """Each optics group."""
    return tuple(_describe(ctf[group == number], int(number)) for number in np.unique(group))


def check_optics(ctf: Float[np.ndarray, "n 9"], origin: str) -> list[Finding]:
    """What cannot be, or is unusual.

    Args:
        ctf: Columns as in a CTF file.
        origin: Where it is written.
    """
    is_finite = np.isfinite(ctf).all(axis=1)
    found = []
    if not is_finite.all():
        rows = np.flatnonzero(~is_finite).tolist()
        found.append(
            Finding(
                "error",
                f"{origin} has CTF values that are not finite in {counted(len(rows), 'row')} ({rows_named(rows)}).",
                "Correct them, or leave these images out.",
            )
        )
    usable = ctf[is_finite]
    told: set[int] = set()
    for rule in _RULES:
        values = ctf[:, rule.column]
        rows = np.flatnonzero(is_finite & ~((values >= rule.lowest) & (values <= rule.highest))).tolist()
        if rows and rule.column not in told:
            told.add(rule.column)
            found.append(
                Finding(
                    rule.severity,
                    f"{origin} has a {rule.name} of {values[rows[0]]:g} in {counted(len(rows), 'row')} "
                    f"({rows_named(rows)}); wanted {rule.wanted}.",
                    rule.advice,
                )
            )
    return found + _check_defocus(usable, origin) if len(usable) else found


def _check_defocus(ctf: Float[np.ndarray, "n 9"], origin: str) -> list[Finding]:
    mean = (ctf[:, _DEFOCUS_U] + ctf[:, _DEFOCUS_V]) / 2
    found = []
    if np.abs(mean).max() < _LEAST_DEFOCUS:
        said = f"no defocus above {np.abs(mean).max():.3g} A"
        unit = "Is it in micrometre? Multiply by 10,000." if np.abs(mean).max() > 0 else "Estimate the CTF first."
        return [Finding("error", f"{origin} gives {said}; wanted angstrom, thousands of them.", unit)]
    over = np.flatnonzero(mean < 0)
    if len(over):
        found.append(
            Finding(
                "warning",
                f"{origin} has negative defocus (overfocus) for {counted(len(over), 'image')}; underfocus is positive.",
                "If all are, the sign is the other program's: change it.",
            )
        )
    if len(mean) > 100 and np.ptp(mean) == 0:
        found.append(
            Finding(
                "warning",
                f"All {len(mean):,} images have one defocus, {mean[0]:.0f} A.",
                "Estimate it per micrograph, unless they were made so.",
            )
        )
    uneven = np.flatnonzero(np.abs(ctf[:, _DEFOCUS_U] - ctf[:, _DEFOCUS_V]) > _MOST_ASTIGMATISM)
    if len(uneven):
        found.append(
            Finding(
                "warning",
                f"The two defocus values differ by more than {_MOST_ASTIGMATISM:.0f} A for "
                f"{counted(len(uneven), 'image')} (rows {rows_named(uneven.tolist())}).",
                "Look at the CTF fits of their micrographs.",
            )
        )
    return found + _check_delocalisation(ctf, mean)


def _check_delocalisation(ctf: Float[np.ndarray, "n 9"], defocus: Float[np.ndarray, "n"]) -> list[Finding]:
    """A wave of frequency s is carried lambda * defocus * s to the side: what leaves the box is lost."""
    pixel, box, voltage = ctf[:, _PIXEL], ctf[:, _BOX], ctf[:, _VOLTAGE]
    if not (box > 0).all() or not (pixel > 0).all() or not (voltage > 0).all():
        return []
    carried = wavelength_angstrom(torch.from_numpy(voltage)).numpy() * np.abs(np.median(defocus))
    finest = float(np.median(2 * carried / (box * pixel)))
    if finest <= 2.5 * float(np.median(pixel)):
        return []
    return [
        Finding(
            "note",
            f"At the median defocus, details finer than {finest:.1f} A are carried out of the box by the CTF.",
            "For these, extract with a larger box.",
        )
    ]


def _describe(ctf: Float[np.ndarray, "n 9"], number: int) -> OpticsGroup:
    def middle(column: int) -> float:
        return float(np.median(ctf[:, column]))

    def span(values: np.ndarray) -> tuple[float, float, float]:
        return float(values.min()), float(np.median(values)), float(values.max())

    return OpticsGroup(
        group=number,
        num_images=len(ctf),
        box_size=int(middle(_BOX)) if np.isfinite(middle(_BOX)) else 0,
        # In float32, 13.1 has digits that nobody wrote.
        pixel_size_angstrom=round(middle(_PIXEL), 5),
        voltage_kv=round(middle(_VOLTAGE), 3),
        spherical_aberration_mm=round(middle(_CS), 4),
        amplitude_contrast=round(middle(_CONTRAST), 4),
        defocus_angstrom=span((ctf[:, _DEFOCUS_U] + ctf[:, _DEFOCUS_V]) / 2),
        phase_shift_degrees=span(ctf[:, _PHASE]),
    )
