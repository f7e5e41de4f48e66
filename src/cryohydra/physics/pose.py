"""Where a density is in an image."""

from dataclasses import dataclass

from cryohydra._typing import Float, Tensor


@dataclass(frozen=True)
class Pose:
    """How a density is rotated, then shifted, to give an image."""

    rotation: Float[Tensor, "b t k 3 3"]
    """Acts on lattice rows: the slice of frequency f is the volume at f @ rotation."""
    shift_px: Float[Tensor, "b t k 2"]
    """Where the particle is, (x, y), from the centre: minus the shift that files hold."""
