"""Seven real particles go the whole way, however another program described them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cryohydra.cli.main import main
from cryohydra.data import open_particles
from cryohydra.fourier.band import Band
from cryohydra.io.latents import read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.ctf import contrast_transfer

NUM_PARTICLES, BOX_SIZE = 7, 320


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "particles" / "cryodrgn_tests"


# Seven particles give no structure: 60 Fourier pixels instead of all 159 ask the same of the program in less time.
@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["star", "cs"])
def test_setup_train_and_analyze(folder: Path, suffix: str, tmp_path: Path) -> None:
    particles = folder / f"empiar_10076_7.{suffix}"
    cfgs = ["n_imgs_pose_search=14", "n_imgs_pretrain=0", "epochs_sgd=1", "max_freq=60", "hypervolume_dim=64"]
    assert main(["setup", str(tmp_path), "--particles", str(particles), "--cfgs", *cfgs]) == 0
    assert main(["train", str(tmp_path), "--no-analysis"]) == 0
    assert main(["analyze", str(tmp_path)]) == 0
    run = RunFolder(tmp_path)
    latents = read_latents(run.latents_path(run.latest_epoch()))
    assert latents.rotation.shape == (NUM_PARTICLES, 1, 3, 3)
    # A rotation whatever was found: float32 products.
    assert np.allclose(latents.rotation @ latents.rotation.swapaxes(-1, -2), np.eye(3), atol=1e-4)
    assert np.allclose(latents.class_probability, 1.0)
    density, pixel_size = read_map(run.map_path(run.latest_epoch(), 0))
    assert density.shape == (BOX_SIZE,) * 3 and np.isfinite(density).all() and density.std() > 0
    assert pixel_size == pytest.approx(1.31, abs=1e-4)
    assert (run.results / f"analysis_{run.latest_epoch()}" / "report.html").stat().st_size > 0


@pytest.mark.parametrize("suffix", ["star", "cs"])
def test_the_key_that_bounds_the_search_is_kept(folder: Path, suffix: str, tmp_path: Path) -> None:
    particles = folder / f"empiar_10076_7.{suffix}"
    assert main(["setup", str(tmp_path), "--particles", str(particles), "--cfgs", "n_imgs_pose_search=14"]) == 0
    assert yaml.safe_load((tmp_path / "configs.yaml").read_text())["n_imgs_pose_search"] == 14


def test_both_descriptions_give_the_same_images_and_ctf(folder: Path) -> None:
    star, cs = (open_particles(folder / f"empiar_10076_7.{suffix}") for suffix in ("star", "cs"))
    index = torch.arange(NUM_PARTICLES)
    assert torch.equal(star.source.images(index), cs.source.images(index))
    frequencies = Band(BOX_SIZE, BOX_SIZE // 2 - 1).frequencies
    found, expected = (contrast_transfer(each.source.optics(index), frequencies) for each in (star, cs))
    # The .cs keeps defocus and angle in float32: 1e-3 A in 1.5e4 A, over tens of oscillations.
    assert torch.allclose(found, expected, atol=1e-4)
