"""Colours: told apart by readers with and without colour blindness, on white and on black."""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

DENSITY_MAP = "viridis"
"""Perceptually uniform, for counts and densities."""

# In an order in which the first few are farthest apart for the vision that tells them apart worst.
_FIRST_TEN = (
    "#3f90da", "#ffa90e", "#bd1f01", "#717581", "#b9ac70", "#92dadd", "#a96b59", "#e76300", "#832db6", "#94a4a2",
)  # fmt: skip
# How the three kinds of colour blindness see linear RGB.
_VISIONS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)


@dataclass(frozen=True)
class Theme:
    """Colours of a figure's paper and ink."""

    name: str
    paper: str
    ink: str
    faint: str
    accent: str


LIGHT = Theme(name="light", paper="#ffffff", ink="#1f2328", faint="#d5dae0", accent="#2a6fb0")
DARK = Theme(name="dark", paper="#161b22", ink="#e6edf3", faint="#3b434d", accent="#6cb0f0")


def class_colours(count: int) -> list[str]:
    """Colours of `count` classes as #rrggbb; the first ten are always the same ones.

    References:
        Petroff, Accessible color sequences for data visualization, arXiv 2107.02270 (the first ten).
        Machado et al., A physiologically-based model for simulation of color vision deficiency, 2009.
    """
    return list(_FIRST_TEN[:count]) + list(_further_colours(max(0, count - len(_FIRST_TEN))))


def colour_distance(first: str, second: str) -> float:
    """How far two colours are apart in CIE Lab, for the kind of vision that tells them apart worst."""
    seen = _seen_lab(np.array([_to_rgb(first), _to_rgb(second)]))
    return float(np.linalg.norm(seen[:, 0] - seen[:, 1], axis=-1).min())


@functools.cache
def _further_colours(count: int) -> tuple[str, ...]:
    """Each colour the farthest from all before it, among those that show on white and on black."""
    steps = np.linspace(0, 1, 11)
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lightness = _seen_lab(candidates)[0, :, 0]
    candidates = candidates[(lightness > 35) & (lightness < 82)]
    seen = _seen_lab(candidates)
    taken = _seen_lab(np.array([_to_rgb(colour) for colour in _FIRST_TEN]))
    distance = np.linalg.norm(seen[:, :, None] - taken[:, None], axis=-1).min(axis=(0, 2))
    chosen = []
    for _ in range(count):
        best = int(distance.argmax())
        chosen.append(_to_hex(candidates[best]))
        distance = np.minimum(distance, np.linalg.norm(seen - seen[:, best : best + 1], axis=-1).min(axis=0))
    return tuple(chosen)


def _to_rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _to_hex(rgb: Float[np.ndarray, "3"]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def _seen_lab(rgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "v n 3"]:
    """CIE Lab (D65) of sRGB colours in [0, 1], for each kind of vision."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.einsum("vij,nj->vni", _VISIONS, linear), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = seen @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    lightness = 116 * root[..., 1] - 16
    return np.stack([lightness, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1)
