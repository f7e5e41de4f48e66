"""Real files, read by more than one way, tell the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.data import open_particles
from cryohydra.data.from_cs import cs_ctf, cs_poses
from cryohydra.errors import InputMismatch, UnreadableFile, UserError
from cryohydra.fourier.band import Band
from cryohydra.io.cs import read_cs
from cryohydra.io.ctf_file import read_ctf_file
from cryohydra.io.pose_file import read_pose_file
from cryohydra.physics.ctf import contrast_transfer

WARP = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"


@pytest.fixture
def cryodrgn(shared_data: Path) -> Path:
    return shared_data / "particles" / "cryodrgn_tests"


@pytest.fixture
def tomodrgn(shared_data: Path) -> Path:
    return shared_data / "particles" / "tomodrgn_tests"


def test_star_and_cs_of_the_same_particles_agree(cryodrgn: Path) -> None:
    star = open_particles(cryodrgn / "empiar_10076_7.star")
    cs = open_particles(cryodrgn / "empiar_10076_7.cs")
    index = torch.arange(7)
    assert torch.equal(star.source.images(index), cs.source.images(index))
    frequencies = Band(320, 159).frequencies
    expected = contrast_transfer(cs.source.optics(index), frequencies)
    found = contrast_transfer(star.source.optics(index), frequencies)
    # The .cs keeps defocus and angle in float32: 1e-3 A in 1.5e4 A, over tens of oscillations.
    assert torch.allclose(found, expected, atol=1e-4)
    assert star.source.pixel_size_angstrom == pytest.approx(1.31, abs=1e-4) == cs.source.pixel_size_angstrom
    assert star.poses is None and cs.poses is None and star.index.tolist() == list(range(7))


def test_cs_metadata_agree_with_another_program(cryodrgn: Path) -> None:
    records = read_cs(cryodrgn / "cryosparc_P12_J24_001_particles.cs")
    ctf = cs_ctf(records, 180)
    assert ctf is not None
    assert np.allclose(ctf, read_ctf_file(cryodrgn / "ctf2.pkl"), rtol=1e-5, atol=1e-5)
    rotation, shift_px = cs_poses(records, ctf[:, 1])
    expected_rotation, expected_shift = read_pose_file(cryodrgn / "pose.cs.pkl")
    assert rotation is not None and shift_px is not None and expected_shift is not None
    assert np.allclose(rotation, expected_rotation, atol=1e-5)
    assert np.allclose(-shift_px / 180, expected_shift, atol=1e-5)


def test_cs_shifts_are_in_pixels_of_their_own(cryodrgn: Path) -> None:
    records = read_cs(cryodrgn / "cryosparc_P12_J24_001_particles.cs")[:5].copy()
    pixel_size = records["blob/psize_A"].astype(np.float64)
    _, shift_px = cs_poses(records, pixel_size)
    records["alignments3D/shift"] /= 2
    records["alignments3D/psize_A"] *= 2
    _, same_px = cs_poses(records, pixel_size)
    assert shift_px is not None and same_px is not None and np.allclose(shift_px, same_px)


def test_tilts_of_ribosomes(cryodrgn: Path) -> None:
    star, ctf, pose = (cryodrgn / name for name in ("sta_testing_bin8.star", "sta_ctf.pkl", "sta_pose.pkl"))
    found = open_particles(star, ctf=ctf, pose=pose, num_tilts=11)
    assert (len(found.source), found.source.num_tilts, found.source.box_size) == (6, 11, 64)
    # The table was made for the box before binning by 8.
    assert found.source.pixel_size_angstrom == pytest.approx(8 * 1.82, rel=1e-5)
    optics = found.source.optics(torch.arange(6))
    dose = optics.dose_electrons_per_square_angstrom
    assert (dose.diff(dim=1) > 0).all() and dose[0, 0] == pytest.approx(3.25)
    assert optics.scale[0, 1].item() == pytest.approx(0.9986)
    angles = open_particles(star, num_tilts=11)
    assert found.poses is not None and angles.poses is not None
    assert torch.allclose(found.poses.rotation, angles.poses.rotation, atol=1e-6)
    assert found.has_shifts and not angles.has_shifts and angles.poses.shift_px.abs().max() == 0


def test_a_stack_is_not_a_selection_of_itself(cryodrgn: Path) -> None:
    stack = cryodrgn / "ay19102021_L3_position6_ribo_it09_bin8_1.82A.mrcs"
    with pytest.raises(InputMismatch, match="describes 219 images but .* holds 220"):
        open_particles(stack, ctf=cryodrgn / "sta_ctf.pkl")


def test_a_selection_of_tilts_selects_particles(cryodrgn: Path) -> None:
    ind = cryodrgn / "ind_39_sta_testing_bin8.pkl"
    found = open_particles(cryodrgn / "sta_testing_bin8.star", num_tilts=39, ind=ind)
    assert found.index.tolist() == [0, 1, 2, 3, 4]


def test_star_poses_are_those_of_the_pose_file(tomodrgn: Path) -> None:
    star = tomodrgn / "10076_classD_32_sim.star"
    angles = open_particles(star, datadir=tomodrgn, num_tilts=8)
    matrices = open_particles(
        star, datadir=tomodrgn, num_tilts=8, pose=tomodrgn / "pose_classD.pkl", ctf=tomodrgn / "ctf_classD.pkl"
    )
    assert angles.poses is not None and matrices.poses is not None
    assert torch.allclose(angles.poses.rotation, matrices.poses.rotation, atol=1e-6)
    assert torch.allclose(angles.poses.shift_px, matrices.poses.shift_px, atol=1e-5)
    frequencies = Band(32, 15).frequencies
    index = torch.arange(72)
    ours, theirs = (contrast_transfer(found.source.optics(index), frequencies) for found in (angles, matrices))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_two_stacks_with_different_numbers_of_tilts(tomodrgn: Path) -> None:
    star, labels = tomodrgn / "10076_both_32_sim.star", tomodrgn / "ptcl_labels_D0_E1.pkl"
    every = open_particles(star, datadir=tomodrgn, num_tilts=8, labels=labels)
    assert len(every.source) == 144 and every.labels is not None
    assert torch.bincount(every.labels).tolist() == [72, 72]
    longer = open_particles(star, datadir=tomodrgn, num_tilts=10, labels=labels)
    assert len(longer.source) == 72 and longer.labels is not None and (longer.labels == 1).all()
    assert any("fewer than 10 tilts are left out: 72" in note for note in longer.notes)
    assert longer.index.tolist() == list(range(72, 144))
    with pytest.raises(UserError, match="at most 10 tilts"):
        open_particles(star, datadir=tomodrgn, num_tilts=11)


def test_places_that_were_tried_are_named(tomodrgn: Path) -> None:
    with pytest.raises(UnreadableFile, match="tried .*data/10076_classD_32_sim.mrcs.*datadir"):
        open_particles(tomodrgn / "10076_both_32_sim.star")


def test_images_multiplied_by_their_ctf_are_refused(tomodrgn: Path) -> None:
    with pytest.raises(UserError, match="multiplied by their CTF"):
        open_particles(tomodrgn / f"{WARP}.star", num_tilts=10)
