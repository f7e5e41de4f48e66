"""The file of particles that an export fills in, and where in it the images of a run are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryohydra._typing import Int
from cryohydra.analysis.found_images import FoundImages
from cryohydra.data.cs_file import CsFile
from cryohydra.data.findings import ImageBox, ParticleFile
from cryohydra.data.from_stack import read_stack, read_stack_list
from cryohydra.data.new_star import new_star_file, star_of_cs
from cryohydra.data.star_file import StarFile
from cryohydra.data.table import locate_images
from cryohydra.errors import InputMismatch, UnreadableFile, UserError
from cryohydra.io.ctf_file import read_ctf_file
from cryohydra.io.mrc import MrcStack


@dataclass(frozen=True, eq=False)
class ExportSource:
    """A file of particles as it came, or a new one if there was none."""

    file: ParticleFile
    suffix: str
    box: ImageBox
    """Of all images of the file."""
    row_in_file: Int[np.ndarray, "n"]
    """For each row of the run's input; -1 where the file lacks it."""
    notes: tuple[str, ...]

    @property
    def num_input_images(self) -> int:
        """Rows of the run's input."""
        return len(self.row_in_file)


def open_export_source(
    found: FoundImages, original: Path | None, passthrough: Path | None, datadir: Path | None, format: str | None
) -> ExportSource:
    """Read the file of particles that a run was given, or the one that this was made of.

    Args:
        original: Of the same particles, in larger images or elsewhere; None takes the run's input.
        passthrough: Of cryoSPARC, with more columns.
        datadir: Folder of the images; None takes that of the run.
        format: "star" or "cs"; None takes that of the input.

    Raises:
        UserError: If a file cannot be read, or particles of the run are not in it.
    """
    given = Path(found.settings["particles"])
    if original is None and not given.exists():
        raise UnreadableFile(f"{given}, the input of the run, does not exist; name its new place with --particles.")
    # Where the original is given, the run's own input may be gone; then rows are taken to be the same.
    own = _read(given, found) if original is None or given.exists() else None
    file = own if original is None else _read(original, found)
    assert file is not None
    rows = np.arange(len(file)) if own is None or own is file else _rows_in(file, own)
    _check_rows(found, rows, file)
    notes: list[str] = []
    if passthrough is not None:
        if not isinstance(file, CsFile):
            raise UserError(f"{file.path} is not of cryoSPARC and has no passthrough file; leave --passthrough out.")
        file = file.joined(passthrough)
    if format == "star" and isinstance(file, CsFile):
        file, lost = star_of_cs(file)
        notes += lost
    elif format == "cs" and not isinstance(file, CsFile):
        raise UserError(
            f"{file.path} is not of cryoSPARC, which imports .star files itself; leave --format out, then use its job "
            "Import Particle Stack."
        )
    if found.row.size < len(rows):
        notes.append(f"The run used {found.row.size:,} of the {len(rows):,} images of its input; the others stay out.")
    notes += _notes(file, found)
    folder = datadir or found.settings.get("datadir")
    box = _box(file, found, None if folder is None else Path(folder))
    return ExportSource(file, ".cs" if isinstance(file, CsFile) else ".star", box, rows, tuple(notes))


def _read(path: Path, found: FoundImages) -> ParticleFile:
    """A file of particles; one made anew for bare stacks."""
    if path.suffix in _FILES:
        return _FILES[path.suffix].read(path)
    if path.suffix not in _STACKS:
        known = ", ".join((*_FILES, *_STACKS))
        raise UserError(f"{path} is of an unknown kind; wanted a file ending in {known}.")
    datadir, ctf = found.settings.get("datadir"), found.settings.get("ctf")
    if ctf is None:
        raise UserError(f"{path} does not tell the CTF and the run names no ctf file; wanted one of both.")
    references = _STACKS[path.suffix](path, None if datadir is None else Path(datadir)).references
    names = np.array([str(stack.path.absolute()) for stack in references.stacks])
    return new_star_file(path, names[references.stack], references.row, references.box_size, read_ctf_file(Path(ctf)))


_FILES: dict[str, type[ParticleFile]] = {".star": StarFile, ".cs": CsFile}
_STACKS = {".mrcs": read_stack, ".mrc": read_stack, ".txt": read_stack_list}


def _rows_in(file: ParticleFile, own: ParticleFile) -> Int[np.ndarray, "n"]:
    """Where each row of one file is in another: by what identifies particles, else by number; -1 where it is not.

    Raises:
        InputMismatch: If neither tells.
    """
    theirs, ours = (each.identity() for each in (file, own))
    if type(file) is type(own) and _are_distinct(theirs) and _are_distinct(ours):
        assert theirs is not None and ours is not None
        order = np.argsort(theirs)
        place = order[np.searchsorted(theirs, ours, sorter=order).clip(max=len(theirs) - 1)]
        return np.where(theirs[place] == ours, place, -1)
    if len(file) != len(own):
        raise InputMismatch(
            f"{file.path} holds {len(file)} particles but the run's {own.path} holds {len(own)}, and they do not tell "
            "which is which (by micrograph and coordinates in .star, by uid in .cs). Give the file of the same rows."
        )
    return np.arange(len(file))


def _are_distinct(names: np.ndarray | None) -> bool:
    return names is not None and len(np.unique(names)) == len(names)


def _check_rows(found: FoundImages, rows: Int[np.ndarray, "n"], file: ParticleFile) -> None:
    """See that every image of the run is in the file."""
    is_there = found.row < len(rows)
    is_there[is_there] = rows[found.row[is_there]] >= 0
    if not is_there.all():
        raise InputMismatch(
            f"{file.path} lacks {(~is_there).sum()} of the {is_there.size} images of the run, the first in row "
            f"{found.row[~is_there].min()} of its input; give the file that the particles came from."
        )


def _box(file: ParticleFile, found: FoundImages, datadir: Path | None) -> ImageBox:
    """From the file where it tells; else the box of the first image, and pixels as large as the run's are there."""
    size = file.box_size_px()
    if size is None:
        first = locate_images(file.path, [file.first_image()], datadir)[0]
        assert first is not None
        size = np.full(len(file), float(MrcStack(first).box_size))
    pixel_size = file.pixel_size_angstrom()
    if pixel_size is None:
        pixel_size = found.box_size * found.pixel_size_angstrom / size
    return ImageBox(size, pixel_size)


def _notes(file: ParticleFile, found: FoundImages) -> list[str]:
    """What the user should know of the files that are written."""
    notes = []
    if isinstance(file, CsFile) and file.names_images_beside():
        notes.append(
            f"Images are named from the folder of the .csg ('>'): move .cs and .csg beside {file.path} to import them."
        )
    if found.settings.get("ctf") is not None and Path(found.settings["particles"]).suffix in _FILES:
        notes.append(f"The CTF of {file.path} is kept; the run used that of {found.settings['ctf']}.")
    stale = file.stale_columns()
    if stale:
        notes.append(f"Kept as they came, though they speak of earlier poses: {', '.join(stale)}.")
    return notes
