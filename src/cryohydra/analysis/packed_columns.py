"""What is known of each particle, packed into a page: of many particles some, in two bytes for each number."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.quantities import Quantity, quantities_of_particles, quantities_of_run
from cryohydra.analysis.run import Run
from cryohydra.data.particles import ParticleSet

MOST_PARTICLES = 20_000
"""Shown in a page; of more, these many picked at random."""
_MOST_AXES = 4
"""Of conformations, of each kind."""
_STEPS = 65_534.0
_NONE = 65_535


@dataclass(frozen=True)
class PackedColumns:
    """Columns for a page."""

    keys: tuple[str, ...]
    names: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    """Value of 0 and of 65534 of each column; 65535 is no value. Positions of categories are kept as they are."""
    categories: tuple[tuple[str, ...], ...]
    colours: tuple[tuple[str, ...], ...]
    """Of the categories."""
    count: int
    total: int
    """Particles of the run."""
    payload: str
    """Base64 of gzip of two bytes, low one first, for each particle of each column, column after column."""


def gather_columns(run: Run, particles: ParticleSet | None, seed: int) -> PackedColumns:
    """What is known of each particle, but for what would be too much in a page that is sent: see `is_shown`.

    Args:
        particles: Of the run, in the same order.
    """
    found = [*quantities_of_run(run), *(() if particles is None else quantities_of_particles(particles))]
    return pack_columns([one for one in found if is_shown(one)], pick_particles(len(run.latents), seed))


def is_shown(quantity: Quantity) -> bool:
    """Whether the page has it: probabilities of single classes and the axes of many-dimensional z stay out."""
    kind, _, number = quantity.key.rpartition("_")
    return kind != "p" and (kind not in ("pc", "z", "z_std") or int(number) < _MOST_AXES)


def pick_particles(num_particles: int, seed: int) -> Int[np.ndarray, "m"]:
    """Rows of the particles that a page shows, in an order in which none covers the others by rule."""
    return np.random.default_rng(seed).permutation(num_particles)[:MOST_PARTICLES]


def pack_columns(quantities: Sequence[Quantity], rows: Int[np.ndarray, "m"]) -> PackedColumns:
    """Pack some rows of at least one quantity."""
    ranges, packed, total = [], [], 0
    for quantity in quantities:
        every: Float[np.ndarray, "n"] = np.asarray(quantity.values(), dtype=np.float64)
        values, total = every[rows], len(every)
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        low, high = (0.0, _STEPS) if quantity.categories else (low, high if high > low else low + 1)
        scaled = np.where(np.isfinite(values), np.round((values - low) / (high - low) * _STEPS), _NONE)
        ranges.append((low, high))
        packed.append(scaled.astype("<u2"))
    return PackedColumns(
        keys=tuple(quantity.key for quantity in quantities),
        names=tuple(quantity.name for quantity in quantities),
        ranges=tuple(ranges),
        categories=tuple(quantity.categories for quantity in quantities),
        colours=tuple(tuple(class_colours(len(quantity.categories))) for quantity in quantities),
        count=len(rows),
        total=total,
        payload=base64.b64encode(gzip.compress(np.stack(packed).tobytes(), 9, mtime=0)).decode("ascii"),
    )
