"""How far shifts have to be searched, learned from those found."""

from cryohydra._typing import Float, Tensor

_REACH = 3.0
"""Standard deviations along each axis: 99 % of a normal spread in the plane lie within."""


def mean_square_shift(shift_px: Float[Tensor, "*batch 2"], centre_px: tuple[float, float]) -> Float[Tensor, ""]:
    """Mean squared distance of shifts from a centre, in square pixels."""
    return (shift_px - shift_px.new_tensor(centre_px)).square().sum(-1).mean()


def reach_of_shifts(mean_square_px: float, step_px: float, extent_px: float) -> float:
    """Radius of the disc to search: three standard deviations of what was found and half a step, if so much is allowed.

    While maps know nothing, shifts are found all over the disc allowed, and the reach is all of it.

    Args:
        mean_square_px: Of the distance from the centre.
        step_px: Of the grid searched.
        extent_px: The most allowed.
    """
    return min(extent_px, _REACH * (mean_square_px / 2) ** 0.5 + step_px / 2)
