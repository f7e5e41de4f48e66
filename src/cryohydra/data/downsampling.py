"""A smaller copy of a set of particles: images cropped in Fourier space, metadata that fit them."""

import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Int
from cryohydra.data.smaller_files import ImageCopies, read_particle_file
from cryohydra.data.sources import read_any_images
from cryohydra.data.table import ImageReferences, check_crop
from cryohydra.errors import UserError
from cryohydra.io.atomic import write_atomically
from cryohydra.io.mrc import write_stack

_STACK_BYTES = 2**26
"""Of one stack of smaller images; each thread holds one in memory."""
_BATCH = 32


@dataclass(frozen=True)
class Downsampled:
    """What came of a downsampling."""

    path: Path
    """The file that describes the smaller images."""
    num_images: int
    """Written, those that several rows share counted once."""
    num_kept: int
    """Of them found as an earlier attempt left them."""
    broken: tuple[str, ...]
    """Images of this attempt that had values that are not finite; they are blank now, which training refuses."""


class Downsampling:
    """Crops the images of a file in Fourier space to `box_size`, into a folder of its own.

    Images go into stacks that are written whole or not at all; those that are there when it starts are kept, so a
    downsampling that was stopped goes on.

    Args:
        folder: New, empty, or that of the same downsampling.
        datadir: Folder of the images that a .star or .cs names. If `folder` lies in it, names are relative to it,
            else to `folder`.

    Raises:
        UserError: If the particles cannot be read or cropped to that size, or the folder holds other things.
    """

    def __init__(self, particles: Path, folder: Path, box_size: int, datadir: Path | None = None):
        self._file = read_particle_file(particles, datadir)
        for stack in self._file.references.stacks:
            check_crop(stack.path, stack.box_size, box_size)
        if all(stack.box_size == box_size for stack in self._file.references.stacks):
            raise UserError(f"The images of {particles} have {box_size} px already; wanted a smaller size.")
        self.path = folder / particles.name
        self._folder, self._box_size = folder, box_size
        self._images, self._copy_of_row = _distinct(replace(self._file.references, box_size=box_size))
        self.num_images = len(self._images)
        self._stack_size = max(1, _STACK_BYTES // (4 * box_size**2))
        num_stacks = -(-self.num_images // self._stack_size)
        self._stacks = tuple(folder / f"{particles.stem}.{number:04d}.mrcs" for number in range(num_stacks))
        self._prefix = _prefix(folder, datadir)
        self._claim({"particles": str(particles.absolute()), "box_size": box_size, "images": _digest(self._images)})

    def run(self, num_threads: int, advanced: Callable[[int], None]) -> Downsampled:
        """Write what is missing.

        Args:
            advanced: Told how many images have been dealt with since it was last told.
        """
        advanced = _in_turn(advanced)
        is_there = [stack.is_file() or self.path.is_file() for stack in self._stacks]
        parts = np.split(np.arange(self.num_images), np.arange(self._stack_size, self.num_images, self._stack_size))
        num_kept = sum(len(part) for part, there in zip(parts, is_there, strict=True) if there)
        advanced(num_kept)
        broken: list[str] = []
        inner_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        pool = ThreadPoolExecutor(num_threads)
        try:
            missing = [number for number, there in enumerate(is_there) if not there]
            for task in as_completed([pool.submit(self._write_stack, n, parts[n], advanced) for n in missing]):
                broken += task.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(inner_threads)
        if not self.path.is_file():
            self._file.write(self.path, self._copies())
        return Downsampled(self.path, self.num_images, num_kept, tuple(sorted(broken)))

    def _write_stack(self, number: int, rows: Int[np.ndarray, "m"], advanced: Callable[[int], None]) -> list[str]:
        """Write one stack, and name the images in it that are not finite."""
        images = np.empty((len(rows), self._box_size, self._box_size), dtype=np.float32)
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            images[begin : begin + len(some)] = read_any_images(self._images, some).numpy()
            advanced(len(some))
        broken = np.flatnonzero(~np.isfinite(images[:, 0, 0]))
        images[broken] = 0
        first = self._images.stacks[self._images.stack[rows[0]]]
        write_stack(self._stacks[number], images, self._file.header_pixel_size(first, self._box_size))
        return [_name(self._images, int(rows[bad])) for bad in broken]

    def _copies(self) -> ImageCopies:
        return ImageCopies(
            stacks=self._stacks,
            names=tuple(self._prefix + stack.name for stack in self._stacks),
            stack=self._copy_of_row // self._stack_size,
            row=self._copy_of_row % self._stack_size,
            box_size=self._box_size,
        )

    def _claim(self, plan: dict[str, str | int]) -> None:
        """Take the folder for this downsampling, or see that it is its own."""
        claim = self._folder / "downsample.json"
        if not claim.is_file():
            if self._folder.is_dir() and any(self._folder.iterdir()):
                raise UserError(
                    f"{self._folder} holds other files, which are left alone; give a new or an empty folder."
                )
            self._folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(claim) as temporary:
                temporary.write_text(json.dumps(plan, indent=1) + "\n")
        elif json.loads(claim.read_text()) != plan:
            raise UserError(
                f"{self._folder} holds a downsampling of other images or to another size ({claim} tells which); "
                "give a new folder."
            )


def _in_turn(advanced: Callable[[int], None]) -> Callable[[int], None]:
    """The same for several threads."""
    lock = threading.Lock()

    def tell(images: int) -> None:
        with lock:
            advanced(images)

    return tell


def _distinct(references: ImageReferences) -> tuple[ImageReferences, Int[np.ndarray, "n"]]:
    """Each image once, in the order of first mention, and which of them each row means."""
    keys = np.stack([references.stack, references.row], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return references[first[order]], rank[inverse.reshape(-1)]


def _digest(images: ImageReferences) -> str:
    """A number that changes with the images."""
    digest = hashlib.sha256()
    for stack in images.stacks:
        held = stack.path.stat()
        digest.update(f"{stack.path.absolute()} {held.st_size} {held.st_mtime_ns}\n".encode())
    digest.update(np.stack([images.stack, images.row]).astype(np.int64).tobytes())
    return digest.hexdigest()


def _prefix(folder: Path, datadir: Path | None) -> str:
    """What goes before the names of stacks."""
    if datadir is None or not folder.resolve().is_relative_to(datadir.resolve()):
        return ""
    return f"{folder.resolve().relative_to(datadir.resolve())}/"


def _name(references: ImageReferences, row: int) -> str:
    return f"image {references.row[row] + 1} of {references.stacks[references.stack[row]].path}"
