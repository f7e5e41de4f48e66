"""Maps on other voxels, images on larger pixels."""

import math

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.gridding import FourierSampler


def crop_images(images: Float[Tensor, "*batch d d"], box_size: int) -> Float[Tensor, "*batch n n"]:
    """The same field of view on fewer pixels, the centre at index D//2; white noise keeps its variance per pixel.

    Only the frequencies below the new Nyquist frequency are kept. A constant is multiplied by d / box_size.

    Args:
        box_size: Even, at most d; images of that size come back as they are.
    """
    old = images.shape[-1]
    assert old % 2 == 0 and box_size % 2 == 0 and box_size <= old
    if box_size == old:
        return images
    half = box_size // 2
    # Columns of the transform that are cut off need no second pass.
    fourier = torch.fft.fft(torch.fft.rfft(images, norm="ortho")[..., :half], dim=-2, norm="ortho")
    cropped = fourier.new_zeros(*images.shape[:-2], box_size, half + 1)
    cropped[..., :half, :half] = fourier[..., :half, :]
    cropped[..., half + 1 :, :half] = fourier[..., old - half + 1 :, :]
    return torch.fft.irfft2(cropped, s=(box_size, box_size), norm="ortho")


def resample_map(
    map_zyx: Float[Tensor, "n n n"], pixel_size_angstrom: float, box_size: int, new_pixel_size_angstrom: float
) -> Float[Tensor, "d d d"]:
    """The same density in a box of other size and voxels, the centre at index D//2; the sum over voxels stays.

    What lies outside the new box is folded into it. Frequencies that either cannot hold are left empty.
    """
    if map_zyx.shape[-1] == box_size and math.isclose(pixel_size_angstrom, new_pixel_size_angstrom, rel_tol=1e-4):
        return map_zyx
    full, half = torch.fft.fftfreq(box_size), torch.fft.rfftfreq(box_size)
    z, y, x = torch.meshgrid(full, full, half, indexing="ij")
    grid = torch.stack([x, y, z], dim=-1)
    in_old = grid * (pixel_size_angstrom / new_pixel_size_angstrom)
    inside = (grid.norm(dim=-1) < 0.5 - 1e-6) & (in_old.norm(dim=-1) < 0.5 - 1e-6)
    values = FourierSampler(map_zyx.float()).at(in_old[inside])
    fourier = torch.zeros(inside.shape, dtype=values.dtype)
    fourier[inside] = values
    return torch.fft.fftshift(torch.fft.irfftn(fourier, s=(box_size,) * 3))
