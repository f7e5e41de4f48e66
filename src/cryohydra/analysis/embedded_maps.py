"""Maps small enough to travel inside a page: cropped, resampled, eight bits, compressed."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.maps import enlarge_map, shrink_map
from cryohydra.analysis.surfaces import half_width_above, shown_level

_SIZES = (64, 56, 48, 40, 32, 24, 16)
_MOST_BYTES = 8_000_000
"""Of all maps of a page together, before base64 makes them a third larger."""
_LEAST_HALF_WIDTH = 0.2
"""As a fraction of the box: less is never kept, since the box would have to be made very fine for it."""
_FLOOR = 0.35
"""Of the level shown first: what lies below is solvent, and flattened. No lower level can be shown."""


@dataclass(frozen=True)
class PackedSeries:
    """Maps of one class: it alone, along a motion, or its states."""

    name: str
    """To choose it by; the same in all classes that have such a series."""
    labels: tuple[str, ...]
    """Of its maps, where each has something to be said of; none otherwise."""
    count: int
    payload: str
    """Base64 of gzip of a byte for each voxel: map after map, z slowest, x fastest."""


@dataclass(frozen=True)
class PackedScale:
    """What the bytes of all maps of a page mean."""

    size: int
    """Voxels to a side."""
    whole_size: int
    """Such voxels to a side of the whole box; even."""
    voxel_angstrom: float
    level: float
    """To be shown first, in the units of the maps."""
    lowest: float
    """Density of byte 0 and of anything less."""
    highest: float
    """Density of byte 255."""


def choose_scale(densities: Sequence[Float[Tensor, "d d d"]], num_maps: int, box_angstrom: float) -> PackedScale:
    """One scale for all maps of a page, as fine as its size allows.

    Args:
        densities: One of each class.
        num_maps: How many there will be.
        box_angstrom: Side of the box.
    """
    # A map of nothing has no level, but a page that can be opened.
    level = max(shown_level(densities), 1e-12)
    half_width = max(_LEAST_HALF_WIDTH, half_width_above(densities, level))
    highest = max(2 * level, *(float(density.max()) for density in densities))

    def scale_of(size: int) -> PackedScale:
        whole_size = 2 * round(size / (2 * half_width) / 2)
        return PackedScale(size, whole_size, box_angstrom / whole_size, level, _FLOOR * level, highest)

    for size in _SIZES:
        scale = scale_of(size)
        if (
            num_maps * max(len(_compress([crop_map(density, scale)], scale)) for density in densities[:3])
            <= _MOST_BYTES
        ):
            break
    return scale


def pack_series(
    name: str, cropped: Sequence[Float[Tensor, "n n n"]], scale: PackedScale, labels: tuple[str, ...] = ()
) -> PackedSeries:
    """Pack maps of one class, as `crop_map` gives them."""
    payload = base64.b64encode(_compress(cropped, scale)).decode("ascii")
    return PackedSeries(name, labels, len(cropped), payload)


def _compress(cropped: Sequence[Float[Tensor, "n n n"]], scale: PackedScale) -> bytes:
    levels = [_to_bytes(density, scale) for density in cropped]
    return gzip.compress(np.stack(levels).tobytes(), 9, mtime=0)


def crop_map(density: Float[Tensor, "d d d"], scale: PackedScale) -> Float[Tensor, "n n n"]:
    """The middle of a map on the voxels of a page; voxel n//2 of each axis is the map's centre."""
    whole = enlarge_map(shrink_map(density, scale.whole_size), scale.whole_size)
    first = scale.whole_size // 2 - scale.size // 2
    return whole[(slice(first, first + scale.size),) * 3]


def _to_bytes(density: Float[Tensor, "n n n"], scale: PackedScale) -> np.ndarray:
    share = (density - scale.lowest) / (scale.highest - scale.lowest)
    return (255 * share).round().clamp(0, 255).to(torch.uint8).numpy()
