"""The particles in parts, one after the other compared with the maps of all others.

Where classes are in doubt a pass over all images changes them little; so maps are made anew for each part of it
(incremental expectation and maximisation: Neal and Hinton, 1998). Images seen already in this pass count as they are
now, the others as they did in the pass before, and those of the part itself not at all.
"""

from collections.abc import Iterator

import torch

from cryohydra._typing import Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.inference.partition import part_of
from cryohydra.inference.reconstruction import ClassSums, particle_mask
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training.solving import maps_of_all, slices_of_all, sums_dealt
from cryohydra.training.team import Team

NUM_PARTS = 8
_ENOUGH = NUM_PARTS // 2
"""Parts that make maps by themselves, where there are no sums of a pass before."""


def batches_of_parts(num_particles: int, batch_size: int, generator: torch.Generator) -> Iterator[Int[Tensor, "b"]]:
    """Every particle once, part by part, in random order within each; parts of the two halves take turns.

    Maps are trusted as far as their halves agree: those of parts of one half alone would not be trusted at all.
    """
    every = torch.arange(num_particles)
    for part in torch.arange(NUM_PARTS).unflatten(0, (2, -1)).T.flatten():
        rows = every[part_of(every, NUM_PARTS) == part]
        if len(rows):
            yield from rows[torch.randperm(len(rows), generator=generator)].split(batch_size)


class Parts:
    """Sums over the particles of each part."""

    def __init__(
        self,
        lattice: Lattice,
        num_classes: int,
        device: torch.device,
        slicers: GridSlicers,
        follows_density: bool,
    ):
        """Sums over no images.

        Args:
            follows_density: Whether maps are confined to their own density (`ClassSums.solve`).
        """
        self.sums = ClassSums.empty(lattice, num_classes, device, NUM_PARTS)
        self._slicers, self._follows_density = slicers, follows_density
        self._known = set[int]()
        """Parts whose sums are complete."""
        self._now: int | None = None

    def turn_to(self, index: Int[Tensor, "b"]) -> bool:
        """Take out the part that a batch is of, to be added anew; false if it is being added already.

        Args:
            index: Rows of one part; see `batches_of_parts`.
        """
        part = int(part_of(index[0], NUM_PARTS))
        assert bool((part_of(index, NUM_PARTS) == part).all()), "a batch is of one part"
        if part == self._now:
            return False
        if self._now is not None:
            self._known.add(self._now)
        self.sums.forget(part)
        self._known.discard(part)
        self._now = part
        return True

    def maps_of_others(self, radius: int, team: Team) -> LatticeSlices | None:
        """The K maps of all parts but the one that is being added, up to a radius; None while too few are known.

        Args:
            team: Whose images make them.
        """
        if len(self._known) < _ENOUGH:
            return None
        # Only what is compared is needed.
        narrow = sums_dealt(team, self.sums.within(radius))
        mask = particle_mask(narrow.lattice, self.sums.numerator.device)
        solution = narrow.solve(mask, follows_density=self._follows_density)
        maps = maps_of_all(team, solution.maps, self.sums.numerator.shape[1])
        lattice = self.sums.lattice
        return slices_of_all(team, lattice, enlarge(maps.values, lattice), self._slicers)
