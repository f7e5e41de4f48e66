"""A network that reads the conformation off the images."""

import math

import torch
from torch import nn
from torch.nn import functional

from cryohydra._typing import Float, Tensor
from cryohydra.model.tables import Conformation


class ConvolutionalEncoder(nn.Module):
    """Convolutions that halve the image, then one conformation per class.

    Tilts of one particle are averaged: they show one conformation.
    """

    def __init__(
        self,
        *,
        box_size: int,
        num_classes: int,
        z_dim: int,
        generator: torch.Generator,
        depth: int = 5,
        channels: int = 32,
        kernel_size: int = 3,
        resolution: int | None = None,
        is_variational: bool = False,
    ):
        """Draw the weights from `generator`.

        Args:
            depth: Number of convolutions, each followed by a halving while more than one pixel is left.
            channels: Of the first convolution; each next one has twice as many, eight times at most.
            kernel_size: Pixels, odd.
            resolution: Pixels to which images are reduced first; None leaves them.
        """
        super().__init__()
        assert kernel_size % 2 == 1, "an even kernel has no centre"
        self.num_classes = num_classes
        self.z_dim = z_dim
        self.resolution = min(resolution or box_size, box_size)
        self.is_variational = is_variational
        self.convolutions = nn.ModuleList()
        size, num_inputs = self.resolution, 1
        for level in range(depth):
            num_outputs = channels * min(2**level, 8)
            convolution = nn.utils.skip_init(
                nn.Conv2d, num_inputs, num_outputs, kernel_size, padding=kernel_size // 2, device=generator.device
            )
            _draw(convolution, generator)
            self.convolutions.append(convolution)
            size, num_inputs = max(size // 2, 1), num_outputs
        shape = (2 if is_variational else 1, num_classes, z_dim, num_inputs * size**2)
        weight = torch.randn(shape, generator=generator, device=generator.device)
        # Conformations start near zero, where an autodecoder's do.
        self.readout = nn.Parameter(0.1 * weight / math.sqrt(shape[-1]))
        self.bias = nn.Parameter(weight.new_zeros(shape[:-1]))

    def forward(self, images: Float[Tensor, "b t d d"]) -> Conformation:
        """Conformations of particles from real-space images of unit noise."""
        hidden = images.mean(dim=1, keepdim=True)
        if self.resolution < hidden.shape[-1]:
            hidden = functional.adaptive_avg_pool2d(hidden, self.resolution)
        for convolution in self.convolutions:
            hidden = torch.relu(convolution(hidden))
            if hidden.shape[-1] > 1:
                hidden = functional.avg_pool2d(hidden, 2)
        answer = torch.einsum("bc,akzc->abkz", hidden.flatten(1), self.readout) + self.bias[:, None]
        return Conformation(answer[0], answer[1] if self.is_variational else None)


def _draw(layer: nn.Conv2d, generator: torch.Generator) -> None:
    """Draw a layer's weights as Kaiming's rule for rectified units has it, and zero its bias."""
    assert layer.bias is not None
    bound = math.sqrt(6 / layer.weight[0].numel())
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
