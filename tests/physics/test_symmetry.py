"""Symmetry from the chains of an atomic model."""

import math
from pathlib import Path

import pytest
import torch

from cryohydra._typing import Tensor
from cryohydra.geometry.rotations import geodesic_angle, rotation_vector_to_matrix
from cryohydra.physics.atoms import Trace
from cryohydra.physics.mixture_files import MixtureFiles, ModelFile, build_classes
from cryohydra.physics.symmetry import symmetry_of

CENTRE = torch.tensor([5.0, -3.0, 8.0])
RESIDUES = torch.arange(40)
THIRD = rotation_vector_to_matrix(torch.tensor([0.0, 0.0, 2 * math.pi / 3]))


@pytest.fixture
def chain() -> Tensor:
    """Positions about the centre."""
    steps = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return 3 * steps.cumsum(0) + torch.tensor([40.0, 0.0, 10.0])


def ring(chain: Tensor) -> list[Trace]:
    turns = [THIRD @ THIRD, torch.eye(3), THIRD]
    return [Trace(RESIDUES, chain @ turn.T + CENTRE) for turn in turns]


def test_a_ring_of_three_has_three_rotations(chain: Tensor) -> None:
    # Residues that the model lacks in one copy do not matter.
    ring_of_three = ring(chain)
    ring_of_three[1] = Trace(RESIDUES[4:], ring_of_three[1].positions_angstrom[4:])
    group = symmetry_of(ring_of_three, CENTRE)
    assert group.shape == (3, 3, 3)
    assert torch.equal(group[0], torch.eye(3))
    expected = torch.stack([torch.eye(3), THIRD, THIRD.T])
    angle = geodesic_angle(group[:, None].expand(3, 3, 3, 3), expected.expand(3, 3, 3, 3))
    assert float(angle.amin(1).max()) < 1e-3
    assert sorted(angle.argmin(1).tolist()) == [0, 1, 2]


def test_two_kinds_of_chains_must_both_have_copies(chain: Tensor) -> None:
    others = [Trace(RESIDUES[:20], trace.positions_angstrom[:20] * 0.5 + CENTRE * 0.5) for trace in ring(chain)]
    assert len(symmetry_of(ring(chain) + others, CENTRE)) == 3
    assert len(symmetry_of(ring(chain) + others[:1], CENTRE)) == 1


def test_copies_that_lie_askew_are_no_symmetry(chain: Tensor) -> None:
    askew = ring(chain)
    askew[2] = Trace(RESIDUES, askew[2].positions_angstrom + torch.tensor([0.0, 0.0, 10.0]))
    assert len(symmetry_of(askew, CENTRE)) == 1
    assert len(symmetry_of([], CENTRE)) == 1


def test_a_model_file_gives_a_class_its_symmetry(chain: Tensor, tmp_path: Path) -> None:
    """Three copies of a chain, one with a phosphate ion that has a number and an atom P of its own."""
    lines = []
    for name, trace in zip("ABC", ring(chain), strict=True):
        for number, (x, y, z) in enumerate(trace.positions_angstrom.tolist(), start=1):
            at = f"{x:8.3f}{y:8.3f}{z:8.3f}"
            lines.append(f"ATOM  {len(lines) + 1:5d}  CA  ALA {name}{number:4d}    {at}  1.00  0.00           C")
    lines.append("HETATM  900  P   PO4 A 900       0.000   0.000   0.000  1.00  0.00           P")
    path = tmp_path / "ring.pdb"
    path.write_text("\n".join([*lines, "END"]))
    (found,) = build_classes(MixtureFiles((ModelFile(path),), {}, None, 64, 6.0))
    assert found.symmetry is not None and len(found.symmetry) == 3
