"""Grids of in-plane shifts in pixels, order (x, y)."""

import torch

from cryohydra._typing import Float, Tensor


def shift_grid(extent_px: float, step_px: float, centre_px: tuple[float, float] = (0.0, 0.0)) -> Float[Tensor, "s 2"]:
    """Shifts within a disc of radius `extent_px` around a centre, on a square grid through it.

    Always holds the centre itself: an extent of zero gives one shift.
    """
    assert step_px > 0
    steps = int(extent_px / step_px + 1e-6)
    axis = torch.arange(-steps, steps + 1, dtype=torch.float32) * step_px
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x.flatten(), y.flatten()], dim=-1)
    inside = grid.norm(dim=-1) <= extent_px + 1e-6
    return grid[inside] + torch.tensor(centre_px)
