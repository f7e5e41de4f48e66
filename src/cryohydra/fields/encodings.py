"""What a network sees of a frequency and of a conformation."""

import math

import torch
from torch import nn
from torch.nn import functional

from cryohydra._typing import Float, Tensor


class GaussianFourierFeatures(nn.Module):
    """Sines and cosines of a frequency against random points in real space.

    A wave cos(2 pi f.r) over frequency is a point at r in real space, so the spread of the points
    says where density is expected.

    References:
        Tancik et al., Fourier features let networks learn high frequency functions, NeurIPS 2020.
    """

    points_px: Tensor

    def __init__(self, num_points: int, spread_px: float, generator: torch.Generator):
        super().__init__()
        points = torch.randn(num_points, 3, generator=generator, device=generator.device)
        self.register_buffer("points_px", points * spread_px)

    @property
    def num_features(self) -> int:
        """Length of the encoding."""
        return 2 * len(self.points_px)

    def forward(self, frequencies: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch c"]:
        """Encode frequencies in cycles per pixel; features have a mean square of one half."""
        phase = functional.linear(frequencies, 2 * math.pi * self.points_px)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class IdentityEncoding(nn.Module):
    """A conformation as it is."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.num_features = z_dim

    def forward(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch c"]:
        """Return `z`."""
        return z


class GeometricEncoding(nn.Module):
    """A conformation with sines and cosines of it, at wavelengths that halve from 4 downwards."""

    octaves: Tensor

    def __init__(self, z_dim: int, num_octaves: int = 4):
        super().__init__()
        self.num_features = z_dim * (1 + 2 * num_octaves)
        self.register_buffer("octaves", math.pi / 2 * 2.0 ** torch.arange(num_octaves))

    def forward(self, z: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch c"]:
        """Encode conformations; an empty one stays empty."""
        phase = (z[..., None] * self.octaves).flatten(-2)
        return torch.cat([z, phase.sin(), phase.cos()], dim=-1)
