"""Tilt series at known poses: real ones run, simulated ones give back what they were made from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.cli.main import main
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.pickles import read_pickle
from cryohydra.io.run_folder import RunFolder

SMALL = ["hypervolume_dim=32", "log_heavy_interval=0", "seed=0"]


@pytest.fixture
def cryodrgn(shared_data: Path) -> Path:
    return shared_data / "particles" / "cryodrgn_tests"


@pytest.fixture
def tomodrgn(shared_data: Path) -> Path:
    return shared_data / "particles" / "tomodrgn_tests"


def train(out: Path, pose_estimation: str, inputs: list[str], *cfgs: str) -> tuple[RunFolder, Latents]:
    setup = ["setup", str(out), "--capture-setup", "et", "--pose-estimation", pose_estimation, *inputs]
    assert main([*setup, "--cfgs", *SMALL, *cfgs]) == 0
    assert main(["train", str(out), "--no-analysis"]) == 0
    run = RunFolder(out)
    return run, read_latents(run.latents_path(run.latest_epoch()))


@pytest.mark.slow
@pytest.mark.parametrize("pose_estimation", ["fixed", "refine"])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_real_tilts_train(num_classes: int, pose_estimation: str, cryodrgn: Path, tmp_path: Path) -> None:
    files = {"particles": "sta_testing_bin8.star", "ctf": "sta_ctf.pkl", "pose": "sta_pose.pkl"}
    inputs = [part for flag, name in files.items() for part in (f"--{flag}", str(cryodrgn / name))]
    cfgs = ["n_tilts=11", f"n_classes={num_classes}", "epochs_sgd=1", "max_freq=16"]
    run, latents = train(tmp_path, pose_estimation, inputs, *cfgs)
    assert latents.rotation.shape == (6, 11, 3, 3) and latents.class_probability.shape == (6, num_classes)
    assert np.allclose(latents.class_probability.sum(1), 1.0, atol=1e-5)
    given = read_pickle(cryodrgn / "sta_pose.pkl")[0]
    # All tilts of a particle keep their places in the file's order of dose; fixed ones exactly.
    nearest = np.abs(latents.rotation[:, :, None] - np.asarray(given)[None, None]).max((-1, -2)).min(-1)
    # Two particles a class say little of poses that may move.
    largest = {("fixed", 1): 1e-5, ("fixed", 3): 1e-5, ("refine", 1): 0.2, ("refine", 3): 1.0}
    assert nearest.max() < largest[pose_estimation, num_classes]
    for k in range(num_classes):
        density, _ = read_map(run.map_path(run.latest_epoch(), k))
        assert np.isfinite(density).all() and density.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("pose_estimation", ["fixed", "refine"])
def test_a_map_comes_back_from_tilts_at_known_poses(pose_estimation: str, tomodrgn: Path, tmp_path: Path) -> None:
    inputs = ["--particles", str(tomodrgn / "10076_classD_32_sim.star"), "--datadir", str(tomodrgn)]
    run, _ = train(tmp_path, pose_estimation, inputs, "n_tilts=8", "epochs_sgd=1", "max_freq=12")
    found, truth = map_of(run, 0), torch.from_numpy(read_map(tomodrgn / "10076_classD_32.mrc")[0])
    # Same poses, so nothing is aligned. 576 images of SNR 0.06 carry the inner half of the shells.
    assert float(fourier_shell_correlation(found, truth)[1:9].min()) > 0.5


@pytest.mark.slow
def test_two_assembly_states_are_told_apart(tomodrgn: Path, tmp_path: Path) -> None:
    inputs = ["--particles", str(tomodrgn / "10076_both_32_sim.star"), "--datadir", str(tomodrgn)]
    run, latents = train(tmp_path, "fixed", inputs, "n_tilts=8", "n_classes=2", "epochs_sgd=1", "max_freq=12")
    labels = np.ravel(read_pickle(tomodrgn / "ptcl_labels_D0_E1.pkl"))
    assert adjusted_rand_score(labels, latents.best_class) > 0.9
    truths = [torch.from_numpy(read_map(tomodrgn / f"10076_class{name}_32.mrc")[0]) for name in "DE"]
    for label, truth in enumerate(truths):
        own = int(np.bincount(latents.best_class[labels == label]).argmax())
        agreement = [float(fourier_shell_correlation(map_of(run, k), truth)[1:9].mean()) for k in (own, 1 - own)]
        assert agreement[0] > 0.7 and agreement[0] > agreement[1]


def map_of(run: RunFolder, class_index: int) -> torch.Tensor:
    return torch.from_numpy(read_map(run.map_path(run.latest_epoch(), class_index))[0])
