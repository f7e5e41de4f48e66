"""Images on larger pixels."""

import math

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.resampling import crop_images


def waves(box_size: int) -> Float[Tensor, "2 d d"]:
    """One continuous picture of few waves, about the centre of the box, sampled on some pixels; and it turned."""
    axis = (torch.arange(box_size, dtype=torch.float64) - box_size // 2) / box_size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    picture = sum(
        weight * torch.cos(2 * math.pi * (kx * x + ky * y) + phase)
        for weight, kx, ky, phase in ((1.0, 0, 0, 0.0), (0.7, 3, -5, 0.4), (1.3, -7, 2, 1.1), (0.5, 7, 7, 2.0))
    )
    return torch.stack([picture, picture.T]).float()  # type: ignore[union-attr]


def test_what_larger_pixels_can_hold_is_sampled_on_them() -> None:
    # White noise keeps its variance, so a picture grows by the ratio of the boxes.
    torch.testing.assert_close(crop_images(waves(48), 16), waves(16) * 3, atol=1e-5, rtol=0)
    torch.testing.assert_close(crop_images(waves(48), 30), waves(30) * 1.6, atol=1e-5, rtol=0)


def test_white_noise_keeps_its_variance(generator: torch.Generator) -> None:
    noise = crop_images(torch.randn(400, 64, 64, generator=generator), 32)
    # The row and column at the Nyquist frequency are empty; 400 x 1023 independent values.
    assert abs(noise.var().item() * (32 / 31) ** 2 - 1) < 0.01


def test_what_they_cannot_hold_is_gone(generator: torch.Generator) -> None:
    axis = torch.arange(32)
    for wave in (8, 9, 15, 16):
        image = torch.cos(2 * math.pi * wave * axis / 32 + 0.3).expand(32, 32)
        assert crop_images(image, 16).abs().max() < 1e-5 and crop_images(image.T, 16).abs().max() < 1e-5
    image = torch.randn(32, 32, generator=generator)
    assert torch.equal(crop_images(image, 32), image)
