"""The structures that the package carries."""

from importlib.resources import files

import pytest
import torch

from cryohydra.errors import UnknownSetting
from cryohydra.fourier.alignment import Alignment, apply_alignment
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.physics.demo_structures import (
    DEMO_CLASSES,
    ENTRIES,
    demo_class,
    entry_pseudo_symmetry,
    entry_symmetry,
    read_entry,
)


def test_they_are_small():
    folder = files("cryohydra") / "assets" / "demo_structures"
    assert sum(len((folder / f"{entry}.npz").read_bytes()) for entry in ENTRIES) < 1_000_000


@pytest.mark.parametrize("name", DEMO_CLASSES)
def test_each_gives_a_centred_positive_density(name):
    made = demo_class(name, 32, 14.0, num_frames=1)
    volume = made.middle_map
    assert float(volume.sum()) > 0
    # Only the ringing of a sharp end at Nyquist is below zero.
    assert float(volume.min()) > -0.05 * float(volume.max())
    axis = torch.arange(32.0) - 16
    assert abs(float((volume.sum((0, 1)) * axis).sum() / volume.sum())) < 0.5


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(UnknownSetting, match="ribosome"):
        demo_class("ribozome", 32, 14.0)


def test_the_ribosome_is_its_two_subunits_and_trna():
    parts = [read_entry("4v5d", (name,)) for name in ("30S", "50S", "tRNA")]
    assert sum(len(part) for part in parts) == len(read_entry("4v5d"))
    distance = (parts[0].centre_angstrom - parts[1].centre_angstrom).norm()
    assert 60 < float(distance) < 130  # angstrom


def test_the_ribosome_ratchets_by_twenty_degrees():
    made = demo_class("ribosome", 32, 13.0, num_frames=5)
    assert made.coordinate.tolist() == pytest.approx([-10, -5, 0, 5, 10])
    near = fourier_shell_correlation(made.maps[2], made.maps[1])[8:14].mean()
    far = fourier_shell_correlation(made.maps[0], made.maps[4])[8:14].mean()
    assert float(far) < float(near) < 0.99


@pytest.mark.parametrize(("entry", "order"), [("6z6u", 24), ("4v8r", 2), ("3jb9", 1)])
def test_symmetry_leaves_the_structure_as_it_is(entry, order):
    group = entry_symmetry(entry)
    assert len(group) == order
    positions = read_entry(entry).positions_angstrom[::37]
    everything = read_entry(entry).positions_angstrom
    for rotation in group:
        # Each moved residue lies on one of the structure; the copies differ by a little.
        distance = torch.cdist(positions @ rotation.T, everything).amin(1)
        assert float(distance.median()) < 1.0


def test_adenylate_kinase_closes():
    made = demo_class("adenylate_kinase", 32, 3.0, num_frames=4)
    assert made.maps.shape[0] == 4 and made.has_motion


def test_tric_is_nearly_d8_and_exactly_c2():
    exact, nearly = entry_symmetry("4v8r"), entry_pseudo_symmetry("4v8r")
    assert len(exact) == 2 and len(nearly) == 16
    # The exact group is part of the other.
    assert all(float((nearly - rotation).abs().amax((1, 2)).min()) < 1e-4 for rotation in exact)
    density = demo_class("tric", 32, 14.0).maps[0]
    turned = [apply_alignment(density, Alignment(rotation, torch.zeros(3), False, 0.0)) for rotation in nearly[1:4]]
    # At three pixels of 14 A its eight kinds of subunits look alike.
    assert all(float(fourier_shell_correlation(one, density)[1:6].min()) > 0.95 for one in turned)
    assert torch.equal(entry_pseudo_symmetry("6z6u"), entry_symmetry("6z6u"))
