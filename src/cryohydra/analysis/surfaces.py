"""Iso-surfaces: the level at which to look at maps, and pictures of them that need no graphics card."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.nn.functional import grid_sample, interpolate

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.maps import SHOWN_BOX_SIZE, shrink_map

PICTURE_SIZE = 256
"""Pixels to a side."""
_DEPTHS = 96
_LIGHT = (-0.35, 0.55, 0.76)
"""Where the light comes from: left, above, and from behind the viewer; of length one."""


def shown_level(densities: Sequence[Float[Tensor, "d d d"]]) -> float:
    """One level for several maps: the median of those that best part each into solvent and particle.

    In the units of the maps. What one level leaves of a class is weak, and should be seen to be.

    References:
        Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    return float(np.median([_parting_level(shrink_map(density, SHOWN_BOX_SIZE)) for density in densities]))


def _parting_level(density: Float[Tensor, "d d d"]) -> float:
    """The level between whose two sides the variance is largest."""
    count, edges = np.histogram(density.numpy(), 256)
    middle = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(count), np.cumsum(count * middle)
    between = (total[-1] * below / below[-1] - total) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(middle[between.argmax()])


def half_width_above(densities: Sequence[Float[Tensor, "d d d"]], level: float) -> float:
    """Half the side of the smallest cube around the centre that holds all density above a level.

    As a fraction of the box, at most one half.
    """
    widest = 0.0
    for density in densities:
        box_size = density.shape[-1]
        reach = (torch.nonzero(density > level) - box_size // 2).abs().max().item() if (density > level).any() else 0
        widest = max(widest, (reach + 1) / box_size)
    return min(0.5, widest)


def picture_surface(
    density: Float[Tensor, "d d d"], level: float, colour: str, half_width: float = 0.5, size: int = PICTURE_SIZE
) -> bytes:
    """An iso-surface seen along z, as ChimeraX first shows it: x to the right, y up. A PNG with clear background.

    Args:
        half_width: Half the side of what is shown, as a fraction of the box.
    """
    buffer = io.BytesIO()
    Image.fromarray(shade_surface(density, level, colour, half_width, size)).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def shade_surface(
    density: Float[Tensor, "d d d"], level: float, colour: str, half_width: float = 0.5, size: int = PICTURE_SIZE
) -> UInt8[np.ndarray, "size size 4"]:
    """The same as red, green, blue and opacity from 0 to 255."""
    spread = 2 * size  # drawn twice as fine and averaged, for smooth edges
    reach = 2 * half_width
    x = ((torch.arange(spread) + 0.5) / spread * 2 - 1) * reach
    y = -x
    depth = torch.linspace(1, -1, _DEPTHS)  # from the viewer on
    planes = _along(density.float(), depth * reach, dim=0)
    solid = _along(_along(planes, y, dim=1), x, dim=2)
    is_inside = solid > level
    hit = is_inside.any(0)
    first = is_inside.float().argmax(0).clamp(min=1)
    near, far = (solid.gather(0, (first - back)[None])[0] for back in (1, 0))
    step = ((level - near) / (far - near).clamp(min=1e-12)).clamp(0, 1)
    z = depth[first - 1] + step * (depth[first] - depth[first - 1])
    normal = _normal(density, torch.stack([x[None].expand_as(z), y[:, None].expand_as(z), z * reach], dim=-1))
    light = (normal * torch.tensor(_LIGHT)).sum(-1)
    facing = normal[..., 2].clamp(min=0)
    # Light from all sides, from one side, a little shine, and less of it all the deeper it lies.
    shade = (0.42 + 0.58 * light.clamp(min=0)) * (0.72 + 0.28 * (z + 1) / 2) * (0.8 + 0.2 * facing)
    shine = 0.16 * light.clamp(min=0) ** 24
    paint = torch.tensor([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    rgb = (paint * shade[..., None] + shine[..., None]).clamp(0, 1) * hit[..., None]
    fine = torch.cat([rgb, hit[..., None].float()], dim=-1).movedim(-1, 0)[None]
    mean = interpolate(fine, size=size, mode="area")[0].movedim(0, -1)
    opacity = mean[..., 3:]
    straight = torch.cat([mean[..., :3] / opacity.clamp(min=1e-6), opacity], dim=-1)
    return (255 * straight).round().to(torch.uint8).numpy()


def _along(density: Float[Tensor, "z y x"], position: Float[Tensor, "m"], dim: int) -> Float[Tensor, "_ _ _"]:
    """Densities at positions along one axis, from -1 to 1 across the box, 0 at index D//2, interpolated linearly."""
    box_size = density.shape[dim]
    place = (position * box_size / 2 + box_size // 2).clamp(0, box_size - 1.001)
    low = place.floor().long()
    share = (place - low).reshape([-1 if axis == dim else 1 for axis in range(3)])
    return torch.lerp(density.index_select(dim, low), density.index_select(dim, low + 1), share)


def _sample(density: Float[Tensor, "d d d"], points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p"]:
    """Densities at points (x, y, z), in the same measure."""
    box_size = density.shape[-1]
    # As `grid_sample` counts, -1 and 1 are at index 0 and D-1, so the centre is half a pixel off there.
    place = (points * box_size + 1) / (box_size - 1)
    return grid_sample(density[None, None].float(), place.reshape(1, -1, 1, 1, 3), align_corners=True).reshape(
        points.shape[:-1]
    )


def _normal(density: Float[Tensor, "d d d"], points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
    """Directions in which density falls."""
    step = 2 / density.shape[-1]
    slope = [_sample(density, points - along) - _sample(density, points + along) for along in step * torch.eye(3)]
    normal = torch.stack(slope, dim=-1)
    return normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-12)
