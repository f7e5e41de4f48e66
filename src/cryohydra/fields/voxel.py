"""A field without a network: one number per point of the Hartley lattice."""

import torch
from torch import nn
from torch.nn import functional

from cryohydra._typing import Float, Tensor
from cryohydra.errors import UserError
from cryohydra.fields.amplitude import RadialAmplitude
from cryohydra.fields.base import FIELDS, Field, FieldConfig


@FIELDS.register("voxel")
class VoxelFieldConfig(FieldConfig):
    """Settings of a `VoxelField`; there are none."""

    def build(self, *, box_size: int, z_dim: int, generator: torch.Generator) -> "VoxelField":
        """A new field, zero everywhere.

        Raises:
            UserError: If it should deform.
        """
        if z_dim != 0:
            raise UserError(
                f"A voxel field is rigid but z_dim is {z_dim}. Set z_dim to 0, or choose the field 'mlp' to see motion."
            )
        return VoxelField(box_size)


class VoxelField(Field):
    """Real coefficients on the odd lattice of (box_size + 1)^3 points, interpolated trilinearly."""

    def __init__(self, box_size: int):
        super().__init__()
        self.z_dim = 0
        self.radial = RadialAmplitude(box_size)
        self.coefficients = nn.Parameter(torch.zeros(box_size + 1, box_size + 1, box_size + 1))

    @property
    def radial_amplitude(self) -> Float[Tensor, "r"]:
        """The factor on the lattice's values at 0, 1, ... box_size / 2 Fourier pixels from zero."""
        return self.radial.amplitude

    def set_radial_amplitude(self, amplitude: Float[Tensor, "r"]) -> None:
        """Replace `radial_amplitude`."""
        self.radial.set(amplitude)

    @torch.no_grad()
    def mirror(self) -> None:
        """Exchange f and -f: the lattice is symmetric about zero."""
        self.coefficients.copy_(self.coefficients.flip(0, 1, 2))

    def forward(
        self, frequencies: Float[Tensor, "*batch p 3"], z: Float[Tensor, "*batch z"]
    ) -> Float[Tensor, "*batch p"]:
        """Coefficients at frequencies in cycles per pixel; beyond Nyquist those of the nearest edge."""
        assert z.shape[-1] == 0, "a voxel field is rigid"
        flat = frequencies.reshape(1, -1, 1, 1, 3)
        # Nyquist is half a cycle per pixel and lies at 1 in the coordinates of `grid_sample`.
        values = functional.grid_sample(
            self.coefficients[None, None], 2 * flat, padding_mode="border", align_corners=True
        )
        return values.reshape(frequencies.shape[:-1]) * self.radial(frequencies)
