"""Make src/cryohydra/assets/demo_structures/*.npz from public entries; needs their coordinate files.

python tools/distil_demo_structures.py FOLDER_OF_ENTRIES
"""

import sys
from fnmatch import fnmatchcase
from pathlib import Path

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

ASSETS = Path(__file__).resolve().parents[1] / "src/cryohydra/assets/demo_structures"
ENTRIES = {
    "4v5d": ("4v5d.cif.gz", {"tRNA": ["AV", "AW", "AY"], "30S": ["A*"], "50S": ["B*"]}),
    "3jb9": ("3jb9.cif.gz", {"spliceosome": ["*"]}),
    "6z6u": ("6z6u.pdb.gz", {"apoferritin": ["*"]}),
    "4v8r": ("pdb4v8r_hex.pdb.gz", {"TRiC": ["A*"]}),
    "1ake": ("1ake.pdb.gz", {"closed": ["A"]}),
    "4ake": ("4ake.pdb.gz", {"open": ["A"]}),
}
# The part of adenylate kinase that does not move.
CORE = [*range(1, 30), *range(60, 122), *range(160, 215)]


def trace(path: Path, parts: dict[str, list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """C-alpha and P positions, electrons of each residue, its part, and the positions of each chain."""
    structure = gemmi.read_structure(str(path))
    structure.remove_waters()
    structure.remove_hydrogens()
    structure.remove_alternative_conformations()
    positions, electrons, part_of, chains = [], [], [], []
    for chain in structure[0]:
        part = [i for i, patterns in enumerate(parts.values()) if any(fnmatchcase(chain.name, p) for p in patterns)]
        if not part:
            continue
        first = len(positions)
        for residue in chain:
            anchor = [atom for atom in residue if (atom.name, atom.element.name) in (("CA", "C"), ("P", "P"))]
            if anchor:
                positions.append(anchor[0].pos.tolist())
                electrons.append(min(255, sum(atom.element.atomic_number for atom in residue)))
                part_of.append(part[0])
        chains.append(np.array(positions[first:]))
    return np.array(positions), np.array(electrons), np.array(part_of), chains


def superposition(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Rotation that acts on columns and takes centred `moving` to centred `fixed`."""
    u, _, vt = np.linalg.svd(fixed.T @ moving)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def symmetry(chains: list[np.ndarray], centre: np.ndarray) -> np.ndarray:
    """Rotations about the centre that take the first chain to its copies, with all others on others."""
    first = chains[0] - chains[0].mean(0)
    group = []
    for chain in chains:
        if len(chain) != len(first):
            continue
        rotation = superposition(first, chain - chain.mean(0))
        moved = (chains[0] - centre) @ rotation.T + centre
        if np.sqrt(((moved - chain) ** 2).sum(-1).mean()) < 1.5:
            group.append(rotation)
    return np.array(group)


def pseudo_dihedral(chains: list[np.ndarray], group: np.ndarray, order: int) -> np.ndarray:
    """The dihedral group of two stacked rings of like chains, which has the exact two-fold axis of `group`."""
    middles = np.array([chain.mean(0) for chain in chains])
    spread, axes = np.linalg.eigh(np.cov(middles.T))
    # Across a ring all directions are alike; its axis is the one that is not.
    ring_axis = axes[:, 0] if spread[1] - spread[0] > spread[2] - spread[1] else axes[:, 2]
    two_fold = Rotation.from_matrix(group[np.argmin(np.trace(group, axis1=1, axis2=2))])
    across = two_fold.as_rotvec() / np.pi
    ring_axis = ring_axis - ring_axis @ across * across
    ring_axis /= np.linalg.norm(ring_axis)
    turns = [Rotation.from_rotvec(ring_axis * 2 * np.pi * i / order) for i in range(order)]
    return np.array([turn.as_matrix() for turn in turns] + [(turn * two_fold).as_matrix() for turn in turns])


def main(folder: Path) -> None:
    found = {path.name: path for path in folder.rglob("*.gz")}
    reference = None
    for entry, (name, parts) in ENTRIES.items():
        positions, electrons, part_of, chains = trace(found[name], parts)
        if entry == "1ake":
            reference = positions
        if entry == "4ake":
            core = np.array(CORE) - 1
            middle = positions[core].mean(0)
            rotation = superposition(positions[core] - middle, reference[core] - reference[core].mean(0))
            positions = (positions - middle) @ rotation.T + reference[core].mean(0)
        centre = (positions * electrons[:, None]).sum(0) / electrons.sum()
        if entry in ("1ake", "4ake"):
            centre = reference.mean(0)
        group = symmetry(chains, centre) if entry in ("6z6u", "4v8r") else np.eye(3)[None]
        # Eight different subunits in a ring, alike at low resolution.
        pseudo = pseudo_dihedral(chains, group, 8) if entry == "4v8r" else group
        np.savez_compressed(
            ASSETS / f"{entry}.npz",
            position_tenth_angstrom=np.round((positions - centre) * 10).astype(np.int16),
            electrons=electrons.astype(np.uint8),
            part=part_of.astype(np.uint8),
            part_names=np.array(list(parts)),
            symmetry=group.astype(np.float32),
            pseudo_symmetry=pseudo.astype(np.float32),
        )
        size = (ASSETS / f"{entry}.npz").stat().st_size
        print(
            entry, len(positions), f"{electrons.sum() / 0.54 / 1000:.0f} kDa", f"group of {len(group)}", f"{size} bytes"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
