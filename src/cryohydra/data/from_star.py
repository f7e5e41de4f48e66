"""Images, optics and poses from RELION's STAR files, 3.0 and later."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.data.aberrations import star_aberration_notes
from cryohydra.data.table import ImageReferences, ImageTable, refer_to_images, rescale_to_box
from cryohydra.errors import Complain, InputMismatch, UnreadableFile, UserError, attempt, stop
from cryohydra.geometry.rotations import euler_to_matrix
from cryohydra.io.star import StarTable, read_star

# RELION keeps the exposure of tilt images as a B factor: 4 square angstrom for each electron per square angstrom.
_B_FACTOR_PER_DOSE = -4.0
STACK_SUFFIX = ":mrcs"
"""By which RELION is told that a file of another ending is a stack."""
_ALTERED_DATA = {
    "rlnCtfDataAreCtfPremultiplied": "multiplied by their CTF",
    "rlnCtfDataArePhaseFlipped": "phase-flipped",
}


def read_star_particles(path: Path, datadir: Path | None, complain: Complain = stop) -> ImageTable:
    """The images that a STAR file describes.

    Raises:
        UserError: If it cannot be read, describes no images, or describes images that carry their CTF.
    """
    columns = star_columns(path, read_star(path))
    particles, optics, optics_row = columns.particles, columns.optics, columns.optics_row
    for name, what in _ALTERED_DATA.items():
        if columns.has(name) and np.any(columns.floats(name) != 0):
            complain(
                UserError(
                    f"{path} says that its images are {what} ({name} is 1); wanted images as they were taken. "
                    "Extract them again without it."
                )
            )
    references = refer_to_images(
        path,
        *image_names(path, particles),
        datadir,
        stated_box_size=_stated_box_size(columns, complain),
        complain=complain,
    )
    box_size = references.box_size
    ctf, notes = attempt(complain, lambda: _ctf(columns, references), (np.empty((0, 9)), ()))
    pixel_size = ctf[:, 1] if ctf is not None and len(ctf) else None
    rotation, shift_px = attempt(complain, lambda: star_poses(columns, pixel_size), (None, None))
    half, half_notes = attempt(complain, lambda: _half(columns), (None, ()))
    scale = attempt(complain, lambda: columns.floats_or("rlnCtfScalefactor", 1.0), np.ones(len(particles)))
    return ImageTable(
        origin=path,
        references=references,
        ctf=ctf,
        scale=scale,
        dose=attempt(complain, lambda: _dose(columns), None),
        group=np.unique(optics_row, return_inverse=True)[1] if optics_row is not None else np.zeros(len(scale), int),
        rotation=rotation,
        shift_px=shift_px,
        particle=next((columns.texts(name) for name in _PARTICLE_NAMES if columns.has(name)), None),
        is_white=None,
        habit_is_white=True,
        notes=(*notes, *half_notes, *star_aberration_notes(optics, None if pixel_size is None else ctf, box_size)),
        half=half,
        micrograph=_micrograph(columns),
    )


_PARTICLE_NAMES = ("rlnTomoParticleName", "rlnGroupName")


@dataclass(frozen=True, eq=False)
class StarColumns:
    """Values of each image, from its own row or from that of its optics group."""

    particles: StarTable
    optics: StarTable | None
    optics_row: Int[np.ndarray, "n"] | None
    """Of each image, in `optics`."""

    def has(self, *names: str) -> bool:
        """Whether each column is in either table."""
        return all(self.particles.has(name) or (self.optics is not None and self.optics.has(name)) for name in names)

    def texts(self, name: str) -> np.ndarray:
        """A column as text."""
        if self.particles.has(name) or self.optics is None or self.optics_row is None:
            return self.particles.column(name)
        return self.optics.column(name)[self.optics_row]

    def floats(self, name: str) -> Float[np.ndarray, "n"]:
        """A column as numbers."""
        if self.particles.has(name) or self.optics is None or self.optics_row is None:
            return self.particles.floats(name)
        return self.optics.floats(name)[self.optics_row]

    def floats_or(self, name: str, default: float | np.ndarray) -> Float[np.ndarray, "n"]:
        """A column as numbers, or a value where there is none."""
        if self.has(name):
            return self.floats(name)
        return np.broadcast_to(np.asarray(default, dtype=np.float64), len(self.particles)).copy()


def particle_block(path: Path, blocks: Mapping[str, StarTable]) -> str:
    """The name of the block that has a row for each image.

    Raises:
        UnreadableFile: If there is none.
    """
    if "particles" in blocks and blocks["particles"].has("rlnImageName"):
        return "particles"
    name = next((name for name, table in blocks.items() if table.has("rlnImageName")), None)
    if name is None:
        sets = [table for table in blocks.values() if table.has("rlnTomoParticlesFile")]
        named = ", ".join(sets[0].column("rlnTomoParticlesFile")) if sets else None
        raise UnreadableFile(
            f"{path} has no table with a column _rlnImageName (blocks: {', '.join(map(repr, blocks)) or 'none'}); "
            + ("wanted a STAR file of particles." if named is None else f"give the file that it names, {named}.")
        )
    return name


def star_columns(path: Path, blocks: Mapping[str, StarTable]) -> StarColumns:
    """The columns of each image in the blocks of a STAR file.

    Raises:
        UserError: If there is no table of images, or one uses an optics group that is not described.
    """
    particles, optics = blocks[particle_block(path, blocks)], blocks.get("optics")
    if optics is None:
        return StarColumns(particles, None, None)
    groups = {group: row for row, group in enumerate(optics.column("rlnOpticsGroup"))}
    names = particles.column("rlnOpticsGroup")
    unknown = sorted(set(names) - set(groups))
    if unknown:
        raise InputMismatch(f"{path} uses optics group {unknown[0]}, which its table of optics groups lacks; add it.")
    return StarColumns(particles, optics, np.array([groups[name] for name in names], dtype=np.int64))


def image_names(path: Path, particles: StarTable) -> tuple[np.ndarray, Int[np.ndarray, "n"]]:
    """The file of each image as it is written, and the image's number in it, from 0.

    Raises:
        UnreadableFile: If something else than number@file is written.
    """
    names = particles.column("rlnImageName")
    matches = [re.fullmatch(r"(\d+)@(.+)", name) for name in names]
    wrong = next((name for name, match in zip(names, matches, strict=True) if match is None), None)
    if wrong is not None:
        raise UnreadableFile(
            f"{path} names an image '{wrong}'; wanted number@file, such as 000001@particles.mrcs. "
            "If these are stacks of tilts (RELION 5), export them as 2D particles first."
        )
    row = np.array([int(match.group(1)) - 1 for match in matches if match], dtype=np.int64)
    files = np.array([match.group(2).removesuffix(STACK_SUFFIX) for match in matches if match], dtype=str)
    return files, row


def _stated_box_size(columns: StarColumns, complain: Complain) -> int:
    """Pixels to a side, 0 if the file does not tell."""
    stated = attempt(complain, lambda: columns.floats_or("rlnImageSize", 0.0), np.zeros(1))
    return int(stated.max(initial=0))


def _ctf(columns: StarColumns, references: ImageReferences) -> tuple[Float[np.ndarray, "n 9"] | None, tuple[str, ...]]:
    """CTF rows for the box of the images, None if the file has no defocus; and what was assumed."""
    needed = ("rlnDefocusU", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    if not columns.has(*needed):
        return None, ()
    pixel_size, notes = _pixel_size(columns, references)
    defocus_u = columns.floats("rlnDefocusU")
    table = [
        columns.floats_or("rlnImageSize", float(references.box_size)),
        pixel_size,
        defocus_u,
        columns.floats_or("rlnDefocusV", defocus_u),
        columns.floats_or("rlnDefocusAngle", 0.0),
        *(columns.floats(name) for name in needed[1:]),
        columns.floats_or("rlnPhaseShift", 0.0),
    ]
    return rescale_to_box(np.stack(table, axis=1), references.box_size), notes


def _pixel_size(columns: StarColumns, references: ImageReferences) -> tuple[Float[np.ndarray, "n"], tuple[str, ...]]:
    """Angstrom per pixel of each image, and what is doubtful about it."""
    # What position -1 picks is of no stack.
    in_headers = [*(stack.pixel_size_angstrom or np.nan for stack in references.stacks), np.nan]
    header = np.array(in_headers)[references.stack]
    told = star_pixel_size(columns)
    if told is None:
        if np.isnan(header).any():
            raise UnreadableFile(
                "Neither the STAR file nor the images tell the pixel size; wanted _rlnImagePixelSize, or "
                "_rlnMagnification and _rlnDetectorPixelSize. Add it, or give a ctf file."
            )
        return header, (f"The STAR file does not tell the pixel size: {header[0]:.4g} A was taken from the images.",)
    if columns.has("rlnImagePixelSize"):
        return told, ()
    note = "The STAR file has no magnification: its _rlnDetectorPixelSize was taken as angstrom per pixel."
    return told, (*(() if columns.has("rlnMagnification") else (note,)), *_header_note(told, header))


def star_pixel_size(columns: StarColumns) -> Float[np.ndarray, "n"] | None:
    """Angstrom per pixel of each image as the STAR file tells it, None if it does not.

    Raises:
        UnreadableFile: If a magnification is not positive.
    """
    if columns.has("rlnImagePixelSize"):
        return columns.floats("rlnImagePixelSize")
    if not columns.has("rlnDetectorPixelSize"):
        return None
    if not columns.has("rlnMagnification"):
        return columns.floats("rlnDetectorPixelSize")
    # Micrometre on the detector, over the magnification.
    magnification = columns.floats("rlnMagnification")
    if not (magnification > 0).all():
        raise UnreadableFile(
            f"The STAR file has a magnification of {magnification.min():g}; wanted positive numbers. "
            "Correct _rlnMagnification, or give a ctf file."
        )
    return columns.floats("rlnDetectorPixelSize") * 1e4 / magnification


def _header_note(pixel_size: Float[np.ndarray, "n"], header: Float[np.ndarray, "n"]) -> tuple[str, ...]:
    # Many programs write 1 for "not known".
    differs = np.isfinite(header) & (header != 1) & (np.abs(header / pixel_size - 1) > 0.01)
    if not differs.any():
        return ()
    row = np.flatnonzero(differs)[0]
    return (
        f"The STAR file gives {pixel_size[row]:.4g} A per pixel but the images say {header[row]:.4g} A; "
        "the STAR file was believed. Give a ctf file if it is wrong.",
    )


def _dose(columns: StarColumns) -> Float[np.ndarray, "n"] | None:
    """Exposure of each image; only tilt series use it."""
    if columns.has("rlnMicrographPreExposure"):
        return columns.floats("rlnMicrographPreExposure")
    if columns.has("rlnCtfBfactor"):
        return columns.floats("rlnCtfBfactor") / _B_FACTOR_PER_DOSE
    return None


def star_poses(
    columns: StarColumns, pixel_size: Float[np.ndarray, "n"] | None
) -> tuple[Float[np.ndarray, "n 3 3"] | None, Float[np.ndarray, "n 2"] | None]:
    """Rotations, and where particles are: minus the shift that the file holds, which brings them to the centre."""
    if not columns.has("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
        return None, None
    degrees = [columns.floats(name) for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")]
    rotation = euler_to_matrix(torch.from_numpy(np.deg2rad(np.stack(degrees, axis=1)))).numpy()
    if columns.has("rlnOriginXAngst", "rlnOriginYAngst") and pixel_size is not None:
        origin = np.stack([columns.floats("rlnOriginXAngst"), columns.floats("rlnOriginYAngst")], axis=1)
        return rotation, -origin / pixel_size[:, None]
    if columns.has("rlnOriginX", "rlnOriginY"):
        return rotation, -np.stack([columns.floats("rlnOriginX"), columns.floats("rlnOriginY")], axis=1)
    return rotation, None


def _micrograph(columns: StarColumns) -> Int[np.ndarray, "n"] | None:
    if not columns.has("rlnMicrographName"):
        return None
    return np.unique(columns.texts("rlnMicrographName"), return_inverse=True)[1].astype(np.int64)


def _half(columns: StarColumns) -> tuple[Int[np.ndarray, "n"] | None, tuple[str, ...]]:
    """The half of each image, None unless every one has one; and why not."""
    if not columns.has("rlnRandomSubset"):
        return None, ()
    subset = columns.floats("rlnRandomSubset")
    is_known = (subset == 1) | (subset == 2)
    if is_known.all():
        return subset.astype(np.int64) - 1, ()
    return None, (
        f"_rlnRandomSubset is {subset[~is_known][0]:g} for {(~is_known).sum()} images, so it is passed over.",
    )
