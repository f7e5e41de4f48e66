"""How far particles lie from the centres of their images: p(s) of eq. 2, learned from the posterior."""

from dataclasses import dataclass, replace

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.geometry.shift_grid import shift_grid

_REACH = 3.0
"""Standard deviations along each axis: 99 % of a normal spread in the plane lie within."""
_LEAST_SQUARE_PX = 1e-6


@dataclass(frozen=True)
class ShiftPrior:
    """A normal spread around a centre, within a disc."""

    mean_square_px: float
    """Of the distance from the centre, in square pixels."""
    extent_px: float
    """Radius of the disc; zero if nothing is shifted."""
    centre_px: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def uninformed(cls, extent_px: float, centre_px: tuple[float, float] = (0.0, 0.0)) -> "ShiftPrior":
        """As wide as the disc: while maps know nothing, shifts are found all over it."""
        return cls(extent_px**2, extent_px, centre_px)

    def learned(self, mean_square_px: float) -> "ShiftPrior":
        """The same around another spread."""
        return replace(self, mean_square_px=mean_square_px)

    def grid(self, step_px: float) -> Float[Tensor, "s 2"]:
        """The shifts to search: three standard deviations and half a step, if the disc is as wide."""
        reach = min(self.extent_px, _REACH * (self.mean_square_px / 2) ** 0.5 + step_px / 2)
        return shift_grid(reach, step_px, self.centre_px)

    def within(self, shift_px: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Shifts drawn to the edge of the disc where they lie beyond it."""
        beyond = (self.square_distance(shift_px).sqrt() / max(self.extent_px, 1e-20)).clamp(min=1)[..., None]
        centre = torch.tensor(self.centre_px, device=shift_px.device)
        return centre + (shift_px - centre) / beyond

    def square_distance(self, shift_px: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Of shifts from the centre, in square pixels."""
        (x, y), (centre_x, centre_y) = shift_px.unbind(-1), self.centre_px
        return (x - centre_x).square() + (y - centre_y).square()

    def log_density(self, shift_px: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Log of the density of shifts over that at the centre."""
        return -self.square_distance(shift_px) / max(self.mean_square_px, _LEAST_SQUARE_PX)

    def log_probability(self, grid: Float[Tensor, "s 2"]) -> Float[Tensor, "s"]:
        """Log probability of each shift of a grid; they sum to one."""
        return torch.log_softmax(self.log_density(grid), dim=0)
