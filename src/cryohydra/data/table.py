"""What a file of particles says of each image, whatever its format."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.errors import InputMismatch, UnreadableFile, UserError
from cryohydra.io.ctf_file import NUM_COLUMNS
from cryohydra.io.mrc import MrcStack
from cryohydra.physics.ctf import Optics


@dataclass(frozen=True, eq=False)
class ImageReferences:
    """Where images are: a file each, and a row in it."""

    stacks: tuple[MrcStack, ...]
    stack: Int[np.ndarray, "n"]
    """Position in `stacks`."""
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
    ctf: Float[np.ndarray, "n 9"] | None
    """Columns as in a CTF file; box and pixel size are those of the images as they are."""
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

    def __len__(self) -> int:
        return len(self.references)

    @property
    def box_size(self) -> int:
        """Pixels to a side of an image."""
        return self.references.box_size


def check_one_size(stacks: tuple[MrcStack, ...]) -> None:
    """See that all stacks hold images of one size.

    Raises:
        InputMismatch: If their sizes differ.
    """
    for stack in stacks:
        if stack.box_size != stacks[0].box_size:
            raise InputMismatch(
                f"{stack.path} holds images of {stack.box_size} px but {stacks[0].path} of {stacks[0].box_size} px; "
                "wanted one size. Bring them to one box with `drgnai downsample`."
            )


def refer_to_images(
    origin: Path, paths: np.ndarray, row: Int[np.ndarray, "n"], datadir: Path | None
) -> ImageReferences:
    """Find the files that metadata name and check that they hold the rows asked for.

    Args:
        origin: The file of metadata.
        paths: Of each image, as written there.
        row: From 0.

    Raises:
        UnreadableFile: If a file is not found, or has fewer images.
        InputMismatch: If the files hold images of different sizes.
    """
    references = find_images(origin, paths, row, datadir)
    check_one_size(references.stacks)
    return references


def find_images(origin: Path, paths: np.ndarray, row: Int[np.ndarray, "n"], datadir: Path | None) -> ImageReferences:
    """The same where images of different sizes are wanted too; as they are referred to, they have the smallest."""
    if not len(paths):
        raise UnreadableFile(f"{origin} describes no image; wanted at least one row.")
    names, stack = np.unique(paths, return_inverse=True)
    stacks = tuple(MrcStack(found) for found in locate_images(origin, [str(name) for name in names], datadir))
    num_images = np.array([opened.num_images for opened in stacks])[stack]
    wrong = np.flatnonzero((row < 0) | (row >= num_images))
    if len(wrong):
        first = wrong[0]
        raise UnreadableFile(
            f"{origin} refers to image {row[first] + 1} of {stacks[stack[first]].path}, which holds "
            f"{num_images[first]}; it may be truncated or another file. Copy it again or correct the row."
        )
    return ImageReferences(stacks, stack, row, min(opened.box_size for opened in stacks))


def locate_images(origin: Path, names: list[str], datadir: Path | None) -> list[Path]:
    """Where each named file is: under datadir by its last name, then by its path; beside the metadata; here.

    Raises:
        UnreadableFile: If one is not found.
    """
    # Two files of one last name would be taken for each other.
    is_basename_safe = len({Path(name).name for name in names}) == len(names)
    found = []
    for name in names:
        tried: list[Path] = []
        if datadir is not None:
            tried += [datadir / Path(name).name] if is_basename_safe else []
            tried.append(datadir / name)
        tried += [origin.parent / name, Path(name)]
        existing = next((path for path in tried if path.is_file()), None)
        if existing is None:
            places = ", ".join(dict.fromkeys(str(path) for path in tried))
            raise UnreadableFile(
                f"{origin} refers to images in {name}, which is not there (tried {places}). "
                "Set datadir to the folder that holds them."
            )
        found.append(existing)
    return found


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
    """CTF rows for images that were cropped in Fourier space to another box: pixel size times D0 / D, row by row."""
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
