"""Grey pictures of densities, as PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.image
import numpy as np
import torch
from jaxtyping import Float

from cryohydra._typing import Tensor
from cryohydra.analysis.maps import SHOWN_BOX_SIZE, central_slices, projections, shrink_map


@dataclass(frozen=True)
class DensityPictures:
    """One density as a reader of the report sees it."""

    slices_png: bytes
    """Cuts through the centre, side by side."""
    projections_png: bytes
    """Sums along z, y, x, side by side."""


def picture_density(density: Float[Tensor, "d d d"]) -> DensityPictures:
    """Draw a density's central slices and projections."""
    small = shrink_map(density, SHOWN_BOX_SIZE)
    return DensityPictures(
        slices_png=_side_by_side_png([central_slices(small)])[0],
        projections_png=_side_by_side_png([projections(small)])[0],
    )


def picture_series(densities: Sequence[Float[Tensor, "d d d"]]) -> list[bytes]:
    """Draw the three projections of each of several densities, all on one scale of grey."""
    return _side_by_side_png([projections(shrink_map(density, SHOWN_BOX_SIZE)) for density in densities])


def picture_each(densities: Sequence[Float[Tensor, "d d d"]]) -> list[bytes]:
    """Draw the projection along z of each of several densities, all on one scale of grey."""
    return _side_by_side_png([shrink_map(density, SHOWN_BOX_SIZE).sum(0)[None] for density in densities])


def picture_motion(densities: Sequence[Float[Tensor, "d d d"]]) -> bytes:
    """Where the projections of a series differ: standard deviation over it, on a perceptually uniform scale."""
    shown = torch.stack([projections(shrink_map(density, SHOWN_BOX_SIZE)) for density in densities])
    spread = shown.std(dim=0, correction=0)
    return _to_png(_join(spread), 0.0, float(spread.max()), "inferno")


def picture_rows(rows: Sequence[Float[Tensor, "m d d"]]) -> bytes:
    """Draw rows of images under each other, each image on its own scale of grey around its median."""
    shown = []
    for images in rows:
        flat = images.flatten(1) - images.flatten(1).median(dim=1, keepdim=True).values
        reach = torch.quantile(flat.abs(), 0.997, dim=1, keepdim=True).clamp(min=1e-12)
        shown.append(_join((flat / reach).reshape(images.shape)))
    return _to_png(np.concatenate(shown[::-1]), -1.0, 1.0, "gray")


def _side_by_side_png(pictures: list[Tensor]) -> list[bytes]:
    joined = [_join(tiles) for tiles in pictures]
    low, high = np.percentile(np.stack(joined), [1, 99.8])
    return [_to_png(image, float(low), float(high), "gray") for image in joined]


def _join(tiles: Float[Tensor, "m d d"]) -> Float[np.ndarray, "d w"]:
    return torch.cat(list(tiles), dim=1).numpy()


def _to_png(image: Float[np.ndarray, "h w"], low: float, high: float, colour_map: str) -> bytes:
    buffer = io.BytesIO()
    top = high if high > low else low + 1
    # Row 0 of an MRC image is its lower edge by habit of the field's viewers.
    matplotlib.image.imsave(buffer, image, vmin=low, vmax=top, cmap=colour_map, format="png", origin="lower")
    return buffer.getvalue()
