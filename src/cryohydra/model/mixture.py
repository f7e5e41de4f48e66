"""K fields: what each class would look like."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fields.base import Field, FieldConfig
from cryohydra.fields.render import render_map


class Mixture(nn.Module):
    """One field per class, all of one box size and one length of conformation."""

    def __init__(self, fields: Sequence[Field], box_size: int):
        super().__init__()
        assert len({field.z_dim for field in fields}) == 1, "fields must agree on z_dim"
        self.fields = nn.ModuleList(fields)
        self.box_size = box_size
        self.z_dim = fields[0].z_dim

    @property
    def num_classes(self) -> int:
        """Number of fields."""
        return len(self.fields)

    def field(self, class_index: int) -> Field:
        """The field of one class."""
        return cast(Field, self.fields[class_index])

    def keep_classes(self, kept: Int[Tensor, "m"]) -> None:
        """Forget all other fields."""
        self.fields = nn.ModuleList([self.field(k) for k in kept.tolist()])

    def forward(self, frequencies: Float[Tensor, "b t k p 3"], z: Float[Tensor, "b k z"]) -> Float[Tensor, "b t k p"]:
        """Each class's slice for each particle, at frequencies already rotated into its frame."""
        z_of_tilt = z[:, None].expand(-1, frequencies.shape[1], -1, -1)
        # A plain loop: on the CPU it is faster than batched products over classes.
        slices = [field(frequencies[:, :, k], z_of_tilt[:, :, k]) for k, field in enumerate(self.fields)]
        return torch.stack(slices, dim=2)

    def map(self, class_index: int, z: Float[Tensor, "z"], radius: int | None = None) -> Float[Tensor, "d d d"]:
        """The real-space density of one class in one conformation, see `render_map`."""
        return render_map(self.field(class_index), z, self.box_size, radius)


def build_mixture(
    config: FieldConfig, *, num_classes: int, box_size: int, z_dim: int, generator: torch.Generator
) -> Mixture:
    """K new fields of one kind, each drawn in turn from `generator`."""
    fields = [config.build(box_size=box_size, z_dim=z_dim, generator=generator) for _ in range(num_classes)]
    return Mixture(fields, box_size)
