"""Maps from sums over the images of a whole team: each member makes those of some classes."""

from dataclasses import replace

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import Lattice, correct_interpolation
from cryohydra.inference.reconstruction import ClassMaps, ClassSums
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training.team import Team


def sums_dealt(team: Team, own: ClassSums) -> ClassSums:
    """Sums over the images of all members, of the two halves, for the classes that fall to this one (`Team.deal`)."""
    halves = own.halved()
    dealt = team.sum_dealt(*(sums.transpose(0, 1) for sums in (halves.numerator, halves.denominator)))
    return ClassSums(own.lattice, *(sums.transpose(0, 1) for sums in dealt))


def maps_of_all(team: Team, dealt: ClassMaps, num_classes: int) -> ClassMaps:
    """The maps of all classes, each made by the member to which it fell."""
    halves = dealt.halves
    if halves is not None:
        halves = team.gather(halves.transpose(0, 1), num_classes).transpose(0, 1)
    values = team.gather(dealt.values, num_classes)
    return replace(
        dealt, values=values, half_correlation=team.gather(dealt.half_correlation, num_classes), halves=halves
    )


def slices_of_all(
    team: Team, lattice: Lattice, values: Float[Tensor, "k n n n"], slicers: GridSlicers
) -> LatticeSlices:
    """Slices of maps that every member has; each corrects some of them for the interpolation."""
    corrected = correct_interpolation(lattice, team.dealt(values))
    return LatticeSlices(lattice, team.gather(corrected, len(values)), slicers)


def cut_ahead(team: Team, maps: LatticeSlices, band: Band, level: int, num_asked: int) -> None:
    """Cut a whole grid, each member its share, if all of them together will ask for so many slices of it."""
    if maps.is_worth_cutting(band, level, num_asked):
        num_cells = maps.num_cells(band, level)
        maps.keep_cells(band, level, team.gather(maps.cut_cells(band, level, team.deal(num_cells)), num_cells))
