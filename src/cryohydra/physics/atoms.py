"""Atomic models and the densities they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import gemmi
import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.errors import UnreadableFile, UserError

_SUPERSAMPLING = 2
_OF_A_TRACE = (("CA", "C"), ("P", "P"))
"""Names of atoms and elements."""


@dataclass(frozen=True)
class Atoms:
    """Points that scatter."""

    positions_angstrom: Float[Tensor, "n 3"]
    """(x, y, z), in the frame of the file they came from."""
    weights: Float[Tensor, "n"]
    """Number of electrons of each."""

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def centre_angstrom(self) -> Float[Tensor, "3"]:
        """Centre of mass."""
        return (self.weights[:, None] * self.positions_angstrom).sum(0) / self.weights.sum()

    @classmethod
    def concatenate(cls, parts: Sequence["Atoms"]) -> "Atoms":
        """All atoms of several models in one frame."""
        return cls(torch.cat([part.positions_angstrom for part in parts]), torch.cat([part.weights for part in parts]))

    def turned(self, rotation: Float[Tensor, "3 3"], about_angstrom: Float[Tensor, "3"]) -> "Atoms":
        """The same atoms after a rotation, which acts on columns, about a point."""
        moved = (self.positions_angstrom - about_angstrom) @ rotation.T + about_angstrom
        return Atoms(moved, self.weights)


def read_atoms(path: Path, chains: Sequence[str] | None = None, assembly: str | None = None) -> Atoms:
    """Read the first model of a PDB or mmCIF file, gzipped or not, without hydrogens and water.

    Args:
        chains: Names of the chains to keep; `A*` stands for all whose name begins with A. None keeps all.
        assembly: Name of the biological assembly to build (BIOMT), usually "1". None keeps the file as it is.

    Raises:
        UnreadableFile: If the file cannot be read.
        UserError: If nothing in the file matches.
    """
    model = _read_model(path, assembly)
    kept = [chain for chain in model if _is_wanted(chain.name, chains)]
    atoms = [atom for chain in kept for residue in chain for atom in residue]
    if not atoms:
        wanted = "any atom" if chains is None else f"chains {', '.join(chains)}"
        names = ", ".join(dict.fromkeys(chain.name for chain in model)) or "none"
        raise UserError(f"{path} does not hold {wanted}; its chains are {names}.")
    positions = torch.tensor([atom.pos.tolist() for atom in atoms])
    weights = torch.tensor([float(atom.element.atomic_number) * atom.occ for atom in atoms])
    return Atoms(positions, weights)


def chain_names(path: Path, chains: Sequence[str] | None = None, assembly: str | None = None) -> tuple[str, ...]:
    """Names of the chains that `read_atoms` would take, each once."""
    model = _read_model(path, assembly)
    return tuple(dict.fromkeys(chain.name for chain in model if _is_wanted(chain.name, chains)))


@dataclass(frozen=True)
class Trace:
    """The course of a chain: C-alpha of its amino acids, P of its nucleotides."""

    residue: Int[Tensor, "n"]
    """Numbers in the file."""
    positions_angstrom: Float[Tensor, "n 3"]


def read_traces(path: Path, chains: Sequence[str] | None = None, assembly: str | None = None) -> list[Trace]:
    """The courses of the chains that `read_atoms` would take, of those that have one."""
    traces = []
    for chain in _read_model(path, assembly):
        if not _is_wanted(chain.name, chains):
            continue
        found = {
            residue.seqid.num: atom.pos.tolist()
            for residue in chain
            if residue.entity_type == gemmi.EntityType.Polymer
            for atom in residue
            if (atom.name, atom.element.name) in _OF_A_TRACE
        }
        if found:
            traces.append(Trace(torch.tensor(list(found)), torch.tensor(list(found.values()))))
    return traces


def _is_wanted(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def _read_model(path: Path, assembly: str | None) -> gemmi.Model:
    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise UnreadableFile(f"{path} cannot be read as an atomic model (PDB or mmCIF): {error}.") from error
    structure.remove_waters()
    structure.remove_hydrogens()
    structure.remove_alternative_conformations()
    structure.setup_entities()
    if len(structure) == 0:
        raise UnreadableFile(f"{path} holds no atomic model; a PDB or mmCIF file is wanted.")
    return structure[0] if assembly is None else _built_assembly(structure, assembly, path)


def _built_assembly(structure: gemmi.Structure, name: str, path: Path) -> gemmi.Model:
    found = [assembly for assembly in structure.assemblies if assembly.name == name]
    if not found:
        names = ", ".join(assembly.name for assembly in structure.assemblies) or "none"
        raise UserError(f"{path} describes no assembly '{name}'; it has {names}.")
    return gemmi.make_assembly(found[0], structure[0], gemmi.HowToNameCopiedChain.Dup)


def density(
    atoms: Atoms,
    box_size: int,
    pixel_size_angstrom: float,
    resolution_angstrom: float,
    centre_angstrom: Float[Tensor, "3"] | None = None,
) -> Float[Tensor, "d d d"]:
    """Density of atoms as equal Gaussians; its sum over voxels is the sum of the weights.

    The transform of a Gaussian falls to 1/e at 1/resolution. Nothing is left at and beyond Nyquist.

    Args:
        centre_angstrom: What comes to lie at the centre of the box, index D//2; None for the centre of mass.

    Raises:
        UserError: If the model does not fit into the box.
    """
    centre = atoms.centre_angstrom if centre_angstrom is None else centre_angstrom
    relative_px = (atoms.positions_angstrom - centre) / pixel_size_angstrom
    reach = float(relative_px.norm(dim=-1).max())
    if reach > box_size / 2 - 1:
        wanted = 2 * math.ceil(reach + 2)
        raise UserError(
            f"A model reaches {reach * pixel_size_angstrom:.0f} A from its centre, but a box of {box_size} pixels of "
            f"{pixel_size_angstrom:g} A holds {(box_size / 2 - 1) * pixel_size_angstrom:.0f} A. "
            f"Take larger pixels, or a box of at least {wanted} pixels."
        )
    size = _SUPERSAMPLING * box_size
    fine = _splat(relative_px * _SUPERSAMPLING + size // 2, atoms.weights, size)
    fourier = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(fine)))
    margin = (size - box_size) // 2
    inner = slice(margin, margin + box_size)
    frequency = (torch.arange(box_size) - box_size // 2) / box_size  # cycles per pixel of the box
    square = frequency[:, None, None].square() + frequency[:, None].square() + frequency.square()
    envelope = torch.exp(-square * (resolution_angstrom / pixel_size_angstrom) ** 2) * (square < 0.25)
    # Undo the triangle over which each atom was spread.
    triangle = torch.sinc(frequency / _SUPERSAMPLING).square()
    envelope = envelope / (triangle[:, None, None] * triangle[:, None] * triangle)
    cropped = fourier[inner, inner, inner] * envelope
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(cropped)).real)


def _splat(positions_px: Float[Tensor, "n 3"], weights: Float[Tensor, "n"], size: int) -> Float[Tensor, "d d d"]:
    """Share each weight among the eight voxels around its position, (x, y, z)."""
    first = positions_px.floor()
    rest = positions_px - first
    index = first.long()
    volume = torch.zeros(size**3)
    for corner in range(8):
        step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])
        x, y, z = ((index + step) % size).unbind(-1)
        share = torch.where(step.bool(), rest, 1 - rest).prod(-1)
        volume.index_add_(0, (z * size + y) * size + x, weights * share)
    return volume.reshape(size, size, size)
