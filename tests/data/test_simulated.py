"""Simulated particles on disk: what is written is what was made."""

import mrcfile
import pytest
import torch

from cryohydra.data.particles import open_particles
from cryohydra.data.simulated import read_truth, simulate_to_folder, write_dataset
from cryohydra.errors import UnreadableFile, UserError
from cryohydra.geometry.rotations import geodesic_angle
from cryohydra.physics.ctf import contrast_transfer
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging, simulate_particles

IMAGING = Imaging(14.0, snr=0.5, shift_std_px=1.0, contrast_std=0.1, noise="coloured")


@pytest.fixture(scope="module")
def classes():
    return [demo_class("spliceosome", 32, 14.0), demo_class("apoferritin", 32, 14.0)]


@pytest.fixture(scope="module")
def folder(classes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "set"
    simulate_to_folder(folder, classes, IMAGING, 60, seed=7)
    return folder


@pytest.fixture(scope="module")
def particles(classes):
    return simulate_particles(classes, IMAGING, 60, torch.Generator().manual_seed(7))


@pytest.mark.parametrize("has_pickles", [False, True])
def test_the_reader_gives_back_images_poses_and_ctf(folder, particles, has_pickles):
    pickles = {"ctf": folder / "ctf.pkl", "pose": folder / "pose.pkl", "labels": folder / "labels.pkl"}
    found = open_particles(folder / "particles.star", **(pickles if has_pickles else {}))
    index = torch.arange(60)
    # Polarity: files are white on dark, sources the other way round.
    torch.testing.assert_close(found.source.images(index), particles.images)
    assert found.poses is not None and found.has_shifts
    # Star files hold four decimals.
    angle = geodesic_angle(found.poses.rotation[:, :, 0].float(), particles.pose.rotation[:, :, 0])
    assert float(angle.max()) < 1e-4
    torch.testing.assert_close(found.poses.shift_px[:, :, 0].float(), particles.pose.shift_px[:, :, 0],
                               atol=1e-4, rtol=0)  # fmt: skip
    frequencies = torch.rand(50, 2) * 0.6 - 0.3
    ours, theirs = (contrast_transfer(optics, frequencies) for optics in (particles.optics, found.source.optics(index)))
    torch.testing.assert_close(theirs, ours, atol=2e-3, rtol=0)
    if has_pickles:
        assert found.labels is not None and torch.equal(found.labels, particles.labels)


def test_the_stack_is_valid_and_white_on_dark(folder, particles, capsys):
    assert mrcfile.validate(folder / "particles.mrcs")
    with mrcfile.open(folder / "particles.mrcs") as file:
        torch.testing.assert_close(torch.tensor(file.data), -particles.images[:, 0])
        assert float(file.voxel_size.x) == pytest.approx(14.0)


def test_the_truth_comes_back(folder, particles):
    truth = read_truth(folder)
    assert truth.class_names == ("spliceosome", "apoferritin")
    torch.testing.assert_close(torch.from_numpy(truth.maps), particles.maps)
    torch.testing.assert_close(torch.from_numpy(truth.rotation), particles.pose.rotation[:, :, 0])
    assert [len(group) for group in truth.symmetry] == [1, 24]
    assert truth.pixel_size_angstrom == 14.0 and truth.snr == 0.5


def test_from_memory_it_is_the_same(particles, folder, tmp_path):
    write_dataset(tmp_path / "again", particles)
    for name in ("particles.star", "truth_class_0.mrc"):
        again, first = (path / name for path in (tmp_path / "again", folder))
        assert again.exists() and (name.endswith(".mrc") or again.read_bytes() == first.read_bytes())


def test_nothing_is_overwritten(folder, classes):
    with pytest.raises(UserError, match="not overwritten"):
        simulate_to_folder(folder, classes, IMAGING, 10, seed=1)


def test_a_failed_simulation_leaves_no_stack(classes, tmp_path):
    with pytest.raises(UserError):
        simulate_to_folder(tmp_path / "bad", classes, IMAGING, 0, seed=1)
    assert not list((tmp_path / "bad").glob("*particles*"))


def test_a_folder_without_truth_is_refused(tmp_path):
    with pytest.raises(UnreadableFile, match="drgnai simulate"):
        read_truth(tmp_path)
