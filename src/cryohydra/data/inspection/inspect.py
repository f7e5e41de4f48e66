"""A set of particles looked at from all sides, without stopping at the first problem."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from cryohydra._typing import Float
from cryohydra.data.inspection.findings import Finding, counted
from cryohydra.data.inspection.optics import OpticsGroup, check_optics, describe_optics
from cryohydra.data.inspection.survey import TWICE, ImageSurvey, survey_images
from cryohydra.data.particles import check_length, read_table
from cryohydra.data.polarity import centre_significance, find_polarity
from cryohydra.data.table import ImageTable, fourier_cropped, rescale_to_box
from cryohydra.errors import UserError, attempt
from cryohydra.io.ctf_file import read_ctf_file
from cryohydra.io.pose_file import read_pose_file

_MOST_FOR_POLARITY = 1000
_MOST_SHIFT = 0.5
"""Of the box: a particle farther from the centre is not in its image."""


@dataclass(frozen=True)
class ShownPolarity:
    """Whether particles are white on dark, and how that is known."""

    is_white: bool
    known_from: Literal["settings", "file", "images", "habit"]
    significance: float
    """Standard errors by which centres are brighter than images; 0 if hardly at all."""


@dataclass(frozen=True)
class TiltCounts:
    """Images that belong together as tilts."""

    num_particles: int
    fewest: int
    typical: int
    """Nine particles of ten have as many."""
    most: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found; None is what could not be told."""

    particles: Path
    findings: tuple[Finding, ...]
    table: ImageTable | None
    ctf: Float[np.ndarray, "n 9"] | None
    groups: tuple[OpticsGroup, ...]
    survey: ImageSurvey | None
    polarity: ShownPolarity | None
    rotation: Float[np.ndarray, "n 3 3"] | None
    has_shifts: bool
    tilts: TiltCounts | None

    @property
    def can_be_trained_on(self) -> bool:
        """Whether nothing found stands against it."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def num_images(self) -> int:
        """Described in the file."""
        return 0 if self.table is None else len(self.table)

    @property
    def num_there(self) -> int:
        """Of those, the ones whose file and row were found."""
        return 0 if self.table is None else int((self.table.references.stack >= 0).sum())


def inspect_particles(
    particles: Path,
    *,
    ctf: Path | None = None,
    pose: Path | None = None,
    datadir: Path | None = None,
    downsample: int | None = None,
    invert: Literal["auto"] | bool = "auto",
    max_images: int = 2000,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Look at particles and all that belongs to them; problems become findings, none is raised.

    Args:
        downsample: As `open_particles` takes it.
        max_images: How many images are looked at; 0 for a look at the files only.
        seen: Told how many of how many images have been looked at.
    """
    findings: list[Finding] = []

    def complain(problem: UserError) -> None:
        findings.append(Finding.of(problem))

    table = attempt(complain, lambda: read_table(particles, datadir, complain), None)
    if table is None:
        return Inspection(particles, tuple(findings), None, None, (), None, None, None, False, None)
    if table.box_size:
        table = attempt(complain, partial(fourier_cropped, table, downsample), table)
    findings += [Finding("warning", note) for note in table.notes]
    findings += _about_files(table)
    optics, origin = _read_ctf(table, ctf, complain)
    if optics is not None:
        findings += check_optics(optics, str(origin))
    findings += _about_pixel_sizes(optics)
    rotation, shift_px = _read_poses(table, pose, complain)
    findings += _about_poses(table, rotation, shift_px)
    survey = survey_images(table, max_images, seen)
    polarity = None
    if survey is not None:
        findings += survey.findings
        polarity = attempt(complain, lambda: _find_polarity(table, survey, invert, findings), None)
    tilts = _count_tilts(table)
    groups = () if optics is None else describe_optics(optics, table.group)
    found = tuple(sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity)))
    return Inspection(particles, found, table, optics, groups, survey, polarity, rotation, shift_px is not None, tilts)


def _about_files(table: ImageTable) -> list[Finding]:
    references = table.references
    there = references.stack >= 0
    found = []
    pairs = np.stack([references.stack, references.row], axis=1)[there]
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    repeated = unique[counts > 1]
    if len(repeated):
        stack, row = repeated[0]
        rows = np.flatnonzero((references.stack == stack) & (references.row == row))
        said = (
            f"{table.origin} names {counted(len(repeated), 'image')} more than once; rows {rows[0]} and {rows[1]} are"
        )
        found.append(Finding("warning", f"{said} both image {row + 1} of {references.stacks[stack].path}.", TWICE))
    for stack in references.stacks:
        if stack.is_map:
            said = f"{stack.path} is a density map by its header, {stack.box_size} sections of one volume."
            found.append(Finding("warning", said, "Give the stack of particle images."))
    held = sum(stack.num_images for stack in references.stacks)
    if held > len(unique) and there.all():
        said = f"The stacks hold {held:,} images, of which {table.origin} describes {len(unique):,}"
        found.append(Finding("note", f"{said}; the others are not used."))
    return found


def _read_ctf(
    table: ImageTable, path: Path | None, complain: Callable[[UserError], None]
) -> tuple[Float[np.ndarray, "n 9"] | None, Path]:
    """CTF rows, and where they come from."""
    if path is not None:
        read = attempt(complain, lambda: read_ctf_file(path), None)
        if read is None or attempt(complain, lambda: _is_as_long(path, len(read), table), False) is False:
            return None, path
        return rescale_to_box(read, table.box_size), path
    if table.ctf is None:
        complain(
            UserError(
                f"{table.origin} does not tell the CTF; wanted it there or in a ctf file. "
                "Give the .star or .cs that describes the images, or --ctf FILE.pkl."
            )
        )
        return None, table.origin
    return (table.ctf if len(table.ctf) else None), table.origin


def _is_as_long(path: Path, length: int, table: ImageTable) -> bool:
    check_length(path, length, table)
    return True


def _about_pixel_sizes(ctf: Float[np.ndarray, "n 9"] | None) -> list[Finding]:
    if ctf is None or not (ctf[:, 1] > 0).all():
        return []
    lowest, highest = ctf[:, 1].min(), ctf[:, 1].max()
    if highest / lowest < 1.001:
        return []
    said = f"Pixel sizes go from {lowest:.4g} to {highest:.4g} A; structures are compared in pixels."
    return [Finding("warning", said, "Rescale the images to one pixel size if the difference matters.")]


def _read_poses(
    table: ImageTable, path: Path | None, complain: Callable[[UserError], None]
) -> tuple[Float[np.ndarray, "n 3 3"] | None, Float[np.ndarray, "n 2"] | None]:
    """Rotations, and where particles are."""
    if path is None:
        return table.rotation, table.shift_px
    rotation, shift = attempt(complain, lambda: read_pose_file(path), (None, None))
    if rotation is None or attempt(complain, lambda: _is_as_long(path, len(rotation), table), False) is False:
        return None, None
    return rotation, None if shift is None else -shift * table.box_size


def _about_poses(
    table: ImageTable, rotation: Float[np.ndarray, "n 3 3"] | None, shift_px: Float[np.ndarray, "n 2"] | None
) -> list[Finding]:
    found = []
    if rotation is not None and len(rotation) > 1 and np.allclose(rotation, rotation[0], atol=1e-6):
        said = "All given poses are the same, so they say nothing."
        found.append(Finding("warning", said, "Find poses ab initio (the default), or give those of a refinement."))
    if shift_px is not None and table.box_size:
        far = np.flatnonzero(np.abs(shift_px).max(axis=1) > _MOST_SHIFT * table.box_size)
        if len(far):
            said = f"{counted(len(far), 'given shift')} lead out of the box, up to {np.abs(shift_px).max():.3g} px"
            advice = "Check their unit: pixels in STAR 3.0 and .cs, angstrom since STAR 3.1, fractions in pose.pkl."
            found.append(Finding("warning", f"{said} of {table.box_size}.", advice))
    return found


def _find_polarity(
    table: ImageTable, survey: ImageSurvey, invert: Literal["auto"] | bool, findings: list[Finding]
) -> ShownPolarity | None:
    rows = survey.rows
    if not len(rows):
        return None
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_FOR_POLARITY)).astype(int)]
    significance = centre_significance(table, rows)
    found = find_polarity(table, rows, invert)
    if found.note is not None:
        findings.append(Finding.of(found.note, "note" if significance else "warning"))
    is_white = bool(np.median(found.factor[rows]) < 0)
    if invert != "auto":
        known_from: Literal["settings", "file", "images", "habit"] = "settings"
    elif table.is_white is not None:
        known_from = "file"
    else:
        known_from = "images" if (significance > 0) == is_white and significance else "habit"
    return ShownPolarity(is_white, known_from, significance)


def _count_tilts(table: ImageTable) -> TiltCounts | None:
    """How many images are of one particle, where a file tells and their dose tells them apart."""
    if table.particle is None or table.dose is None or not np.any(table.dose != table.dose[0]):
        return None
    counts = np.sort(np.unique(table.particle, return_counts=True)[1])
    if counts[-1] < 2:
        return None
    return TiltCounts(len(counts), int(counts[0]), int(counts[len(counts) // 10]), int(counts[-1]))
