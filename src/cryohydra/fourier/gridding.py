"""The Fourier transform of a volume between lattice points, to one part in a thousand.

References:
    Beatty et al., Rapid gridding reconstruction with a minimal oversampling ratio, IEEE TMI 2005.
"""

import math

import torch

from cryohydra._typing import Complex, Float, Int, Tensor

_WIDTH = 4
_PADDING = 2
# Beatty's choice for twofold padding.
_SHAPE = math.pi * math.sqrt((_WIDTH / _PADDING * (_PADDING - 0.5)) ** 2 - 0.8)
# Linear interpolation in the table is then exact to a millionth.
_TABLE_STEPS = 4096
_POINTS_AT_ONCE = 100_000


class FourierSampler:
    """A volume's Fourier transform at any frequency up to half a cycle per pixel.

    The volume is divided by the transform of a Kaiser-Bessel kernel, padded to twice its size and
    transformed; the kernel then interpolates. Holds eight times the volume, as complex numbers.
    """

    def __init__(self, volume: Float[Tensor, "d d d"]):
        self.box_size = volume.shape[-1]
        assert self.box_size % 2 == 0
        self._padded_size = _PADDING * self.box_size
        correction = _kernel_transform(self.box_size, self._padded_size, volume.device)
        corrected = volume / (correction[:, None, None] * correction[:, None] * correction)
        margin = (self._padded_size - self.box_size) // 2
        padded = torch.nn.functional.pad(corrected, (margin,) * 6)
        fourier = torch.fft.fftn(torch.fft.ifftshift(padded))
        # Rows of real and imaginary parts: one gather brings both.
        self._table = _kernel_table(volume.device)
        self._lattice = torch.view_as_real(fourier).reshape(-1, 2)

    def at(self, frequencies: Float[Tensor, "*batch 3"]) -> Complex[Tensor, "*batch"]:
        """Values, as a plain sum over voxels with the origin at index D//2.

        Args:
            frequencies: Cycles per pixel, (x, y, z).
        """
        flat = frequencies.reshape(-1, 3)
        parts = [self._interpolate(chunk) for chunk in flat.split(_POINTS_AT_ONCE)]
        return torch.cat(parts).reshape(frequencies.shape[:-1])

    def _interpolate(self, frequencies: Float[Tensor, "n 3"]) -> Complex[Tensor, "n"]:
        size = self._padded_size
        cell = frequencies * size
        first = torch.ceil(cell - _WIDTH / 2)
        offsets = torch.arange(_WIDTH, device=cell.device)
        weight = self._kernel(cell[:, :, None] - (first[:, :, None] + offsets))  # n 3 w
        index: Int[Tensor, "n 3 w"] = ((first.int()[:, :, None] + offsets) % size).int()
        row = (index[:, 2, :, None] * size + index[:, 1, None, :]) * size  # n w w
        neighbours = (row[..., None] + index[:, 0, None, None, :]).flatten(1)
        weights = weight[:, 2, :, None, None] * weight[:, 1, None, :, None] * weight[:, 0, None, None, :]
        # Gathers, weighs and sums in one pass: twelve times faster than indexing.
        total = torch.nn.functional.embedding_bag(
            neighbours, self._lattice, mode="sum", per_sample_weights=weights.flatten(1)
        )
        return torch.view_as_complex(total)

    def _kernel(self, distance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Kaiser-Bessel window over `_WIDTH` cells, one at its middle."""
        place = distance.abs() * (_TABLE_STEPS / (_WIDTH / 2))
        below = place.detach().long().clamp(0, _TABLE_STEPS - 1)
        return torch.lerp(self._table[below], self._table[below + 1], place - below)


def _kernel_table(device: torch.device) -> Float[Tensor, "steps"]:
    """The kernel from its middle to its edge."""
    distance = torch.linspace(0, 1, _TABLE_STEPS + 1, dtype=torch.float64, device=device)
    peak = torch.special.i0(torch.tensor(_SHAPE, dtype=torch.float64)).item()
    return (torch.special.i0(_SHAPE * (1 - distance.square()).sqrt()) / peak).float()


def _kernel_transform(box_size: int, padded_size: int, device: torch.device) -> Float[Tensor, "d"]:
    """Fourier transform of the kernel at the voxels of a box."""
    position = (torch.arange(box_size, device=device) - box_size // 2) / padded_size
    # Positive up to a quarter of a cycle, which is where the padded box ends.
    root = torch.sqrt(_SHAPE**2 - (math.pi * _WIDTH * position).square())
    peak = torch.special.i0(torch.tensor(_SHAPE)).item()
    return _WIDTH / peak * torch.sinh(root) / root
