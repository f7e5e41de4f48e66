"""A real client: RELION reads what is exported and makes each class from it."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from cryohydra.analysis.export import ExportOptions, export_run
from cryohydra.data.simulated import Truth
from cryohydra.io.mrc import read_map

from .conftest import BOX_SIZE, PIXEL_SIZE, MakeTrueRun

pytestmark = pytest.mark.skipif(
    shutil.which("relion_reconstruct") is None,
    reason="relion_reconstruct is not installed (Debian: apt-get install relion)",
)


def reconstruct(project: Path, star: Path, *flags: str) -> np.ndarray:
    """The map that RELION makes, run in the folder from which images are named."""
    output = star.with_name("relion.mrc")
    command = ["relion_reconstruct", "--i", str(star), "--o", str(output), "--ctf", *flags]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    density, pixel_size = read_map(output)
    assert pixel_size == pytest.approx(PIXEL_SIZE) and density.shape == (BOX_SIZE,) * 3
    return density


def in_frame(density: np.ndarray, frame: torch.Tensor) -> np.ndarray:
    """The density of a class whose frame is turned: at g it has the value of the true one at g @ frame.T."""
    axis = np.arange(BOX_SIZE) - BOX_SIZE // 2
    zyx = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    there = zyx[..., ::-1] @ frame.T.numpy()
    return map_coordinates(density, np.moveaxis(there[..., ::-1], -1, 0) + BOX_SIZE // 2, order=3)


def mirrored(density: np.ndarray) -> np.ndarray:
    """The other hand; the centre stays in its place."""
    return np.roll(density[::-1], 1, axis=0)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Within the sphere that a reconstruction fills."""
    axis = np.arange(BOX_SIZE) - BOX_SIZE // 2
    inside = axis**2 + axis[:, None] ** 2 + axis[:, None, None] ** 2 < (BOX_SIZE / 2 - 2) ** 2
    return float(np.corrcoef(a[inside], b[inside])[0, 1])


@pytest.mark.parametrize("class_index", [0, 1])
@pytest.mark.parametrize("subset", [1, 2])
def test_relion_makes_each_class_from_each_half(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor, class_index: int, subset: int
) -> None:
    star = export_run(true_run().path).folder / "particles.star"
    found = reconstruct(simulated, star, "--class", str(class_index + 1), "--subset", str(subset))
    wanted = in_frame(truth.maps[class_index], class_frames[class_index])
    other = in_frame(truth.maps[1 - class_index], class_frames[class_index])
    assert correlation(found, wanted) > 0.9
    assert correlation(found, wanted) > correlation(found, mirrored(wanted)) + 0.1
    assert correlation(found, wanted) > correlation(found, other) + 0.1


def test_relion_weighs_by_the_class_probability(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor
) -> None:
    folder = export_run(true_run(certainty=0.97).path, ExportOptions(is_soft=True)).folder
    wanted = in_frame(truth.maps[1], class_frames[1])
    weighted = reconstruct(simulated, folder / "class_1.star", "--fom_weighting")
    unweighted = reconstruct(simulated, folder / "class_1.star")
    assert correlation(weighted, wanted) > 0.9
    assert correlation(weighted, wanted) > correlation(unweighted, wanted) + 0.03
    assert correlation(weighted, wanted) > correlation(weighted, mirrored(wanted)) + 0.1


def test_relion_reads_a_star_made_of_a_bare_stack(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor, tmp_path: Path
) -> None:
    # RELION reserves the ending .mrc for maps, so this one must be called a stack.
    (tmp_path / "images.mrc").symlink_to(simulated / "particles.mrcs")
    run = true_run(tmp_path / "images.mrc", {"ctf": str(simulated / "ctf.pkl")})
    star = export_run(run.path).folder / "class_0.star"
    # Stacks have absolute paths: any folder will do.
    found = reconstruct(tmp_path, star)
    assert correlation(found, in_frame(truth.maps[0], class_frames[0])) > 0.9
