"""Where a density is in an image."""

from dataclasses import dataclass

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.alignment import Alignment


@dataclass(frozen=True)
class Pose:
    """How a density is rotated, then shifted, to give an image."""

    rotation: Float[Tensor, "b t k 3 3"]
    """Acts on lattice rows: the slice of frequency f is the volume at f @ rotation."""
    shift_px: Float[Tensor, "b t k 2"]
    """Where the particle is, (x, y), from the centre: minus the shift that files hold."""


def follow_map(pose: Pose, alignment: Alignment) -> Pose:
    """The poses in which the aligned map gives the same images as the moving map did in those given.

    A mirrored map gives the images of the first seen from behind: half a turn about the beam goes before the rotation.
    """
    rotation = pose.rotation
    if alignment.is_mirrored:
        rotation = rotation.new_tensor([-1.0, -1.0, 1.0])[:, None] * rotation
    rotation = rotation @ alignment.rotation.to(rotation).mT
    # Where the shift of the map falls in the image.
    moved = rotation[..., :2, :] @ alignment.shift_px.to(rotation)
    return Pose(rotation, pose.shift_px - moved)
