"""Images of particles as a page can show them."""

import numpy as np
import torch
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.source import ParticleSource
from cryohydra.fourier.hartley import hartley_to_image, image_to_hartley

MOST_IMAGES = 64
_LARGEST_BOX = 160
_CONTRAST = 2.5
"""Standard deviations from the mean to black and to white."""


def picture_particles(
    source: ParticleSource, index: Int[np.ndarray, "b"], smoothing_px: float
) -> UInt8[np.ndarray, "b d d"]:
    """Grey values 0 to 255 of particles, bright where density is; of tilt series the first tilt.

    Args:
        smoothing_px: Width of a Gaussian, in pixels of the image, that takes noise away.
    """
    images = _shrink(source.images(torch.from_numpy(index))[:, 0])
    factor = images.shape[-1] / source.box_size
    smooth = gaussian_filter(images.numpy(), (0, smoothing_px * factor, smoothing_px * factor))
    centred = smooth - smooth.mean(axis=(1, 2), keepdims=True)
    # Particles come dark on white; people look for bright ones.
    scaled = -centred / centred.std(axis=(1, 2), keepdims=True) / _CONTRAST
    return (127.5 * (1 + scaled)).clip(0, 255).astype(np.uint8)


def _shrink(images: Float[Tensor, "b d d"]) -> Float[Tensor, "b n n"]:
    """The low frequencies of large images, in fewer pixels."""
    full = images.shape[-1]
    if full <= _LARGEST_BOX:
        return images
    first = full // 2 - _LARGEST_BOX // 2
    kept = slice(first, first + _LARGEST_BOX)
    hartley = image_to_hartley(images)[:, kept, kept].clone()
    # The edge at -n/2 has no partner at +n/2 and would mix directions.
    hartley[:, 0], hartley[:, :, 0] = 0, 0
    return hartley_to_image(hartley)
