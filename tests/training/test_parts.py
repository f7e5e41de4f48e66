"""Maps of all parts but one."""

import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.slices import GridSlicers
from cryohydra.training.parts import NUM_PARTS, Parts
from cryohydra.training.team import ALONE

RADIUS, LEVEL = 6, 1


def test_grids_are_cut_ahead_where_the_maps_before_were_asked_for_as_much(generator: torch.Generator) -> None:
    parts = Parts(Lattice(24, RADIUS), 2, torch.device("cpu"), GridSlicers(), follows_density=False)
    for sums in (parts.sums.numerator, parts.sums.denominator):
        sums.copy_(torch.rand(sums.shape, generator=generator))
    parts._known = set(range(NUM_PARTS))
    which, cells = torch.arange(400) % 2, torch.arange(400)
    cut_ahead = []
    for radius, num_asked in ((RADIUS, 400), (RADIUS, 20), (RADIUS, 400), (RADIUS - 1, 0)):
        maps = parts.maps_of_others(radius, ALONE)
        assert maps is not None
        cut_ahead.append(list(maps._cells))
        for first in range(0, num_asked, 20):
            asked = slice(first, first + 20)
            maps.of_cells(Band(24, RADIUS), which[asked], LEVEL, cells[asked])
    assert cut_ahead == [[], [(LEVEL, RADIUS)], [], []]
