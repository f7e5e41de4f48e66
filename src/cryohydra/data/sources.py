"""Particle sources: images in files, images in memory, and a selection of either."""

import numpy as np
import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.source import ParticleSource
from cryohydra.data.table import ImageReferences
from cryohydra.errors import UnreadableFile
from cryohydra.fourier.resampling import crop_images
from cryohydra.physics.ctf import Optics

_CHUNK = 128


class StackSource:
    """Particles whose images are in MRC stacks.

    They are read from disk each time, unless `load` has brought all of them into memory.

    Args:
        references: Of the images.
        rows: The images that are each particle's tilts.
        polarity: Factor on each image, 1 or -1, that makes particles dark on white.
    """

    def __init__(
        self,
        references: ImageReferences,
        rows: Int[Tensor, "n t"],
        optics: Optics,
        polarity: Float[Tensor, "m"],
    ):
        self.box_size = references.box_size
        self.pixel_size_angstrom = typical_pixel_size(optics)
        self.num_tilts = rows.shape[1]
        self._references, self._rows, self._optics, self._polarity = references, rows, optics, polarity
        self._in_memory: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def images(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        """Images with dark particles on white.

        Raises:
            UnreadableFile: If an image is constant or has values that are not finite.
        """
        return self._read(index) if self._in_memory is None else self._in_memory[index]

    def optics(self, index: Int[Tensor, "b"]) -> Optics:
        """Optics of the images."""
        return self._optics[index]

    def load(self) -> None:
        """Bring all images into memory.

        Raises:
            UnreadableFile: If an image is constant or has values that are not finite.
        """
        images = torch.empty(len(self), self.num_tilts, self.box_size, self.box_size)
        for index in torch.arange(len(self)).split(_CHUNK):
            images[index] = self._read(index)
        self._in_memory = images

    def _read(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        rows = self._rows[index].flatten()
        images = read_images(self._references, rows.numpy()) * self._polarity[rows, None, None]
        return images.unflatten(0, (len(index), self.num_tilts))


class ArraySource:
    """Particles whose images are in memory, such as simulated ones; dark on white already."""

    def __init__(self, images: Float[Tensor, "n t d d"], optics: Optics, pixel_size_angstrom: float):
        assert images.shape[:2] == optics.pixel_size_angstrom.shape
        self.box_size = images.shape[-1]
        self.pixel_size_angstrom = pixel_size_angstrom
        self.num_tilts = images.shape[1]
        self._images, self._optics = images, optics

    def __len__(self) -> int:
        return len(self._images)

    def images(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        """Images as they were given."""
        return self._images[index]

    def optics(self, index: Int[Tensor, "b"]) -> Optics:
        """Optics of the images."""
        return self._optics[index]


class Subset:
    """Some particles of a source, in an order of their own."""

    def __init__(self, source: ParticleSource, index: Int[Tensor, "n"]):
        self.box_size = source.box_size
        self.pixel_size_angstrom = source.pixel_size_angstrom
        self.num_tilts = source.num_tilts
        self._source, self._index = source, index

    def __len__(self) -> int:
        return len(self._index)

    def images(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        """Images of the selected particles."""
        return self._source.images(self._index[index])

    def optics(self, index: Int[Tensor, "b"]) -> Optics:
        """Optics of the selected particles."""
        return self._source.optics(self._index[index])


def typical_pixel_size(optics: Optics) -> float:
    """The pixel size of most images, in angstrom, in which maps are written."""
    # In float32, 13.1 has digits that nobody wrote.
    return round(float(optics.pixel_size_angstrom.median()), 6)


def read_images(references: ImageReferences, rows: Int[np.ndarray, "b"]) -> Float[Tensor, "b d d"]:
    """Images as they are in the files, or cropped, each file read in order.

    Raises:
        UnreadableFile: If an image is constant or has values that are not finite.
    """
    images = read_any_images(references, rows)
    _refuse_empty(images, references, rows)
    return images


def read_any_images(references: ImageReferences, rows: Int[np.ndarray, "b"]) -> Float[Tensor, "b d d"]:
    """The same, whatever is in them."""
    images = torch.empty(len(rows), references.box_size, references.box_size)
    for stack in np.unique(references.stack[rows]):
        here = np.flatnonzero(references.stack[rows] == stack)
        here = here[np.argsort(references.row[rows[here]], kind="stable")]
        found = torch.from_numpy(references.stacks[stack].read(references.row[rows[here]]))
        images[torch.from_numpy(here)] = crop_images(found, references.box_size)
    return images


def _refuse_empty(images: Float[Tensor, "b d d"], references: ImageReferences, rows: Int[np.ndarray, "b"]) -> None:
    """Refuse images from which nothing can be learnt, and which spoil all others."""
    lowest, highest = images.amin((1, 2)), images.amax((1, 2))
    for is_bad, what in (
        (~torch.isfinite(highest - lowest), "have values that are not finite"),
        (lowest == highest, "are constant"),
    ):
        bad = rows[is_bad.numpy()]
        if len(bad):
            path = references.stacks[references.stack[bad[0]]].path
            first = ", ".join(str(row) for row in sorted(bad)[:5])
            raise UnreadableFile(
                f"Images {what}: rows {first}{', ...' if len(bad) > 5 else ''} of the input, counted from 0; "
                f"the first is image {references.row[bad[0]] + 1} of {path}. Leave them out with `ind` or remove them."
            )
