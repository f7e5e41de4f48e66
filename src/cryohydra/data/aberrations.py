"""How large the lens effects are that files describe and this program does not apply."""

from math import factorial

import numpy as np
import torch

from cryohydra._typing import Float
from cryohydra.io.star import StarTable
from cryohydra.physics.ctf import wavelength_angstrom

# What is below this many radians at Nyquist is not worth a sentence.
_NEGLIGIBLE = 1e-3
_ORDERS_ODD = [(order, m) for order in (1, 3, 5, 7) for m in range(-order, order + 1, 2)]
_ORDERS_EVEN = [(order, m) for order in (0, 2, 4, 6, 8) for m in range(-order, order + 1, 2)]


def star_aberration_notes(
    optics: StarTable | None, ctf: Float[np.ndarray, "n 9"] | None, box_size: int
) -> tuple[str, ...]:
    """One sentence for each effect in a table of optics groups, with the largest size over the groups."""
    if optics is None or ctf is None or not (ctf[:, 1] > 0).all():
        return ()
    nyquist, wavelength = _nyquist(ctf), _wavelength(ctf)
    sizes = {}
    if optics.has("rlnBeamTiltX", "rlnBeamTiltY"):
        tilt = np.hypot(optics.floats("rlnBeamTiltX"), optics.floats("rlnBeamTiltY")).max() * 1e-3
        sizes["beam tilt"] = 2 * np.pi * ctf[:, 6].max() * 1e7 * tilt * wavelength**2 * nyquist**3
    for column, orders, name in (
        ("rlnOddZernike", _ORDERS_ODD, "antisymmetric aberrations"),
        ("rlnEvenZernike", _ORDERS_EVEN, "symmetric aberrations"),
    ):
        if optics.has(column):
            sizes[name] = max(_zernike_size(_numbers(text), orders, nyquist) for text in optics.column(column))
    matrix = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
    if optics.has(*matrix):
        entries = np.stack([optics.floats(name) for name in matrix], axis=1)
        sizes["anisotropic magnification"] = _magnification_size(entries, box_size)
    return _notes(sizes)


def cs_aberration_notes(records: np.ndarray, ctf: Float[np.ndarray, "n 9"] | None, box_size: int) -> tuple[str, ...]:
    """One sentence for each effect in the records of a .cs file, with the largest size over the images."""
    if ctf is None or not (ctf[:, 1] > 0).all():
        return ()
    names = records.dtype.names or ()
    nyquist, wavelength = _nyquist(ctf), _wavelength(ctf)

    def largest(name: str) -> float:
        return float(np.linalg.norm(records[name], axis=1).max(initial=0)) if name in names else 0.0

    third_order = 2 * np.pi * wavelength**2 * nyquist**3
    fourth_order = np.pi / 2 * wavelength**3 * nyquist**4
    sizes = {
        "beam tilt": third_order * largest("ctf/tilt_A"),
        "trefoil": third_order * largest("ctf/trefoil_A"),
        "tetrafoil": fourth_order * largest("ctf/tetra_A"),
    }
    if "ctf/anisomag" in names:  # kept as the difference from no distortion
        sizes["anisotropic magnification"] = _magnification_size(records["ctf/anisomag"] + np.eye(2).ravel(), box_size)
    return _notes(sizes)


def _notes(sizes: dict[str, float]) -> tuple[str, ...]:
    return tuple(
        f"The file describes {name} of up to {size:.2g} rad at Nyquist; it is not applied."
        for name, size in sizes.items()
        if size > _NEGLIGIBLE
    )


def _nyquist(ctf: Float[np.ndarray, "n 9"]) -> float:
    """The highest frequency of any image, 1/A."""
    return float(1 / (2 * ctf[:, 1].min()))


def _wavelength(ctf: Float[np.ndarray, "n 9"]) -> float:
    """The longest of any image, angstrom."""
    return float(wavelength_angstrom(torch.from_numpy(ctf[:, 5])).max())


def _numbers(text: str) -> np.ndarray:
    """A list such as [1,2,3]."""
    return np.array([float(part) for part in text.strip("[] ").split(",") if part.strip()])


def _zernike_size(coefficients: np.ndarray, orders: list[tuple[int, int]], radius: float) -> float:
    """The largest phase at a radius of a sum of Zernike polynomials over frequencies in 1/A."""
    azimuth = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    total = np.zeros_like(azimuth)
    for coefficient, (order, m) in zip(coefficients, orders, strict=False):
        angular = np.cos(m * azimuth) if m >= 0 else np.sin(-m * azimuth)
        total += coefficient * _radial_polynomial(order, abs(m), radius) * angular
    return float(np.abs(total).max())


def _radial_polynomial(order: int, m: int, radius: float) -> float:
    """The part of a Zernike polynomial that depends on the radius."""
    return sum(
        (-1) ** i
        * factorial(order - i)
        / (factorial(i) * factorial((order + m) // 2 - i) * factorial((order - m) // 2 - i))
        * radius ** (order - 2 * i)
        for i in range((order - m) // 2 + 1)
    )


def _magnification_size(entries: np.ndarray, box_size: int) -> float:
    """Phase at Nyquist of a point a quarter of the box from the centre, which the distortion displaces."""
    distortion = np.linalg.norm(entries.reshape(-1, 2, 2) - np.eye(2), ord=2, axis=(1, 2)).max(initial=0)
    return float(np.pi * box_size / 4 * distortion)
