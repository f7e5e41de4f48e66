"""The same particles, poses and halves through our backprojection and RELION's."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.data.particles import open_particles
from cryohydra.data.simulated import simulate_to_folder
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.fourier.half_map_fsc import half_map_fsc
from cryohydra.fourier.soft_mask import mask_around
from cryohydra.inference.half_maps import HalfMaps, HalfSets, backproject_halves
from cryohydra.io.mrc import read_map
from cryohydra.io.star import StarTable, read_star, write_star
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

pytestmark = pytest.mark.skipif(
    shutil.which("relion_reconstruct") is None,
    reason="relion_reconstruct is not installed (Debian: apt-get install relion)",
)

BOX_SIZE, PIXEL_SIZE, NUM_IMAGES = 48, 8.5, 1000
UP_TO = int(0.8 * BOX_SIZE / 2) + 1


def reconstruct(folder: Path, *flags: str) -> torch.Tensor:
    """Run relion_reconstruct and read what it made."""
    command = ["relion_reconstruct", "--i", "halves.star", "--o", "theirs.mrc", "--ctf", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.from_numpy(read_map(folder / "theirs.mrc")[0])


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[HalfMaps, HalfMaps]:
    """Ours and theirs, with halves and weights that the STAR file states."""
    folder = tmp_path_factory.mktemp("halves")
    imaging = Imaging(PIXEL_SIZE, snr=0.3, shift_std_px=1.0, astigmatism_angstrom=500.0)
    simulate_to_folder(folder, [demo_class("spliceosome", BOX_SIZE, PIXEL_SIZE, 35.0)], imaging, NUM_IMAGES, seed=1)
    blocks = read_star(folder / "particles.star")
    columns = dict(blocks["particles"].columns)
    random = np.random.default_rng(0)
    columns["rlnRandomSubset"] = random.integers(1, 3, NUM_IMAGES)
    columns["rlnParticleFigureOfMerit"] = random.uniform(0.2, 1, NUM_IMAGES).round(4)
    write_star(folder / "halves.star", {**blocks, "particles": StarTable(columns)})
    particles = open_particles(folder / "halves.star", lazy=True)
    assert particles.half is not None and particles.poses is not None
    weight = torch.from_numpy(columns["rlnParticleFigureOfMerit"]).float()[:, None]
    sets = HalfSets(particles.half, weight, particles.poses.rotation, particles.poses.shift_px)
    theirs = [reconstruct(folder, "--fom_weighting", *flags) for flags in (("--subset", "1"), ("--subset", "2"), ())]
    return backproject_halves(particles.source, sets, 0), HalfMaps(torch.stack(theirs[:2]), theirs[2])


def test_maps_are_those_of_relion(maps: tuple[HalfMaps, HalfMaps]) -> None:
    ours, theirs = maps
    for own, other in ((ours.whole, theirs.whole), *zip(ours.halves, theirs.halves, strict=True)):
        # RELION takes the box's sphere, as we do, and grids by another kernel.
        assert float(fourier_shell_correlation(own, other)[1:UP_TO].min()) > 0.95
        assert float((own * other).sum() / other.square().sum()) == pytest.approx(1, abs=0.1)


def test_the_mirrored_map_is_another(maps: tuple[HalfMaps, HalfMaps]) -> None:
    ours, theirs = maps
    # The voxel at D//2 stays where it is.
    mirrored = ours.whole.flip(0).roll(1, 0)
    assert float(fourier_shell_correlation(mirrored, theirs.whole)[5:UP_TO].mean()) < 0.3


def test_half_maps_agree_as_those_of_relion_do(maps: tuple[HalfMaps, HalfMaps]) -> None:
    mask = mask_around(maps[1].whole, 6, BOX_SIZE / 32, BOX_SIZE / 16)
    curves = [half_map_fsc(*one.halves, mask, torch.Generator().manual_seed(0)).masked for one in maps]
    assert float((curves[0] - curves[1])[1:UP_TO].abs().max()) < 0.05
    # There is something to disagree about: the curve falls through 0.5 on the way.
    assert float(curves[0][UP_TO - 1]) < 0.5 < float(curves[0][8])


def test_halves_that_are_swapped_swap_their_maps(maps: tuple[HalfMaps, HalfMaps]) -> None:
    ours, theirs = maps
    own = float(fourier_shell_correlation(ours.halves[0], theirs.halves[0])[15])
    other = float(fourier_shell_correlation(ours.halves[0], theirs.halves[1])[15])
    assert own > other + 0.2
