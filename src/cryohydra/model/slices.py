"""Slices of fields for a search: exact, or rendered once and interpolated."""

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fields.render import render_hartley
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, enlarge, slice_frequencies
from cryohydra.geometry.rotations import rotation_vector_to_matrix
from cryohydra.geometry.so3_grid import grid_rotations
from cryohydra.model.mixture import Mixture

_POINTS_AT_ONCE = 2**18
_SMALL_TURN = 1e-3
"""In radians."""
OVERSAMPLING = 3
"""Of lattices of fields. A map is masked and twice is enough; a network leaves a little density everywhere, which
wraps around on a lattice of 2: slices were off by 1.1 % there, by 0.7 % at 3."""


class FieldSlices:
    """Every slice straight from the network: exact and slow, the yardstick for those that are interpolated."""

    def __init__(self, mixture: Mixture, conformation: Float[Tensor, "k z"]):
        self.num_classes = mixture.num_classes
        self._mixture = mixture
        self._conformation = conformation

    def on_grid(self, band: Band, rotations: Float[Tensor, "q 3 3"]) -> Float[Tensor, "k q p"]:
        """Every class's slice at every rotation."""
        return torch.stack([self._of_class(k, band, rotations) for k in range(self.num_classes)])

    def of_candidates(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> Float[Tensor, "m p"]:
        """One slice for each pair of class and rotation."""
        slices = rotation.new_empty(len(rotation), len(band))
        for k in range(self.num_classes):
            rows = torch.nonzero(class_index == k).squeeze(-1)
            slices[rows] = self._of_class(k, band, rotation[rows])
        return slices

    def of_cells(
        self, band: Band, class_index: Int[Tensor, "m"], level: int, rotation_index: Int[Tensor, "m"]
    ) -> Float[Tensor, "m p"]:
        """The same at rotations of a level's grid."""
        return self.of_candidates(band, class_index, grid_rotations(level, rotation_index))

    def with_tangents(
        self, band: Band, class_index: Int[Tensor, "m"], rotation: Float[Tensor, "m 3 3"]
    ) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m 3 p"]]:
        """One slice for each pair, and what a small turn adds to it: by central differences."""
        there, back = (
            torch.stack([self.of_candidates(band, class_index, rotation @ turn) for turn in turns], dim=1)
            for turns in (
                rotation_vector_to_matrix(sign * _SMALL_TURN * torch.eye(3, device=rotation.device)) for sign in (1, -1)
            )
        )
        return self.of_candidates(band, class_index, rotation), (there - back) / (2 * _SMALL_TURN)

    @torch.no_grad()
    def _of_class(self, class_index: int, band: Band, rotation: Float[Tensor, "m 3 3"]) -> Float[Tensor, "m p"]:
        field, z = self._mixture.field(class_index), self._conformation[class_index]
        at_once = max(1, _POINTS_AT_ONCE // len(band))
        parts = [field(slice_frequencies(band, some), z.expand(len(some), -1)) for some in rotation.split(at_once)]
        return torch.cat(parts) if parts else rotation.new_empty(0, len(band))


def render_lattices(mixture: Mixture, conformation: Float[Tensor, "k z"], lattice: Lattice) -> Float[Tensor, "k n n n"]:
    """Each class's field on a lattice, one network evaluation per point, shared by all images.

    Points up to a step beyond the lattice's radius are evaluated too: slices are interpolated from them.
    """
    values = []
    for k in range(mixture.num_classes):
        inner = render_hartley(
            mixture.field(k), conformation[k], lattice.box_size, lattice.radius + 1, lattice.oversampling
        )
        # On a cube of another size, and zero where nothing is interpolated.
        values.append(enlarge(inner[None], lattice)[0])
    return torch.stack(values)
