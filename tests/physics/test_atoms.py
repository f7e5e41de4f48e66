"""Atomic models and their densities."""

import gzip

import pytest
import torch

from cryohydra.errors import UnreadableFile, UserError
from cryohydra.geometry.rotations import random_rotations
from cryohydra.physics.atoms import Atoms, chain_names, density, read_atoms

PDB = """\
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
ATOM      1  CA  GLY A   1      10.000   2.000   3.000  1.00  0.00           C
ATOM      2  N   GLY A   1      11.000   2.000   3.000  1.00  0.00           N
ATOM      3  H   GLY A   1      12.000   2.000   3.000  1.00  0.00           H
ATOM      4  CA  GLY B   1     -20.000   2.000   3.000  1.00  0.00           C
HETATM    5  O   HOH B   2      40.000   2.000   3.000  1.00  0.00           O
END
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pdb.gz"
    path.write_bytes(gzip.compress(PDB.encode()))
    return path


def test_reads_heavy_atoms_without_water(model):
    atoms = read_atoms(model)
    assert atoms.weights.tolist() == [6.0, 7.0, 6.0]
    torch.testing.assert_close(atoms.positions_angstrom[0], torch.tensor([10.0, 2.0, 3.0]))


def test_takes_chains_by_pattern(model):
    assert len(read_atoms(model, ["B*"])) == 1
    assert chain_names(model) == ("A", "B")


def test_builds_an_assembly(model):
    built = read_atoms(model, assembly="1")
    assert len(built) == 4
    torch.testing.assert_close(built.centre_angstrom[:2], torch.zeros(2), atol=1e-4, rtol=0)


def test_says_which_chains_there_are(model):
    with pytest.raises(UserError, match="does not hold chains X; its chains are A, B"):
        read_atoms(model, ["X"])
    with pytest.raises(UserError, match="no assembly '7'; it has 1"):
        read_atoms(model, assembly="7")


def test_something_else_is_no_model(tmp_path):
    (tmp_path / "no.pdb").write_text("nothing")
    with pytest.raises(UserError):
        read_atoms(tmp_path / "no.pdb")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read_atoms(tmp_path / "missing.cif")


def test_density_is_a_gaussian_at_the_atom():
    atoms = Atoms(torch.tensor([[7.0, -3.5, 10.0]]), torch.tensor([6.0]))
    box_size, pixel_size, resolution = 32, 2.0, 10.0
    found = density(atoms, box_size, pixel_size, resolution, centre_angstrom=torch.zeros(3))
    axis = (torch.arange(box_size) - box_size // 2) * pixel_size
    square = (axis[:, None, None] - 10) ** 2 + (axis[:, None] + 3.5) ** 2 + (axis - 7) ** 2
    # A transform of exp(-(s r)^2) belongs to exp(-(pi x / r)^2).
    wanted = torch.exp(-square * (torch.pi / resolution) ** 2)
    wanted *= 6 / wanted.sum()
    # Sharing an atom among half-pixel neighbours costs two per cent at most, in high frequencies; in a model of
    # many atoms it averages out.
    assert float((found - wanted).norm() / wanted.norm()) < 0.03
    assert float(found.sum()) == pytest.approx(6.0, rel=1e-4)


def test_the_centre_of_mass_is_centred_unless_told(generator):
    positions = torch.randn(50, 3, generator=generator) * 8 + 100
    volume = density(Atoms(positions, torch.rand(50, generator=generator) + 1), 32, 3.0, 9.0)
    axis = torch.arange(32.0) - 16
    for dims in ((1, 2), (0, 2), (0, 1)):
        assert abs(float((volume.sum(dims) * axis).sum() / volume.sum())) < 0.02


def test_too_small_a_box_is_refused():
    atoms = Atoms(torch.tensor([[-60.0, 0, 0], [60.0, 0, 0]]), torch.ones(2))
    with pytest.raises(UserError, match="at least 64 pixels"):
        density(atoms, 32, 2.0, 8.0)


def test_turning_leaves_the_pivot(generator):
    pivot = torch.tensor([5.0, 1.0, -2.0])
    atoms = Atoms(torch.stack([pivot, pivot + torch.tensor([3.0, 0.0, 4.0])]), torch.ones(2))
    turned = atoms.turned(random_rotations(1, generator)[0], pivot)
    torch.testing.assert_close(turned.positions_angstrom[0], pivot)
    assert float((turned.positions_angstrom[1] - pivot).norm()) == pytest.approx(5.0, rel=1e-5)
