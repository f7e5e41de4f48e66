"""What is known of each particle, as columns to plot against each other."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.analysis.palette import class_colours
from cryohydra.analysis.run import Run
from cryohydra.data.particles import ParticleSet
from cryohydra.geometry.rotations import matrix_to_euler

MOST_PARTICLES = 20_000
"""Shown in a page; of more, these many picked at random."""
_MOST_NAMES = 60
"""Labels that can be told apart by colour, at most."""
_STEPS = 65_534.0
_NONE = 65_535


@dataclass(frozen=True)
class Column:
    """One quantity of all particles."""

    name: str
    values: Float[np.ndarray, "n"]
    """nan where a particle has none; the position of its name where there are names."""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackedColumns:
    """Columns for a page."""

    names: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    """Value of 0 and of 65534 of each column; 65535 is no value. Positions of names are kept as they are."""
    categories: tuple[tuple[str, ...], ...]
    colours: tuple[tuple[str, ...], ...]
    """Of the categories."""
    count: int
    total: int
    """Particles of the run."""
    payload: str
    """Base64 of gzip of two bytes, low one first, for each particle of each column, column after column."""


def pose_columns(run: Run) -> tuple[Column, ...]:
    """What the latents say besides conformations."""
    latents = run.latents
    names = tuple(f"Class {index}" for index in range(run.num_classes))
    euler = np.rad2deg(matrix_to_euler(torch.from_numpy(latents.rotation[:, 0]).double()).numpy())
    columns = [
        Column("Class", latents.best_class.astype(np.float64), names),
        Column("Probability of its class", latents.class_probability.max(axis=1).astype(np.float64)),
        Column("View: rot (°)", euler[:, 0]),
        Column("View: tilt (°)", euler[:, 1]),
        Column("In-plane angle psi (°)", euler[:, 2]),
        Column("Shift (px)", np.linalg.norm(latents.shift_px[:, 0], axis=-1).astype(np.float64)),
        Column("Log evidence", latents.log_evidence.astype(np.float64)),
        Column("Particle number", latents.particle_index.astype(np.float64)),
    ]
    return tuple(columns)


def input_columns(particles: ParticleSet) -> tuple[Column, ...]:
    """What the particle files say."""
    columns = [Column("Defocus (µm)", mean_defocus(particles) / 1e4)]
    group = particles.source.optics(torch.arange(len(particles.source))).group[:, 0].numpy()
    if 1 < len(np.unique(group)) <= _MOST_NAMES:
        names = tuple(f"Optics group {number + 1}" for number in range(group.max() + 1))
        columns.append(Column("Optics group", group.astype(np.float64), names))
    if particles.labels is not None:
        known, place = np.unique(particles.labels.numpy(), return_inverse=True)
        names = tuple(f"Label {label}" for label in known) if len(known) <= _MOST_NAMES else ()
        columns.append(Column("Label", (place if names else known[place]).astype(np.float64), names))
    return tuple(columns)


def mean_defocus(particles: ParticleSet) -> Float[np.ndarray, "n"]:
    """Of each particle, over its tilts and both axes, in angstrom."""
    optics = particles.source.optics(torch.arange(len(particles.source)))
    return (optics.defocus_u_angstrom + optics.defocus_v_angstrom).mean(1).double().numpy() / 2


def gather_columns(
    run: Run, coordinates: Mapping[int, Sequence[Column]], particles: ParticleSet | None, seed: int
) -> PackedColumns:
    """All that is known of each particle, conformations first.

    Args:
        coordinates: Conformations of the particles of some classes.
    """
    spread: dict[str, Column] = {}
    for class_index, columns in coordinates.items():
        members = run.members(class_index)
        for column in columns:
            empty = Column(column.name, np.full(len(run.latents), np.nan))
            spread.setdefault(column.name, empty).values[members] = column.values
    found = [*spread.values(), *pose_columns(run), *(() if particles is None else input_columns(particles))]
    return pack_columns(found, pick_particles(len(run.latents), seed), run.num_classes)


def pick_particles(num_particles: int, seed: int) -> Int[np.ndarray, "m"]:
    """Rows of the particles that a page shows, in an order in which none covers the others by rule."""
    return np.random.default_rng(seed).permutation(num_particles)[:MOST_PARTICLES]


def pack_columns(columns: Sequence[Column], rows: Int[np.ndarray, "m"], num_classes: int) -> PackedColumns:
    """Pack some rows of columns."""
    ranges, packed = [], []
    for column in columns:
        values = column.values[rows]
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) and not column.names else (0.0, _STEPS)
        high = high if high > low else low + 1
        scaled = np.where(np.isfinite(values), np.round((values - low) / (high - low) * _STEPS), _NONE)
        ranges.append((low, high))
        packed.append(scaled.astype("<u2"))
    return PackedColumns(
        names=tuple(column.name for column in columns),
        ranges=tuple(ranges),
        categories=tuple(column.names for column in columns),
        colours=tuple(tuple(class_colours(max(len(column.names), num_classes))) for column in columns),
        count=len(rows),
        total=len(columns[0].values),
        payload=base64.b64encode(gzip.compress(np.stack(packed).tobytes(), 9, mtime=0)).decode("ascii"),
    )
