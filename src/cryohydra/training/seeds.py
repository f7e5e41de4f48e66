"""What is known of some classes before a training begins."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice

_NEVER = -1e4
"""Nats by which a label speaks against other classes: more than any image says."""


@dataclass(frozen=True, eq=False)
class Seeds:
    """Maps and members from which some classes start; the others are free."""

    lattice: Lattice
    values: Float[Tensor, "k n n n"]
    """In the scale of the images, as far as their power tells it; zero of a class without a map."""
    has_map: Bool[Tensor, "k"]
    label: Int[Tensor, "m"]
    """Class of each particle, -1 where it is not known."""

    @property
    def is_seeded(self) -> Bool[Tensor, "k"]:
        """Whether anything is known of each class."""
        members = torch.bincount(self.label[self.label >= 0], minlength=len(self.has_map))
        return self.has_map | (members > 0)

    def log_prior(self, particle: Int[Tensor, "b"]) -> Float[Tensor, "b k"]:
        """Log probability of each class before any image is seen, but for a constant of each particle."""
        label = self.label[particle][:, None]
        every = torch.arange(len(self.has_map), device=label.device)
        return torch.where((label < 0) | (label == every), 0.0, _NEVER)

    def first_weights(self, generator: torch.Generator) -> Float[Tensor, "n k"]:
        """Classes from which maps are made at known poses: labels; of particles without, any of the free classes.

        At random, so that free classes differ. Where no class is free, such a particle counts to none.
        """
        is_free = (~self.is_seeded).float()
        drawn = torch.rand(len(self.label), len(is_free), generator=generator).to(is_free.device) * is_free
        drawn = drawn / drawn.sum(1, keepdim=True).clamp(min=1e-6)
        one = torch.nn.functional.one_hot(self.label.clamp(min=0), len(is_free)).float()
        return torch.where(self.label[:, None] < 0, drawn, one)
