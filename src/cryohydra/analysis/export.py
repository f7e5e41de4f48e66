"""Particles and maps of a run for the programs that its input came from."""

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryohydra._typing import Int
from cryohydra.analysis.export_source import ExportSource, open_export_source
from cryohydra.analysis.found_images import FoundImages
from cryohydra.data.findings import ImageFindings, write_checked
from cryohydra.data.selection import read_selection
from cryohydra.errors import UnreadableFile, UserError
from cryohydra.io.mrc import read_map, write_map


@dataclass(frozen=True)
class ExportOptions:
    """What to export; the flags of `drgnai export`."""

    epoch: int = -1
    """-1 takes the last one saved."""
    format: str | None = None
    """"star" or "cs"; None is that of the input."""
    classes: tuple[int, ...] = ()
    """From 0; none means all."""
    min_probability: float = 0.0
    """Least probability of a particle's class."""
    best_poses: float = 1.0
    """Part of the particles of each class to export: those that are explained best, in the poses found."""
    ind: Path | None = None
    """Rows of the run's input to export; None for all."""
    is_soft: bool = False
    """Whether each class gets all particles, with their poses in it, weighted by its probability."""
    particles: Path | None = None
    """The original particles, if the run saw a smaller copy of them, or the file has moved."""
    passthrough: Path | None = None
    """cryoSPARC's passthrough file of the same particles."""
    datadir: Path | None = None
    """Folder of the images, looked for only where no file tells their box."""
    output: Path | None = None
    """Folder to make; None for export_E in the results of the run."""


@dataclass(frozen=True)
class ExportedFile:
    """A file of particles that was written and checked."""

    path: Path
    num_images: int


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    folder: Path
    files: tuple[ExportedFile, ...]
    maps: tuple[Path, ...]


def export_run(
    run_path: Path,
    options: ExportOptions | None = None,
    says: Callable[[str], None] = lambda sentence: None,
    begins: Callable[[int], None] = lambda num_images: None,
    advanced: Callable[[int], None] = lambda num_images: None,
) -> Exported:
    """Write particles, one file of all and one for each class, and the maps of the classes.

    Every file is read again and compared before the folder gets its name: it is whole or not there.

    Args:
        says: Is told what deserves attention.
        begins: Is told how many rows will be written.
        advanced: Is told as they are.

    Raises:
        UserError: If the run or its input cannot be read, nothing is selected, or the folder exists.
    """
    options = options or ExportOptions()
    found = FoundImages.open(run_path, options.epoch)
    classes = _classes(options, found)
    folder = options.output or found.folder.results / f"export_{found.epoch}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already and nothing is overwritten; name another folder with -o, or move it.")
    source = open_export_source(found, options.particles, options.passthrough, options.datadir, options.format)
    for note in source.notes:
        says(note)
    parts = _parts(found, options, classes, source)
    begins(sum(len(findings) for findings in parts.values()))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{secrets.token_hex(4)}.{folder.name}")
    temporary.mkdir()
    try:
        files = []
        for name, findings in parts.items():
            _write(source, findings, temporary / f"{name}{source.suffix}")
            files.append(ExportedFile(folder / f"{name}{source.suffix}", len(findings)))
            advanced(len(findings))
        shown = [k for k in classes if f"class_{k}" in parts and found.folder.map_path(found.epoch, k).exists()]
        maps = [_write_map(found, k, temporary) for k in shown]
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for k in classes:
        if f"class_{k}" not in parts:
            says(f"Class {k} has no particle that was asked for; it got no file and no map.")
    return Exported(folder, tuple(files), tuple(folder / name for name in maps))


def _parts(
    found: FoundImages, options: ExportOptions, classes: tuple[int, ...], source: ExportSource
) -> dict[str, ImageFindings]:
    """What goes in which file: all that is selected, and each class of it."""
    is_asked = _asked_rows(options, found, source)
    is_asked &= np.isin(np.arange(len(is_asked)), found.rows_of_best_explained(options.best_poses))

    def selected(findings: ImageFindings) -> ImageFindings:
        return findings[is_asked[findings.row] & (findings.class_probability >= options.min_probability)]

    best = selected(found.in_best_class())
    parts = {"particles": best[np.isin(best.class_index, classes)]}
    for k in classes:
        parts[f"class_{k}"] = selected(found.in_class(k)) if options.is_soft else best[best.class_index == k]
    parts = {name: findings for name, findings in parts.items() if len(findings)}
    if not parts:
        raise UserError(
            f"No particle of {found.folder.path} is in the classes asked for with a probability of "
            f"{options.min_probability:g} or more{'' if options.ind is None else f' and selected by {options.ind}'}; "
            "lower --min-probability, or ask for other classes."
        )
    return parts


def _asked_rows(options: ExportOptions, found: FoundImages, source: ExportSource) -> np.ndarray:
    """Whether each row of the run's input is asked for."""
    asked: Int[np.ndarray, "m"] = np.arange(source.num_input_images)
    if options.ind is not None:
        asked = read_selection(options.ind, source.num_input_images, Path(found.settings["particles"]))
    return np.isin(np.arange(source.num_input_images), asked)


def _write(source: ExportSource, findings: ImageFindings, path: Path) -> None:
    """One file, checked."""
    rows = source.row_in_file[findings.row]
    order = np.argsort(rows, kind="stable")
    findings, rows = findings[order], rows[order]
    kept = source.file.half()
    halves = findings.half if kept is None else kept[rows]
    meant = ImageFindings(
        row=rows,
        rotation=findings.rotation,
        shift_fraction=findings.shift_fraction,
        class_index=findings.class_index,
        class_probability=findings.class_probability,
        half=halves,
    )
    write_checked(source.file.having(meant, source.box), path, meant, source.box[rows])


def _write_map(found: FoundImages, class_index: int, folder: Path) -> str:
    """The map of a class, with the voxel size of what was trained on; its name."""
    name = f"class_{class_index}.mrc"
    density, _ = read_map(found.folder.map_path(found.epoch, class_index))
    write_map(folder / name, density, found.pixel_size_angstrom)
    again, voxel_size = read_map(folder / name)
    if not np.array_equal(again, density) or not np.isclose(voxel_size, found.pixel_size_angstrom, rtol=1e-5):
        raise UnreadableFile(f"{folder / name} was written but reads differently; look at the space on the disk.")
    return name


def _classes(options: ExportOptions, found: FoundImages) -> tuple[int, ...]:
    """The classes asked for, in order."""
    if not 0 <= options.min_probability <= 1:
        raise UserError(f"--min-probability is {options.min_probability:g}; wanted a probability from 0 to 1.")
    if not 0 < options.best_poses <= 1:
        raise UserError(f"--best-poses is {options.best_poses:g}; wanted a part of the particles, up to 1.")
    wrong = [k for k in options.classes if not 0 <= k < found.num_classes]
    if wrong:
        raise UserError(
            f"Class {wrong[0]} is asked for but the run has {found.num_classes}, numbered from 0; choose among these."
        )
    return tuple(sorted(set(options.classes))) or tuple(range(found.num_classes))
