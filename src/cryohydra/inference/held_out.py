"""Particles of which no map learns: what they say of maps is no echo of themselves."""

import math

from cryohydra._typing import Bool, Int, Tensor

_EVERY = 20
_MOST = 2000


def is_held_out(particle: Int[Tensor, "*n"], num_particles: int) -> Bool[Tensor, "*n"]:
    """Whether particles are judges: every twentieth of the set, fewer of a large one, none of fewer than twenty.

    Their classes, poses and conformations are found as those of any other particle.

    Args:
        particle: Rows in the whole set.
    """
    stride = max(_EVERY, math.ceil(num_particles / _MOST))
    return particle % stride == stride - 1
