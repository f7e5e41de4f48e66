"""How large coefficients are, shell by shell."""

import torch
from torch import nn

from cryohydra._typing import Float, Tensor
from cryohydra.errors import InputMismatch


class RadialAmplitude(nn.Module):
    """A factor per Fourier pixel of radius, interpolated linearly between them.

    A density's coefficients fall by orders of magnitude from zero to Nyquist; with this factor
    taken out, a network learns numbers of order one.
    """

    amplitude: Tensor

    def __init__(self, box_size: int):
        super().__init__()
        self.box_size = box_size
        self.register_buffer("amplitude", torch.ones(box_size // 2 + 1))

    def set(self, amplitude: Float[Tensor, "r"]) -> None:
        """Replace the factors at radius 0, 1, ... box_size / 2.

        Raises:
            InputMismatch: If there are more or fewer of them.
        """
        if amplitude.shape != self.amplitude.shape:
            raise InputMismatch(
                f"{len(amplitude)} radial amplitudes came for a box of {self.box_size} pixels; "
                f"give {len(self.amplitude)}, one for each radius from 0 to {self.box_size // 2}."
            )
        self.amplitude.copy_(amplitude)

    def forward(self, frequencies: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """The factor at frequencies in cycles per pixel; constant beyond Nyquist."""
        # The small number keeps the gradient of the norm finite at zero.
        radius = (frequencies.square().sum(-1) + 1e-12).sqrt() * self.box_size
        radius = radius.clamp(max=len(self.amplitude) - 1)
        below = radius.detach().long().clamp(max=len(self.amplitude) - 2)
        return torch.lerp(self.amplitude[below], self.amplitude[below + 1], radius - below)
