"""The Hartley transform: real numbers in, real numbers out, centre at index D//2.

H(f) = Re F(f) - Im F(f), with F the Fourier transform. Images are scaled so that white noise keeps
its variance; volumes so that a central slice of the volume is the transform of its projection.
"""

import math

import torch

from cryohydra._typing import Float, Tensor

_IMAGE = (-2, -1)
_VOLUME = (-3, -2, -1)


def image_to_hartley(image: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    """Transform images; noise of variance v per pixel has variance v per frequency."""
    return _hartley(image, _IMAGE) / image.shape[-1]


def hartley_to_image(hartley: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    """Undo `image_to_hartley`, which is its own inverse."""
    return _hartley(hartley, _IMAGE) / hartley.shape[-1]


def volume_to_hartley(volume: Float[Tensor, "*batch d d d"]) -> Float[Tensor, "*batch d d d"]:
    """Transform volumes; the slice kz = 0 is `image_to_hartley` of the projection along z."""
    return _hartley(volume, _VOLUME) / volume.shape[-1]


def hartley_to_volume(hartley: Float[Tensor, "*batch d d d"]) -> Float[Tensor, "*batch d d d"]:
    """Undo `volume_to_hartley`."""
    return _hartley(hartley, _VOLUME) / hartley.shape[-1] ** 2


def _hartley(array: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Centred and not scaled; odd sizes are symmetric about zero, even ones hold -D/2 but not D/2."""
    fourier = torch.fft.fftn(torch.fft.ifftshift(array, dim=dims), dim=dims)
    return torch.fft.fftshift(fourier.real - fourier.imag, dim=dims)


def shift_hartley(
    hartley: Float[Tensor, "*#batch p"], frequencies: Float[Tensor, "p 2"], shift_px: Float[Tensor, "*#batch 2"]
) -> Float[Tensor, "*_ p"]:
    """Move images by `shift_px`: cos(2 pi f.t) H(f) + sin(2 pi f.t) H(-f).

    Args:
        hartley: On points ordered so that reversing them negates every frequency, as a `Band` orders them.
        frequencies: Cycles per pixel, (x, y).
        shift_px: Where the centre goes, (x, y). Leading axes broadcast.
    """
    phase = 2 * math.pi * (shift_px @ frequencies.T)
    return phase.cos() * hartley + phase.sin() * hartley.flip(-1)
