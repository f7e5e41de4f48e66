"""What a file of particles says of each image, whatever its format."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.errors import Complain, InputMismatch, UnreadableFile, UserError, stop
from cryohydra.io.ctf_file import NUM_COLUMNS
from cryohydra.io.mrc import MrcStack
from cryohydra.physics.ctf import Optics


@dataclass(frozen=True, eq=False)
class ImageReferences:
    """Where images are: a file each, and a row in it."""

    stacks: tuple[MrcStack, ...]
    stack: Int[np.ndarray, "n"]
    """Position in `stacks`; -1 of an image that is not there, which only readers that went on have."""
    row: Int[np.ndarray, "n"]
    """Image in the stack, from 0."""
    box_size: int
    """Pixels to a side of an image as it is read; larger ones in the files are cropped in Fourier space."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: Int[np.ndarray, "m"]) -> "ImageReferences":
        return replace(self, stack=self.stack[index], row=self.row[index])


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Images with their metadata, one row each; None is what the file does not say."""

    origin: Path
    references: ImageReferences
    ctf: Float[np.ndarray, "m 9"] | None
    """Columns as in a CTF file; box and pixel size are those of the images as they are. No row of a file that tells
    the CTF but not so that it can be used, which only readers that went on have."""
    scale: Float[np.ndarray, "n"]
    """Factor on the CTF."""
    dose: Float[np.ndarray, "n"] | None
    """Electrons per square angstrom, of tilt series."""
    group: Int[np.ndarray, "n"]
    """Optics group, from 0."""
    rotation: Float[np.ndarray, "n 3 3"] | None
    """Acts on lattice rows."""
    shift_px: Float[np.ndarray, "n 2"] | None
    """Where the particle is, (x, y), from the centre."""
    particle: np.ndarray | None
    """Names that are equal for the tilts of a particle."""
    is_white: np.ndarray | None
    """Whether the file states that particles are white on dark."""
    habit_is_white: bool
    """What programs that write such files usually do."""
    notes: tuple[str, ...]
    half: Int[np.ndarray, "n"] | None = None
    """Half, 0 or 1, into which an earlier refinement put each image."""
    micrograph: Int[np.ndarray, "n"] | None = None
    """Number of the micrograph of each image, from 0."""

    def __len__(self) -> int:
        return len(self.references)

    @property
    def box_size(self) -> int:
        """Pixels to a side of an image."""
        return self.references.box_size


def open_stacks(
    paths: list[Path], complain: Complain = stop, *, wants_one_size: bool = True
) -> tuple[MrcStack | None, ...]:
    """Open stacks; None is one that cannot be used.

    Args:
        wants_one_size: Whether images of another size than the first stack's cannot be used.

    Raises:
        UserError: Of those that cannot be used, unless `complain` goes on.
    """
    opened: list[MrcStack | None] = []
    problems: list[UserError] = []
    first: MrcStack | None = None
    for path in paths:
        try:
            stack = MrcStack(path)
            first = first or stack
            if wants_one_size and stack.box_size != first.box_size:
                raise InputMismatch(
                    f"{stack.path} holds images of {stack.box_size} px but {first.path} of {first.box_size} px; "
                    "wanted one size. Bring them to one box with `drgnai downsample`."
                )
            opened.append(stack)
        except UserError as problem:
            problems.append(problem)
            opened.append(None)
    if problems:
        complain(_for_all(problems))
    return tuple(opened)


def refer_to_images(
    origin: Path,
    paths: np.ndarray,
    row: Int[np.ndarray, "n"],
    datadir: Path | None,
    *,
    stated_box_size: int = 0,
    wants_one_size: bool = True,
    complain: Complain = stop,
) -> ImageReferences:
    """Find the files that metadata name and check that they hold the rows asked for.

    Args:
        origin: The file of metadata.
        paths: Of each image, as written there.
        row: From 0.
        stated_box_size: What the metadata say, for want of images.
        wants_one_size: As `open_stacks` takes it; images of several sizes are referred to in the smallest.

    Raises:
        UserError: If a file is not found, cannot be used or has fewer images, unless `complain` goes on.
    """
    if not len(paths):
        raise UnreadableFile(f"{origin} describes no image; wanted at least one row.")
    names, stack = np.unique(paths, return_inverse=True)
    located = locate_images(origin, [str(name) for name in names], datadir, complain)
    found = [number for number, path in enumerate(located) if path is not None]
    opened = open_stacks([path for path in located if path is not None], complain, wants_one_size=wants_one_size)
    stacks = [one for one in opened if one is not None]
    position = np.full(len(names), -1)
    position[[number for number, one in zip(found, opened, strict=True) if one is not None]] = np.arange(len(stacks))
    stack = position[stack]
    # What position -1 picks is of no stack.
    num_images = np.array([*(one.num_images for one in stacks), np.iinfo(np.int64).max])[stack]
    wrong = np.flatnonzero((row < 0) | (row >= num_images))
    if len(wrong):
        first = wrong[0]
        more = f" ({len(wrong)} such rows)" if len(wrong) > 1 else ""
        complain(
            UnreadableFile(
                f"{origin} refers to image {row[first] + 1} of {paths[first]}{more}, which holds "
                f"{num_images[first] if stack[first] >= 0 else 'none of that number'}; it may be truncated or another "
                "file. Copy it again or correct the row."
            )
        )
        stack[wrong] = -1
    box_size = min((one.box_size for one in stacks), default=stated_box_size)
    return ImageReferences(tuple(stacks), stack, row, box_size)


def locate_images(origin: Path, names: list[str], datadir: Path | None, complain: Complain = stop) -> list[Path | None]:
    """Where each named file is: under datadir by its last name, then by its path; beside the metadata; here.

    Returns:
        None for one that is not found, if `complain` goes on.

    Raises:
        UnreadableFile: If one is not found, unless `complain` goes on.
    """
    # Two files of one last name would be taken for each other.
    is_basename_safe = len({Path(name).name for name in names}) == len(names)
    found: list[Path | None] = []
    problems: list[UserError] = []
    for name in names:
        tried: list[Path] = []
        if datadir is not None:
            tried += [datadir / Path(name).name] if is_basename_safe else []
            tried.append(datadir / name)
        tried += [origin.parent / name, Path(name)]
        existing = next((path for path in tried if path.is_file()), None)
        if existing is None:
            places = ", ".join(dict.fromkeys(str(path) for path in tried))
            problems.append(
                UnreadableFile(
                    f"{origin} refers to images in {name}, which is not there (tried {places}). "
                    "Set datadir to the folder that holds them."
                )
            )
        found.append(existing)
    if problems:
        complain(_for_all(problems))
    return found


def _for_all(problems: list[UserError]) -> UserError:
    """One sentence for many of a kind: the first one's, and how many there are."""
    first, others = problems[0], len(problems) - 1
    if not others:
        return first
    came, _, advice = str(first).rpartition(". ")
    return type(first)(f"{came}; so it is with {others} more file{'s' if others > 1 else ''}. {advice}")


def fourier_cropped(table: ImageTable, box_size: int | None) -> ImageTable:
    """The table with its images cropped in Fourier space as they are read; as it is if no size is given.

    Raises:
        UserError: If the size is odd or larger than the images.
    """
    if box_size is None:
        return table
    check_crop(table.origin, table.box_size, box_size)
    return replace(
        table,
        references=replace(table.references, box_size=box_size),
        ctf=None if table.ctf is None else rescale_to_box(table.ctf, box_size),
        shift_px=None if table.shift_px is None else table.shift_px * (box_size / table.box_size),
    )


def check_crop(origin: Path, box_size: int, smaller: int) -> None:
    """See that images can be cropped to a size.

    Raises:
        UserError: If it is odd or larger than they are.
    """
    if smaller % 2 or not 0 < smaller <= box_size:
        raise UserError(
            f"{origin} has images of {box_size} px, which cannot be cropped in Fourier space to {smaller} px; "
            f"wanted an even number up to {box_size}."
        )


def rescale_to_box(ctf: Float[np.ndarray, "n 9"], box_size: int) -> Float[np.ndarray, "n 9"]:
    """CTF rows for images that were cropped in Fourier space to another box: pixel size times D0 / D, row by row.

    Args:
        box_size: 0 if it is not known; then they stay as they are.
    """
    if not box_size:
        return ctf
    pixel_size = ctf[:, 1] * ctf[:, 0] / box_size
    rescaled = ctf.copy()
    rescaled[:, 0], rescaled[:, 1] = box_size, pixel_size
    return rescaled


def optics_of_tilts(
    ctf: Float[np.ndarray, "n 9"],
    scale: Float[np.ndarray, "n"],
    dose: Float[np.ndarray, "n"],
    group: Int[np.ndarray, "n"],
    rows: Int[np.ndarray, "b t"],
) -> Optics:
    """Optics in the units used inside, of the rows that are the tilts of each particle."""
    assert ctf.shape[1] == NUM_COLUMNS

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values[rows]).float()

    return Optics(
        pixel_size_angstrom=column(ctf[:, 1]),
        defocus_u_angstrom=column(ctf[:, 2]),
        defocus_v_angstrom=column(ctf[:, 3]),
        defocus_angle=column(np.deg2rad(ctf[:, 4])),
        voltage_kv=column(ctf[:, 5]),
        spherical_aberration_angstrom=column(ctf[:, 6] * 1e7),
        amplitude_contrast=column(ctf[:, 7]),
        phase_shift=column(np.deg2rad(ctf[:, 8])),
        scale=column(scale),
        dose_electrons_per_square_angstrom=column(dose),
        group=torch.from_numpy(group[rows]).long(),
    )
