"""MRC stacks and maps."""

import os
from pathlib import Path

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from cryohydra._typing import Float, Int
from cryohydra.errors import UnreadableFile
from cryohydra.io.atomic import write_atomically

_DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_HEADER_BYTES = 1024


class MrcStack:
    """Square images of even size in one MRC file, read from disk when asked for.

    Raises:
        UnreadableFile: If the file is missing, truncated, or its images are not square or of odd size.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        header, self._byte_order = _read_header(self.path)
        width, height, self.num_images = int(header["nx"]), int(header["ny"]), int(header["nz"])
        if width != height:
            raise UnreadableFile(
                f"{path} holds images of {width} x {height} pixels; wanted square ones. Extract or crop them again."
            )
        if width % 2:
            raise UnreadableFile(
                f"{path} holds images of {width} x {width} pixels; wanted an even size. "
                f"Crop or rescale them, for instance to {width - 1}."
            )
        self.box_size = width
        self.is_map = int(header["ispg"]) == 1 and self.num_images == width
        """Whether the header says that this is one density and no stack."""
        self.pixel_size_angstrom = _pixel_size(header)
        self._mode = int(header["mode"])
        self._offset = _HEADER_BYTES + max(int(header["nsymbt"]), 0)
        held = os.path.getsize(self.path) - self._offset
        wanted = self.num_images * width * width * np.dtype(_DTYPE_OF_MODE[self._mode]).itemsize
        if held < wanted:
            raise UnreadableFile(
                f"{path} is truncated: its header promises {self.num_images} images ({wanted} bytes) but {held} bytes "
                "of images are there. Copy or write it again."
            )

    def __len__(self) -> int:
        return self.num_images

    def _map(self) -> np.ndarray:
        shape = (self.num_images, self.box_size, self.box_size)
        dtype = np.dtype(self._byte_order + _DTYPE_OF_MODE[self._mode])
        return np.memmap(self.path, dtype=dtype, mode="r", offset=self._offset, shape=shape)

    def read(self, rows: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n d d"]:
        """The images of some rows, from 0, as float32."""
        assert len(rows) == 0 or (rows.min() >= 0 and rows.max() < self.num_images)
        return np.ascontiguousarray(self._map()[rows], dtype=np.float32)


def write_map(path: Path, volume: Float[np.ndarray, "d d d"], pixel_size_angstrom: float) -> None:
    """Write a density, axes [z, y, x], with a valid header."""
    _write(path, volume, pixel_size_angstrom, is_stack=False)


def write_stack(path: Path, images: Float[np.ndarray, "n d d"], pixel_size_angstrom: float) -> None:
    """Write images with a valid header."""
    _write(path, images, pixel_size_angstrom, is_stack=True)


def read_map(path: Path) -> tuple[Float[np.ndarray, "d d d"], float]:
    """A cubic density, axes [z, y, x], as float32, and its pixel size in angstrom (1 if the header has none).

    Raises:
        UnreadableFile: If the file is missing, truncated or not a cube of even size.
    """
    stack = MrcStack(path)
    if stack.num_images != stack.box_size:
        raise UnreadableFile(
            f"{path} has {stack.num_images} sections of {stack.box_size} x {stack.box_size} pixels; wanted a cube. "
            "Pad or crop the map."
        )
    return stack.read(np.arange(stack.num_images)), stack.pixel_size_angstrom or 1.0


def _write(path: Path, data: np.ndarray, pixel_size_angstrom: float, *, is_stack: bool) -> None:
    with write_atomically(path) as temporary, mrcfile.new(temporary) as file:
        file.set_data(np.ascontiguousarray(data, dtype=np.float32))
        if is_stack:
            file.set_image_stack()
        else:
            file.set_volume()
        file.voxel_size = pixel_size_angstrom


def _read_header(path: Path) -> tuple[np.void, str]:
    """The header, in native byte order, and the byte order of the file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_HEADER_BYTES)
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist; wanted an MRC file. Check the path.") from error
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error.strerror}); wanted an MRC file.") from error
    if len(raw) < _HEADER_BYTES:
        raise UnreadableFile(f"{path} is truncated: {len(raw)} bytes, less than an MRC header. Copy or write it again.")
    # Many programs leave the machine stamp empty, so the byte order is the one in which the header makes sense.
    for byte_order in ("<", ">"):
        header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(byte_order))[0]
        sizes = [int(header[name]) for name in ("nx", "ny", "nz")]
        if 0 <= int(header["mode"]) < 128 and all(0 < size < 2**24 for size in sizes):
            break
    else:
        raise UnreadableFile(f"{path} is not an MRC file: its header makes no sense. Give a .mrcs or .mrc stack.")
    if int(header["mode"]) not in _DTYPE_OF_MODE:
        raise UnreadableFile(
            f"{path} holds data of MRC mode {int(header['mode'])}; wanted one of "
            f"{', '.join(map(str, _DTYPE_OF_MODE))} (real numbers). Convert it to mode 2."
        )
    return header, byte_order


def _pixel_size(header: np.void) -> float | None:
    """Angstrom per pixel, or None where the header does not say."""
    length, intervals = float(header["cella"]["x"]), int(header["mx"])
    if intervals <= 0 or not np.isfinite(length) or length <= 0:
        return None
    return length / intervals
