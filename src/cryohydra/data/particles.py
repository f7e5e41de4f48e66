"""Particles from the files that a user names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.from_cs import read_cs_particles
from cryohydra.data.from_stack import read_stack, read_stack_list
from cryohydra.data.from_star import read_star_particles
from cryohydra.data.polarity import find_polarity
from cryohydra.data.selection import read_labels, read_selection
from cryohydra.data.source import ParticleSource
from cryohydra.data.sources import StackSource
from cryohydra.data.table import ImageTable, fourier_cropped, optics_of_tilts, rescale_to_box
from cryohydra.data.tilts import TiltSeries, group_tilts, single_images
from cryohydra.errors import Complain, InputMismatch, UserError, stop
from cryohydra.io.ctf_file import check_ctf_table, read_ctf_file
from cryohydra.io.pose_file import read_pose_file
from cryohydra.physics.ctf import Optics
from cryohydra.physics.pose import Pose

READERS: dict[str, Callable[[Path, Path | None, Complain], ImageTable]] = {
    ".mrcs": read_stack,
    ".mrc": read_stack,
    ".txt": read_stack_list,
    ".star": read_star_particles,
    ".cs": read_cs_particles,
}
"""What reads each kind of file; a new format is one more line."""

_NUM_CHECKED_WHEN_LAZY = 1000


@dataclass(frozen=True)
class ParticleSet:
    """Particles and what was known of them."""

    source: ParticleSource
    poses: Pose | None
    """Axes n t 1; shifts are zero if the file has only rotations."""
    has_shifts: bool
    labels: Int[Tensor, "n"] | None
    index: Int[Tensor, "n"]
    """Row of each particle in the unfiltered input; of tilt series, its number there."""
    rows: Int[Tensor, "n t"]
    """Rows of its images in the unfiltered input, as `ind` names them."""
    notes: tuple[str, ...]
    """Sentences for the user."""
    half: Int[Tensor, "n"] | None = None
    """Half, 0 or 1, into which an earlier refinement put each particle."""
    micrograph: Int[Tensor, "n"] | None = None
    """Number of its micrograph; of tilt series, of the first tilt's."""


def open_particles(
    particles: Path,
    *,
    ctf: Path | None = None,
    pose: Path | None = None,
    labels: Path | None = None,
    ind: int | Path | None = None,
    datadir: Path | None = None,
    downsample: int | None = None,
    lazy: bool = False,
    invert: Literal["auto"] | bool = "auto",
    num_tilts: int | None = None,
    dose_per_tilt: float | None = None,
    angle_per_tilt: float = 3.0,
    dose_exposure_correction: bool = True,
) -> ParticleSet:
    """Open particles in a .mrcs, .mrc, .txt, .star or .cs file.

    Args:
        ctf: Replaces what the particle file says of the CTF.
        pose: Replaces what it says of poses.
        labels: One for each particle before selection.
        ind: How many images, or a file of the rows, to use; of tilt series, rows are single tilts.
        datadir: Folder of the images that a .star or .cs names.
        downsample: Pixels to a side to which images are cropped in Fourier space as they are read.
        lazy: Whether images stay on disk.
        invert: Whether to flip the sign of images; "auto" finds out.
        num_tilts: Tilts of each particle; None if images are single particles.
        dose_per_tilt: Electrons per square angstrom; None takes what the file says.
        angle_per_tilt: Degrees, where the file tells no tilt.
        dose_exposure_correction: Whether images fade with dose and tilt.

    Raises:
        UserError: If files are missing, unreadable, or do not belong together.
    """
    table = fourier_cropped(read_table(Path(particles), datadir), downsample)
    selected = read_selection(ind, len(table), table.origin)
    if num_tilts is None:
        series = single_images(table, selected)
    else:
        series = group_tilts(table, selected, num_tilts, dose_per_tilt, angle_per_tilt, dose_exposure_correction)
    optics = _optics(table, series, ctf)
    poses, has_shifts = _poses(table, series.rows, pose)
    polarity = find_polarity(table, series.rows.flatten(), invert)
    rows = torch.from_numpy(series.rows)
    source = StackSource(table.references, rows, optics, torch.from_numpy(polarity.factor).float())
    if lazy:
        _check_some_images(source)
    else:
        source.load()
    label = None if labels is None else read_labels(labels, series.num_particles_described, table.origin)
    notes = (*table.notes, *series.notes, *_pixel_size_notes(optics))
    return ParticleSet(
        source=source,
        poses=poses,
        has_shifts=has_shifts,
        labels=None if label is None else torch.from_numpy(label[series.particle]),
        index=torch.from_numpy(series.particle),
        rows=rows,
        notes=notes if polarity.note is None else (*notes, polarity.note),
        half=None if table.half is None else torch.from_numpy(table.half[series.rows[:, 0]]),
        micrograph=None if table.micrograph is None else torch.from_numpy(table.micrograph[series.rows[:, 0]]),
    )


def rows_of_tilts(
    particles: Path, ind: int | Path | None, datadir: Path | None, num_tilts: int
) -> Int[np.ndarray, "n t"]:
    """The rows, in a file of particles, of the tilts that `open_particles` takes of each particle.

    Raises:
        UserError: As `open_particles` does.
    """
    table = read_table(particles, datadir)
    selected = read_selection(ind, len(table), table.origin)
    return group_tilts(table, selected, num_tilts, None, 0.0, False).rows


def read_table(particles: Path, datadir: Path | None, complain: Complain = stop) -> ImageTable:
    """What a file says of its images.

    Raises:
        UserError: If it cannot be read; if it has problems that leave something to go on with, `complain` decides.
    """
    if particles.suffix not in READERS:
        what = "a folder" if particles.is_dir() else "of an unknown kind"
        raise UserError(f"{particles} is {what}; wanted a file of particles, ending in {', '.join(READERS)}.")
    if datadir is not None and not Path(datadir).is_dir():
        raise UserError(f"datadir {datadir} is not a folder; wanted the one that holds the images.")
    return READERS[particles.suffix](particles, None if datadir is None else Path(datadir), complain)


def _optics(table: ImageTable, series: TiltSeries, ctf_path: Path | None) -> Optics:
    if ctf_path is not None:
        ctf = read_ctf_file(ctf_path)
        check_length(ctf_path, len(ctf), table)
        ctf = rescale_to_box(ctf, table.box_size)
    elif table.ctf is not None:
        ctf = check_ctf_table(table.origin, table.ctf)
    else:
        raise UserError(f"{table.origin} does not tell the CTF; wanted it there or in a ctf file. Give --ctf FILE.pkl.")
    return optics_of_tilts(ctf, series.scale, series.dose, table.group, series.rows)


def _poses(table: ImageTable, rows: Int[np.ndarray, "n t"], pose_path: Path | None) -> tuple[Pose | None, bool]:
    """Poses of each particle's tilts, and whether they have shifts."""
    rotation, shift_px = table.rotation, table.shift_px
    if pose_path is not None:
        rotation, shift_fraction = read_pose_file(pose_path)
        check_length(pose_path, len(rotation), table)
        shift_px = None if shift_fraction is None else -shift_fraction * table.box_size
    if rotation is None:
        return None, False
    shift: Float[np.ndarray, "n 2"] = np.zeros((len(table), 2)) if shift_px is None else shift_px
    return Pose(
        rotation=torch.from_numpy(rotation[rows]).float()[:, :, None],
        shift_px=torch.from_numpy(shift[rows]).float()[:, :, None],
    ), shift_px is not None


def check_length(path: Path, length: int, table: ImageTable) -> None:
    """See that another file describes as many images.

    Raises:
        InputMismatch: If it does not.
    """
    if length != len(table):
        raise InputMismatch(
            f"{path} describes {length} images but {table.origin} holds {len(table)}. "
            "If you select a subset, give both files unfiltered."
        )


def _check_some_images(source: StackSource) -> None:
    """Find constant or broken images early; reading all would take long, and each is checked when it is read."""
    num_checked = min(len(source), _NUM_CHECKED_WHEN_LAZY)
    for index in torch.linspace(0, len(source) - 1, num_checked).long().split(64):
        source.images(index)


def _pixel_size_notes(optics: Optics) -> tuple[str, ...]:
    lowest, highest = optics.pixel_size_angstrom.min().item(), optics.pixel_size_angstrom.max().item()
    if highest / lowest < 1.001:
        return ()
    return (
        f"Pixel sizes go from {lowest:.4g} to {highest:.4g} A. Each image's CTF uses its own, but structures are "
        "compared in pixels: rescale the images to one pixel size if the difference matters.",
    )
