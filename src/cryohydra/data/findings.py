"""What a run says of images, and a file of particles that can take it in."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.errors import UnreadableFile

# Of a rotation's entries, of the box, and of a probability: float32 and six decimals both keep more.
_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class ImageFindings:
    """What a run says of some images, one row each."""

    row: Int[np.ndarray, "m"]
    """Of the file of particles."""
    rotation: Float[np.ndarray, "m 3 3"]
    """Acts on lattice rows."""
    shift_fraction: Float[np.ndarray, "m 2"]
    """Where the particle is, (x, y), from the centre, as a fraction of the box."""
    class_index: Int[np.ndarray, "m"]
    """From 0."""
    class_probability: Float[np.ndarray, "m"]
    """Of that class."""
    half: Int[np.ndarray, "m"]
    """Which half of the data, 0 or 1."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: np.ndarray) -> "ImageFindings":
        return ImageFindings(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def differences(self, other: "ImageFindings") -> tuple[str, ...]:
        """What of the same images is not the same."""
        if len(self) != len(other):
            return (f"{len(self)} images instead of {len(other)}",)
        pairs = {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
            if field.name != "row"
        }
        return tuple(name for name, (a, b) in pairs.items() if not np.allclose(a, b, rtol=0, atol=_TOLERANCE))


@dataclass(frozen=True, eq=False)
class ImageBox:
    """How large images are, one row each."""

    size_px: Float[np.ndarray, "n"]
    pixel_size_angstrom: Float[np.ndarray, "n"]

    def __getitem__(self, rows: Int[np.ndarray, "m"]) -> "ImageBox":
        return replace(self, size_px=self.size_px[rows], pixel_size_angstrom=self.pixel_size_angstrom[rows])


class ParticleFile(ABC):
    """A file of particles with all that is in it."""

    path: Path
    """Where it was read, or the input it is made of."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path) -> "ParticleFile":
        """Read a file; its images are not looked for.

        Raises:
            UserError: If it cannot be read or has no images.
        """

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write it, and what its program wants beside it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def first_image(self) -> str:
        """The file of the first image, as it is named here."""

    @abstractmethod
    def box_size_px(self) -> Float[np.ndarray, "n"] | None:
        """Of each image, None if the file does not tell."""

    @abstractmethod
    def pixel_size_angstrom(self) -> Float[np.ndarray, "n"] | None:
        """Of each image, None if the file does not tell."""

    @abstractmethod
    def half(self) -> Int[np.ndarray, "n"] | None:
        """Which half each image belongs to, from 0; None if the file does not tell."""

    @abstractmethod
    def identity(self) -> np.ndarray | None:
        """What a particle keeps when its image is cropped or moved, as text; None if the file has nothing of it."""

    @abstractmethod
    def stale_columns(self) -> tuple[str, ...]:
        """Columns that speak of earlier poses, which a run says nothing new of."""

    @abstractmethod
    def having(self, findings: ImageFindings, box: ImageBox) -> "ParticleFile":
        """The images of `findings`, in its order, with every other column as it was; halves are kept if there are any.

        Args:
            box: Of all images of this file.
        """

    @abstractmethod
    def findings(self, box: ImageBox) -> ImageFindings:
        """What is written in it.

        Args:
            box: Of all images of this file.
        """

    @abstractmethod
    def is_same(self, other: "ParticleFile") -> bool:
        """Whether all columns, and all values as they are written, are the same."""


def write_checked(file: ParticleFile, path: Path, findings: ImageFindings, box: ImageBox) -> None:
    """Write a file, read it again and compare it with what was meant.

    Args:
        findings: What is written in the file.
        box: Of the images of the file.

    Raises:
        UnreadableFile: If it is not what was meant.
    """
    file.write(path)
    again = type(file).read(path)
    wrong = again.findings(box).differences(findings)
    if wrong or not again.is_same(file):
        raise UnreadableFile(
            f"{path} was written, but read again it differs in {', '.join(wrong) or 'columns of the input'}; wanted "
            "what was written. Look at the space on the disk; if there is enough, this is a fault of the program."
        )
