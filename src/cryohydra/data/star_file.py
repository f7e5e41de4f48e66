"""RELION's STAR files of particles, as text of which nothing is lost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.data.findings import ImageBox, ImageFindings, ParticleFile
from cryohydra.data.from_star import (
    STACK_SUFFIX,
    StarColumns,
    particle_block,
    star_columns,
    star_pixel_size,
    star_poses,
)
from cryohydra.errors import UnreadableFile
from cryohydra.geometry.rotations import matrix_to_euler
from cryohydra.io.star import StarTable, read_star, star_version, write_star

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGIN_PX = ("rlnOriginX", "rlnOriginY")
_ORIGIN_ANGSTROM = ("rlnOriginXAngst", "rlnOriginYAngst")
_CLASS, _PROBABILITY, _HALF = "rlnClassNumber", "rlnParticleFigureOfMerit", "rlnRandomSubset"
_STALE = (
    "rlnMaxValueProbDistribution", "rlnNrOfSignificantSamples", "rlnLogLikeliContribution",
    "rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior", "rlnOriginXPriorAngst", "rlnOriginYPriorAngst",
    "rlnOriginXPrior", "rlnOriginYPrior",
)  # fmt: skip
_IDENTITY = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")


@dataclass(frozen=True, eq=False)
class StarFile(ParticleFile):
    """A STAR file of particles."""

    path: Path
    blocks: Mapping[str, StarTable]
    version: int | None = 30001
    """As RELION states it; None where it does not, as in 3.0, and without optics groups."""

    @classmethod
    def read(cls, path: Path) -> "StarFile":
        """Read it."""
        blocks = read_star(path)
        star_columns(path, blocks)  # refuses what has no images
        return cls(path, blocks, star_version(path) if "optics" in blocks else None)

    def write(self, path: Path) -> None:
        """Write it as the version of RELION it came from does."""
        write_star(path, self.blocks, self.version)

    def __len__(self) -> int:
        return len(self._columns.particles)

    def first_image(self) -> str:
        """The stack of the first image."""
        names = self._columns.particles.column("rlnImageName")
        if not len(names):
            raise UnreadableFile(f"{self.path} describes no image; wanted at least one row.")
        return str(names[0]).rpartition("@")[2].removesuffix(STACK_SUFFIX)

    def box_size_px(self) -> Float[np.ndarray, "n"] | None:
        """From the optics group."""
        return self._columns.floats("rlnImageSize") if self._columns.has("rlnImageSize") else None

    def pixel_size_angstrom(self) -> Float[np.ndarray, "n"] | None:
        """From the optics group, or detector and magnification."""
        return star_pixel_size(self._columns)

    def half(self) -> Int[np.ndarray, "n"] | None:
        """The random subset."""
        return self._columns.floats(_HALF).astype(np.int64) - 1 if self._columns.has(_HALF) else None

    def identity(self) -> np.ndarray | None:
        """Micrograph and coordinates."""
        if not self._columns.has(*_IDENTITY):
            return None
        micrograph = np.char.rpartition(self._columns.texts(_IDENTITY[0]), "/")[:, 2]
        x, y = (np.char.mod("%.2f", self._columns.floats(name)) for name in _IDENTITY[1:])
        return np.char.add(np.char.add(np.char.add(np.char.add(micrograph, "|"), x), "|"), y)

    def stale_columns(self) -> tuple[str, ...]:
        """Priors and statistics of a refinement."""
        return tuple(name for name in _STALE if self._columns.particles.has(name))

    def having(self, findings: ImageFindings, box: ImageBox) -> "StarFile":
        """Angles in degrees, origins in the unit of the file, class from 1, probability as figure of merit."""
        name = particle_block(self.path, self.blocks)
        particles, box = self.blocks[name][findings.row], box[findings.row]
        euler = matrix_to_euler(torch.from_numpy(findings.rotation).double()).rad2deg().numpy()
        # A file holds what brings the particle to the centre.
        origin_px = -findings.shift_fraction * box.size_px[:, None]
        columns = {angle: _decimals(euler[:, i]) for i, angle in enumerate(_ANGLES)}
        is_in_px = particles.has(*_ORIGIN_PX) or "optics" not in self.blocks
        if is_in_px:
            columns |= {origin: _decimals(origin_px[:, i]) for i, origin in enumerate(_ORIGIN_PX)}
        if particles.has(*_ORIGIN_ANGSTROM) or not is_in_px:
            origin = origin_px * box.pixel_size_angstrom[:, None]
            columns |= {name: _decimals(origin[:, i]) for i, name in enumerate(_ORIGIN_ANGSTROM)}
        columns[_CLASS] = (findings.class_index + 1).astype(str)
        columns[_PROBABILITY] = _decimals(findings.class_probability)
        if not particles.has(_HALF):
            columns[_HALF] = (findings.half + 1).astype(str)
        return replace(self, blocks={**self.blocks, name: particles.having(columns)})

    def findings(self, box: ImageBox) -> ImageFindings:
        """What is in its columns.

        Raises:
            UnreadableFile: If a column is not there.
        """
        columns = self._columns
        rotation, shift_px = star_poses(columns, box.pixel_size_angstrom)
        half = self.half()
        if rotation is None or shift_px is None or half is None:
            raise UnreadableFile(f"{self.path} lacks angles, origins or {_HALF}; wanted a file that was exported.")
        return ImageFindings(
            row=np.arange(len(self)),
            rotation=rotation,
            shift_fraction=shift_px / box.size_px[:, None],
            class_index=columns.floats(_CLASS).astype(np.int64) - 1,
            class_probability=columns.floats(_PROBABILITY),
            half=half,
        )

    def is_same(self, other: ParticleFile) -> bool:
        """Text by text, block by block."""
        return (
            isinstance(other, StarFile)
            and list(self.blocks) == list(other.blocks)
            and self.version == other.version
            and all(_is_same_table(table, other.blocks[name]) for name, table in self.blocks.items())
        )

    @cached_property
    def _columns(self) -> StarColumns:
        return star_columns(self.path, self.blocks)


def _is_same_table(a: StarTable, b: StarTable) -> bool:
    return list(a.columns) == list(b.columns) and all(
        np.array_equal(a.columns[name], b.columns[name]) for name in a.columns
    )


def _decimals(values: Float[np.ndarray, "n"]) -> np.ndarray:
    # Adding zero makes -0.0 a plain zero.
    return np.char.mod("%.6f", np.round(values, 6) + 0.0)
