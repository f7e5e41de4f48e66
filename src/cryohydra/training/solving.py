"""Maps from sums over the images of a whole team: each member makes those of some classes."""

from dataclasses import replace

from cryohydra.inference.reconstruction import ClassMaps, ClassSums
from cryohydra.training.team import Team


def sums_dealt(team: Team, own: ClassSums) -> ClassSums:
    """Sums over the images of all members, of the two halves, for the classes that fall to this one (`Team.deal`)."""
    halves = own.halved()
    numerator, denominator = (
        team.sum_dealt(sums.transpose(0, 1)).transpose(0, 1) for sums in (halves.numerator, halves.denominator)
    )
    return ClassSums(own.lattice, numerator, denominator)


def maps_of_all(team: Team, dealt: ClassMaps, num_classes: int) -> ClassMaps:
    """The maps of all classes, each made by the member to which it fell."""
    halves = dealt.halves
    if halves is not None:
        halves = team.gather(halves.transpose(0, 1), num_classes).transpose(0, 1)
    values = team.gather(dealt.values, num_classes)
    return replace(
        dealt, values=values, half_correlation=team.gather(dealt.half_correlation, num_classes), halves=halves
    )
