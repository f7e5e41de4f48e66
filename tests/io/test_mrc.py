"""MRC files agree with mrcfile, and bad ones are told apart."""

import io
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryohydra.errors import UnreadableFile
from cryohydra.io.mrc import MrcStack, read_map, write_map, write_stack

IMAGES = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32, np.uint16, np.float16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_mode_and_byte_order_is_read(tmp_path: Path, dtype: type, order: str) -> None:
    path = tmp_path / "a.mrcs"
    data = (np.abs(IMAGES) * 20).astype(dtype)
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.dtype(dtype).newbyteorder(order)))
        file.voxel_size = 1.5
    stack = MrcStack(path)
    assert (stack.num_images, stack.box_size, stack.pixel_size_angstrom) == (5, 8, pytest.approx(1.5))
    read = stack.read(np.array([4, 0]))
    assert read.dtype == np.float32 and np.array_equal(read, data[[4, 0]].astype(np.float32))


def test_an_extended_header_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(IMAGES)
        file.set_extended_header(np.zeros(768, dtype="V1"))
    assert np.array_equal(MrcStack(path).read(np.arange(5)), IMAGES)


def test_written_files_are_valid(tmp_path: Path) -> None:
    volume = np.random.default_rng(1).normal(size=(8, 8, 8)).astype(np.float32)
    write_map(tmp_path / "a.mrc", volume, 1.31)
    write_stack(tmp_path / "a.mrcs", IMAGES, 1.31)
    for name in ("a.mrc", "a.mrcs"):
        complaints = io.StringIO()
        assert mrcfile.validate(tmp_path / name, print_file=complaints), complaints.getvalue()
        with mrcfile.open(tmp_path / name) as file:
            assert file.voxel_size.x == pytest.approx(1.31)
            assert file.is_image_stack() == (name == "a.mrcs")
    read, pixel_size = read_map(tmp_path / "a.mrc")
    assert np.array_equal(read, volume) and pixel_size == pytest.approx(1.31)
    assert np.array_equal(MrcStack(tmp_path / "a.mrcs").read(np.arange(5)), IMAGES)


@pytest.mark.parametrize(
    ("shape", "message"), [((3, 8, 6), "6 x 8 pixels; wanted square"), ((3, 7, 7), "7 x 7 pixels; wanted an even")]
)
def test_images_of_a_wrong_shape_are_refused(tmp_path: Path, shape: tuple, message: str) -> None:
    with mrcfile.new(tmp_path / "a.mrcs") as file:
        file.set_data(np.zeros(shape, np.float32))
    with pytest.raises(UnreadableFile, match=message):
        MrcStack(tmp_path / "a.mrcs")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    write_stack(path, IMAGES, 1.0)
    whole = path.read_bytes()
    for content, message in ((whole[:-4], "truncated"), (whole[:100], "truncated"), (b"x" * 2000, "not an MRC")):
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match=message):
            MrcStack(path)
    with pytest.raises(UnreadableFile, match="does not exist"):
        MrcStack(tmp_path / "b.mrcs")


def test_complex_data_are_refused(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(IMAGES.astype(np.complex64))
    with pytest.raises(UnreadableFile, match="mode 4"):
        MrcStack(tmp_path / "a.mrc")


def test_a_stack_is_no_map(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrcs", IMAGES, 1.0)
    with pytest.raises(UnreadableFile, match="wanted a cube"):
        read_map(tmp_path / "a.mrcs")


def test_real_stacks_are_read(shared_data: Path) -> None:
    folder = shared_data / "particles" / "cryodrgn_tests"
    stack = MrcStack(folder / "empiar_10076_7.mrc")  # without machine stamp or pixel size
    assert (stack.num_images, stack.box_size, stack.pixel_size_angstrom) == (7, 320, None)
    assert stack.read(np.arange(7)).std() == pytest.approx(1, abs=0.01)
    tilts = shared_data.glob("particles/tomodrgn_tests/*/*/*.mrcs")
    assert all(np.isfinite(MrcStack(path).read(np.arange(37))).all() for path in tilts)
