"""The classes of a simulated mixture: a density, or several along a motion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.errors import InputMismatch, UserError
from cryohydra.geometry.rotations import rotation_vector_to_matrix
from cryohydra.physics.atoms import Atoms, density


@dataclass(frozen=True)
class MixtureClass:
    """One kind of particle."""

    name: str
    maps: Float[Tensor, "m d d d"]
    """Densities along its motion, [z, y, x]; one for a rigid class. Density is positive."""
    coordinate: Float[Tensor, "m"]
    """Where on its motion each map is; zero for a rigid class."""
    share: float = 1.0
    """Of the particles, relative to those of the other classes."""
    symmetry: Float[Tensor, "g 3 3"] | None = None
    """Rotations that leave the map as it is, acting on columns; None if none but the identity is known."""
    pseudo_symmetry: Float[Tensor, "h 3 3"] | None = None
    """The larger group of rotations that leave it nearly as it is, so that low frequencies do not tell them apart."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share > 0):
            raise UserError(f"Class {self.name} has a share of {self.share:g}; every share must be above zero.")

    @property
    def box_size(self) -> int:
        return self.maps.shape[-1]

    @property
    def has_motion(self) -> bool:
        return len(self.maps) > 1

    @property
    def middle_map(self) -> Float[Tensor, "d d d"]:
        """The map half-way along the motion."""
        return self.maps[len(self.maps) // 2]

    def with_share(self, share: float) -> "MixtureClass":
        """The same class with another share."""
        return replace(self, share=share)


def rigid_class(name: str, map_zyx: Float[Tensor, "d d d"], share: float = 1.0) -> MixtureClass:
    """A class that does not move."""
    return MixtureClass(name, map_zyx[None], torch.zeros(1), share)


def class_of_atoms(
    name: str, frames: Sequence[Atoms], box_size: int, pixel_size_angstrom: float, resolution_angstrom: float
) -> MixtureClass:
    """A class from atomic models along a motion, in one frame; the middle one is centred.

    The coordinate goes from 0 to 1 in equal steps.
    """
    centre = frames[len(frames) // 2].centre_angstrom
    maps = [density(atoms, box_size, pixel_size_angstrom, resolution_angstrom, centre) for atoms in frames]
    coordinate = torch.linspace(0, 1, len(frames)) if len(frames) > 1 else torch.zeros(1)
    return MixtureClass(name, torch.stack(maps), coordinate)


def turning_class(
    name: str,
    still: Atoms,
    turning: Atoms,
    angles: Float[Tensor, "m"],
    box_size: int,
    pixel_size_angstrom: float,
    resolution_angstrom: float,
    axis: Float[Tensor, "3"] | None = None,
) -> MixtureClass:
    """A class of two parts of which one turns; the coordinate is the angle in degrees.

    Args:
        angles: Radians from the position in the model.
        axis: Through the centre of the turning part; None for the line through the centres of both parts.
    """
    direction = turning.centre_angstrom - still.centre_angstrom if axis is None else axis
    unit = direction / direction.norm()
    frames = [
        Atoms.concatenate([still, turning.turned(rotation_vector_to_matrix(unit * angle), turning.centre_angstrom)])
        for angle in angles
    ]
    moving = class_of_atoms(name, frames, box_size, pixel_size_angstrom, resolution_angstrom)
    return replace(moving, coordinate=torch.rad2deg(angles).float())


def morph(start: Atoms, end: Atoms, num_frames: int) -> tuple[Atoms, ...]:
    """Models on the straight line between two, whose atoms correspond.

    Raises:
        InputMismatch: If the models do not have the same number of atoms.
    """
    if len(start) != len(end):
        raise InputMismatch(
            f"The models at the two ends of a motion have {len(start)} and {len(end)} atoms; "
            "to go from one to the other they must have the same atoms in the same order."
        )
    return tuple(
        Atoms(start.positions_angstrom + fraction * (end.positions_angstrom - start.positions_angstrom), start.weights)
        for fraction in torch.linspace(0, 1, num_frames)
    )
