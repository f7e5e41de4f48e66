"""One asymmetric mixture against RELION's own projections: hand, axes, shifts and polarity together."""

import math
import shutil
import subprocess

import numpy as np
import pytest
import torch

from cryohydra.data.downsampling import Downsampling
from cryohydra.data.simulated import read_truth, simulate_to_folder
from cryohydra.fourier.resampling import resample_map
from cryohydra.geometry.rotations import matrix_to_euler
from cryohydra.io.mrc import MrcStack, read_map, write_map
from cryohydra.io.star import StarTable, read_star, write_star
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

pytestmark = pytest.mark.skipif(
    shutil.which("relion_project") is None, reason="relion_project is not installed (Debian: apt-get install relion)"
)


def project(*arguments, folder):
    """Run relion_project and read what it made."""
    command = ["relion_project", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def correlation(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_images_are_what_relion_projects(tmp_path):
    box_size, pixel_size = 48, 8.5
    imaging = Imaging(pixel_size, snr=math.inf, shift_std_px=2.0, astigmatism_angstrom=1500.0)
    simulate_to_folder(tmp_path, [demo_class("spliceosome", box_size, pixel_size, 35.0)], imaging, 6, seed=11)
    project("--i", "truth_class_0.mrc", "--ang", "particles.star", "--o", "theirs", "--ctf", "--angpix", pixel_size,
            folder=tmp_path)  # fmt: skip
    rows = np.arange(6)
    ours, theirs = MrcStack(tmp_path / "particles.mrcs").read(rows), MrcStack(tmp_path / "theirs.mrcs").read(rows)
    for own, other in zip(ours, theirs, strict=True):
        # RELION interpolates linearly in a map padded to twice its size: a few per cent.
        assert correlation(own, other) > 0.99
        assert np.linalg.norm(own - own.mean() - (other - other.mean())) < 0.1 * np.linalg.norm(other)


def test_a_blob_at_psi_30(tmp_path):
    # The check of the conventions: at psi = 30 degrees (1, 0) goes to (cos 30, -sin 30).
    axis = np.arange(32) - 16
    square = (axis - 10) ** 2 + axis[:, None] ** 2 + axis[:, None, None] ** 2
    write_map(tmp_path / "blob.mrc", np.exp(-square / 4.5).astype(np.float32), 1.0)
    project("--i", "blob.mrc", "--psi", 30, "--o", "turned.mrc", "--angpix", 1, folder=tmp_path)
    image = MrcStack(tmp_path / "turned.mrc").read(np.arange(1))[0]
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (column - 16, row - 16) == (round(10 * math.cos(math.pi / 6)), round(-10 * math.sin(math.pi / 6)))


def test_the_truth_has_the_angles_of_the_star_file(tmp_path):
    simulate_to_folder(tmp_path, [demo_class("tric", 32, 12.0)], Imaging(12.0), 3, seed=2)
    truth = read_truth(tmp_path)
    euler = matrix_to_euler(torch.from_numpy(truth.rotation[:, 0]).double()).rad2deg()
    text = (tmp_path / "particles.star").read_text().splitlines()
    rows = [line.split() for line in text if "@particles.mrcs" in line]
    torch.testing.assert_close(torch.tensor([[float(v) for v in row[6:9]] for row in rows], dtype=torch.float64),
                               euler, atol=1e-3, rtol=0)  # fmt: skip


def as_relion_30(path):
    """The same particles as RELION 3.0 would have told of them."""
    blocks = read_star(path)
    optics, particles = blocks["optics"], blocks["particles"]
    columns = {name: column for name, column in particles.columns.items() if name != "rlnOpticsGroup"}
    pixel_size = optics.floats("rlnImagePixelSize")[0]
    for axis in "XY":
        columns[f"rlnOrigin{axis}"] = particles.floats(f"rlnOrigin{axis}Angst") / pixel_size
        del columns[f"rlnOrigin{axis}Angst"]
    for name in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        columns[name] = np.repeat(optics.column(name)[0], len(particles))
    columns["rlnDetectorPixelSize"] = np.full(len(particles), 5.0)
    columns["rlnMagnification"] = np.full(len(particles), 5e4 / pixel_size)
    write_star(path, {"": StarTable(columns)})


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_relion_reconstructs_from_downsampled_particles(tmp_path, version):
    box_size, small, pixel_size = 48, 32, 8.5
    imaging = Imaging(pixel_size, snr=math.inf, shift_std_px=2.0)
    simulate_to_folder(tmp_path, [demo_class("spliceosome", box_size, pixel_size, 35.0)], imaging, 150, seed=3)
    if version == "3.0":
        as_relion_30(tmp_path / "particles.star")
    folder = tmp_path / "small"
    Downsampling(tmp_path / "particles.star", folder, small).run(1, lambda images: None)
    command = ["relion_reconstruct", "--i", "particles.star", "--o", "map.mrc", "--ctf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found, found_pixel_size = read_map(folder / "map.mrc")
    assert found_pixel_size == pytest.approx(pixel_size * box_size / small, rel=1e-4)
    truth, _ = read_map(tmp_path / "truth_class_0.mrc")
    expected = resample_map(torch.from_numpy(truth), pixel_size, small, pixel_size * box_size / small).numpy()
    # 0.999 here; 0.97 with shifts off by the ratio of the boxes, 0.90 where RELION overlooks shifts in pixels.
    assert correlation(found, expected) > 0.99
