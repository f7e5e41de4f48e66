"""What a neural field is to the rest of the program."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from cryohydra._registry import Registry
from cryohydra._typing import Float, Tensor


class Field(nn.Module, ABC):
    """A density in frequency space that may deform with a conformation z.

    Keeps leading axes, accepts an empty z, is finite with finite gradients, repeats under one seed
    and survives saving. It knows no class, pose, tilt or CTF.
    """

    z_dim: int

    @abstractmethod
    def forward(
        self, frequencies: Float[Tensor, "*batch p 3"], z: Float[Tensor, "*batch z"]
    ) -> Float[Tensor, "*batch p"]:
        """Hartley coefficients at frequencies in cycles per pixel, (x, y, z), |f| <= 0.5.

        Scaled as `volume_to_hartley`: a central slice is the transform of the projection.
        """

    def at(self, frequencies: Float[Tensor, "p 3"], dtype: torch.dtype = torch.float32) -> "FieldAt":
        """This field, as it is now, at frequencies that stay while conformations change.

        A field that can do part of its work once for all conformations does it here.

        Args:
            dtype: What hidden layers may be rounded to.
        """
        return partial(self, frequencies)

    @abstractmethod
    def set_radial_amplitude(self, amplitude: Float[Tensor, "r"]) -> None:
        """Say how large coefficients are at 0, 1, ... box_size / 2 Fourier pixels from zero.

        A hint for training: what is learned is then of order one at every frequency.
        """

    @abstractmethod
    def mirror(self) -> None:
        """Become the density inverted through its centre, of the other hand: what was at -f is now at f."""


FieldAt = Callable[[Float[Tensor, "z"]], Float[Tensor, "p"]]
"""Coefficients at known frequencies, of one conformation."""


class FrozenSettings(BaseModel):
    """Settings that are checked when made and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldConfig(FrozenSettings, ABC):
    """Settings of a kind of field, and how to build one."""

    @abstractmethod
    def build(self, *, box_size: int, z_dim: int, generator: torch.Generator) -> Field:
        """A new field for images of `box_size` pixels and conformations of `z_dim` numbers."""


FIELDS: Registry[FieldConfig] = Registry("field")
