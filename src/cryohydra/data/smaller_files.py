"""Files of particles, written again for images that were cropped in Fourier space."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.data.from_cs import cs_image_names
from cryohydra.data.from_stack import every_image, listed_stacks
from cryohydra.data.from_star import image_names, particle_block, star_columns
from cryohydra.data.passthrough import with_passthrough
from cryohydra.data.table import ImageReferences, refer_to_images
from cryohydra.errors import InputMismatch, UserError
from cryohydra.io.atomic import write_atomically
from cryohydra.io.cs import read_cs, write_cs
from cryohydra.io.mrc import MrcStack
from cryohydra.io.star import StarTable, read_star, star_version, write_star

_LENGTHS_PX = ("rlnOriginX", "rlnOriginY", "rlnOriginZ", "rlnOriginXPrior", "rlnOriginYPrior", "rlnOriginZPrior")
_PIXEL_SIZES = ("rlnImagePixelSize", "rlnPixelSize")


@dataclass(frozen=True, eq=False)
class ImageCopies:
    """Where the smaller images are, for each row of the file that described the larger ones."""

    stacks: tuple[Path, ...]
    names: tuple[str, ...]
    """Of the stacks, as metadata shall name them."""
    stack: Int[np.ndarray, "n"]
    row: Int[np.ndarray, "n"]
    """Image in the stack, from 0."""
    box_size: int


class CroppableFile(ABC):
    """A file of particles whose images can be exchanged for smaller ones.

    Attributes:
        references: Of the images, one for each row; the images of a file may have a size of their own.
    """

    references: ImageReferences
    describes_optics = True

    @property
    def old_box(self) -> Int[np.ndarray, "n"]:
        """Pixels to a side of each image."""
        return np.array([stack.box_size for stack in self.references.stacks])[self.references.stack]

    def header_pixel_size(self, stack: MrcStack, box_size: int) -> float:
        """What the header of a stack of smaller images shall say, in angstrom; 1 where it is not known."""
        known = stack.pixel_size_angstrom
        # Beside metadata, many programs write 1 for "not known".
        if known is None or (known == 1 and self.describes_optics):
            return 1.0
        return known * stack.box_size / box_size

    @abstractmethod
    def write(self, path: Path, copies: ImageCopies) -> None:
        """Write the file for the smaller images: same rows and order, nothing lost."""


class CroppableStar(CroppableFile):
    """A STAR file, RELION 3.0 to 5.

    Raises:
        UserError: If it or its images cannot be read.
    """

    def __init__(self, path: Path, datadir: Path | None):
        self._path = path
        self._blocks = read_star(path)
        columns = star_columns(path, self._blocks)
        self._particles, self._optics_row, self._optics = columns.particles, columns.optics_row, columns.optics
        self.references = refer_to_images(path, *image_names(path, self._particles), datadir, wants_one_size=False)

    def write(self, path: Path, copies: ImageCopies) -> None:
        """Write pixel sizes and image sizes of each optics group, and shifts that are in pixels; angstrom stay.

        Raises:
            InputMismatch: If images of one optics group have different sizes.
        """
        old_box = self.old_box
        names = [f"{row + 1:06d}@{copies.names[stack]}" for stack, row in zip(copies.stack, copies.row, strict=True)]
        described = old_box.astype(float)
        smaller = {}
        if self._optics is not None and self._optics_row is not None:
            group_box = self._box_of_groups(old_box, self._optics, self._optics_row)
            described = group_box[self._optics_row]
            smaller["optics"] = self._smaller(self._optics, group_box, group_box, copies.box_size)
        table = self._smaller(self._particles, old_box, described, copies.box_size)
        # All blocks, in their order: some hold what only other programs need.
        name = particle_block(self._path, self._blocks)
        particles = table.having({"rlnImageName": np.array(names)})
        write_star(path, {**self._blocks, **smaller, name: particles}, star_version(self._path))

    def _box_of_groups(
        self, old_box: Int[np.ndarray, "n"], optics: StarTable, optics_row: Int[np.ndarray, "n"]
    ) -> Float[np.ndarray, "g"]:
        """The box to which each group's pixel size belongs: the one it names, or that of its images."""
        group_box = np.full(len(optics), float(old_box[0]))
        for row in np.unique(optics_row):
            boxes = np.unique(old_box[optics_row == row])
            if len(boxes) > 1:
                raise InputMismatch(
                    f"Images of optics group {optics.column('rlnOpticsGroup')[row]} of {self._path} have boxes of "
                    f"{boxes[0]} and {boxes[1]} px; wanted one size in a group. Give them groups of their own."
                )
            group_box[row] = boxes[0]
        return optics.floats("rlnImageSize") if optics.has("rlnImageSize") else group_box

    def _smaller(
        self, table: StarTable, old_box: np.ndarray, described_box: Float[np.ndarray, "n"], box_size: int
    ) -> StarTable:
        """A table with what is measured in pixels of the images, or in their size, brought up to date.

        Args:
            old_box: Of the images.
            described_box: The box to which pixel sizes belong, where the table does not say.
        """
        described = table.floats("rlnImageSize") if table.has("rlnImageSize") else described_box
        growth = described / box_size
        factors = dict.fromkeys(_LENGTHS_PX, box_size / old_box) | dict.fromkeys(_PIXEL_SIZES, growth)
        tables = (self._particles, *(() if self._optics is None else (self._optics,)))
        if any(other.has("rlnMagnification") for other in tables):
            factors["rlnMagnification"] = 1 / growth
        else:
            factors["rlnDetectorPixelSize"] = growth
        columns = {
            name: np.char.mod("%.9g", table.floats(name) * factors[name]) if name in factors else column
            for name, column in table.columns.items()
        }
        if "rlnImageSize" in columns:
            columns["rlnImageSize"] = np.full(len(table), str(box_size))
        return table.having(columns)


class CroppableCs(CroppableFile):
    """A .cs file of cryoSPARC.

    Raises:
        UserError: If it or its images cannot be read.
    """

    def __init__(self, path: Path, datadir: Path | None):
        # The smaller file has no passthrough file beside it.
        self._records, _ = with_passthrough(path, read_cs(path))
        self.references = refer_to_images(path, *cs_image_names(path, self._records), datadir, wants_one_size=False)

    def write(self, path: Path, copies: ImageCopies) -> None:
        """Write names, shape and pixel size of the images; alignments stay in pixels of their own `psize_A`."""
        old = self._records
        # A path in the project, or beside the file, begins with ">".
        mark = b">" if old["blob/path"][0].astype(bytes).startswith(b">") else b""
        paths = np.array([mark + name.encode() for name in copies.names])[copies.stack]
        formats = [(name, paths.dtype if name == "blob/path" else old.dtype[name]) for name in old.dtype.names or ()]
        new = np.empty(len(old), dtype=formats)
        for name, _ in formats:
            new[name] = paths if name == "blob/path" else old[name]
        new["blob/idx"] = copies.row
        described = self.old_box.astype(float)
        if "blob/shape" in dict(formats):
            described = old["blob/shape"][:, 0].astype(float)
            new["blob/shape"] = copies.box_size
        if "blob/psize_A" in dict(formats):
            new["blob/psize_A"] = old["blob/psize_A"] * (described / copies.box_size)
        for name, _ in formats:
            group, _, what = name.partition("/")
            if group.startswith("alignments") and what == "shift" and f"{group}/psize_A" not in dict(formats):
                new[name] = old[name] * (copies.box_size / self.old_box)[:, None]
        write_cs(path, new)


class StackList(CroppableFile):
    """A .txt that lists stacks.

    Raises:
        UserError: If it or its images cannot be read.
    """

    describes_optics = False

    def __init__(self, path: Path, datadir: Path | None):
        self.references = every_image(path, listed_stacks(path, datadir), wants_one_size=False)

    def write(self, path: Path, copies: ImageCopies) -> None:
        """Write the list of the smaller stacks."""
        with write_atomically(path) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in copies.names))


class SingleStack(CroppableFile):
    """One .mrcs or .mrc stack.

    Raises:
        UserError: If it cannot be read.
    """

    describes_optics = False

    def __init__(self, path: Path, datadir: Path | None):
        self.references = every_image(path, [path])

    def write(self, path: Path, copies: ImageCopies) -> None:
        """Join the smaller stacks into one, and remove them."""
        shape = (len(copies.row), copies.box_size, copies.box_size)
        with write_atomically(path) as temporary:
            with mrcfile.new_mmap(temporary, shape, mrc_mode=2) as file:
                begin = 0
                for part in map(MrcStack, copies.stacks):
                    file.data[begin : begin + len(part)] = part.read(np.arange(len(part)))
                    begin += len(part)
                file.set_image_stack()
                file.voxel_size = self.header_pixel_size(self.references.stacks[0], copies.box_size)
                file.update_header_stats()
        for stack in copies.stacks:
            stack.unlink()


KINDS: dict[str, type[CroppableStar | CroppableCs | StackList | SingleStack]] = {
    ".star": CroppableStar,
    ".cs": CroppableCs,
    ".txt": StackList,
    ".mrcs": SingleStack,
    ".mrc": SingleStack,
}
"""What reads and writes each kind of file."""


def read_particle_file(path: Path, datadir: Path | None) -> CroppableFile:
    """The particles of a file of any kind.

    Raises:
        UserError: If the file or its images cannot be read.
    """
    if path.suffix not in KINDS:
        raise UserError(f"{path} is of an unknown kind; wanted a file ending in {', '.join(KINDS)}.")
    return KINDS[path.suffix](path, datadir)
