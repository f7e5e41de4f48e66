"""The structures that the package carries, and mixtures made of them."""

from importlib.resources import as_file, files

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.errors import UnknownSetting
from cryohydra.physics.atoms import Atoms
from cryohydra.physics.mixture_classes import MixtureClass, class_of_atoms, morph, turning_class

ENTRIES = ("1ake", "3jb9", "4ake", "4v5d", "4v8r", "6z6u")
DEMO_CLASSES = ("ribosome", "spliceosome", "tric", "large_subunit", "apoferritin", "adenylate_kinase")
"""What `demo_class` makes: the ribosome ratchets and adenylate kinase closes, the others are rigid."""
RATCHET_DEGREES = 10.0


def read_entry(entry: str, parts: tuple[str, ...] | None = None) -> Atoms:
    """Residues of an entry, each one point with its electrons.

    Args:
        parts: Names of the parts to take, such as `("50S",)` of 4v5d; None for all.
    """
    with as_file(files("cryohydra") / "assets" / "demo_structures" / f"{entry}.npz") as path:
        with np.load(path, allow_pickle=False) as stored:
            names = [str(name) for name in stored["part_names"]]
            keep = np.isin(stored["part"], [names.index(name) for name in (parts or names)])
            positions = stored["position_tenth_angstrom"][keep].astype(np.float32) / 10
            electrons = stored["electrons"][keep].astype(np.float32)
    return Atoms(torch.from_numpy(positions), torch.from_numpy(electrons))


def entry_symmetry(entry: str) -> Float[Tensor, "g 3 3"]:
    """Rotations about the origin, acting on columns, that leave an entry as it is."""
    with as_file(files("cryohydra") / "assets" / "demo_structures" / f"{entry}.npz") as path:
        with np.load(path, allow_pickle=False) as stored:
            return torch.from_numpy(stored["symmetry"])


def entry_pseudo_symmetry(entry: str) -> Float[Tensor, "g 3 3"]:
    """The same, with those that leave it nearly as it is: D8 of TRiC, whose eight subunits are much alike."""
    with as_file(files("cryohydra") / "assets" / "demo_structures" / f"{entry}.npz") as path:
        with np.load(path, allow_pickle=False) as stored:
            return torch.from_numpy(stored["pseudo_symmetry"])


def demo_class(
    name: str,
    box_size: int,
    pixel_size_angstrom: float,
    resolution_angstrom: float | None = None,
    num_frames: int = 21,
    share: float = 1.0,
) -> MixtureClass:
    """One of `DEMO_CLASSES`.

    Args:
        resolution_angstrom: None for three pixels.
        num_frames: Maps along the motion of a class that moves; 1 keeps it rigid, in its middle.

    Raises:
        UnknownSetting: If there is no class of this name.
    """
    resolution = 3 * pixel_size_angstrom if resolution_angstrom is None else resolution_angstrom
    if name == "ribosome":
        still, turning = read_entry("4v5d", ("50S", "tRNA")), read_entry("4v5d", ("30S",))
        largest = RATCHET_DEGREES if num_frames > 1 else 0.0
        angles = torch.deg2rad(torch.linspace(-largest, largest, num_frames))
        return turning_class(name, still, turning, angles, box_size, pixel_size_angstrom, resolution).with_share(share)
    if name == "adenylate_kinase":
        path = morph(read_entry("4ake"), read_entry("1ake"), max(num_frames, 3))
        frames = path if num_frames > 1 else path[1:2]
        return class_of_atoms(name, frames, box_size, pixel_size_angstrom, resolution).with_share(share)
    rigid = {
        "spliceosome": ("3jb9", None),
        "tric": ("4v8r", None),
        "large_subunit": ("4v5d", ("50S",)),
        "apoferritin": ("6z6u", None),
    }
    if name not in rigid:
        raise UnknownSetting(f"The package carries no structure '{name}'; it has {', '.join(DEMO_CLASSES)}.")
    entry, parts = rigid[name]
    made = class_of_atoms(name, [read_entry(entry, parts)], box_size, pixel_size_angstrom, resolution)
    symmetry, pseudo_symmetry = entry_symmetry(entry), entry_pseudo_symmetry(entry)
    return MixtureClass(
        name,
        made.maps,
        made.coordinate,
        share,
        symmetry if len(symmetry) > 1 else None,
        pseudo_symmetry if len(pseudo_symmetry) > len(symmetry) else None,
    )
