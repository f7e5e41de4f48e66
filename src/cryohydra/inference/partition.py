"""Which particles go together: halves and parts that are compared with maps of the others, and those held out.

Rows of a file may follow one another in any order: two datasets in turn, micrographs of as many particles each. So each
block of rows is dealt out evenly, and each in an order of its own, by a hash of its number.
"""

import math

from cryohydra._typing import Bool, Int, Tensor

_BLOCK = 16
"""Rows."""
_EVERY = 20
_MOST = 2000


def part_of(particle: Int[Tensor, "*n"], num_parts: int) -> Int[Tensor, "*n"]:
    """Which of 2, 4, 8 or 16 parts, from 0, a row of the whole set belongs to; each has as many but for a few."""
    block, position = particle // _BLOCK, particle % _BLOCK
    return (position ^ (_hash(block) % _BLOCK)) * num_parts // _BLOCK


def half_of(particle: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Which half, 0 or 1, a row of the whole set belongs to: the first half of any number of parts, or the second."""
    return part_of(particle, 2)


def is_held_out(particle: Int[Tensor, "*n"], num_particles: int) -> Bool[Tensor, "*n"]:
    """Whether particles are judges: one in twenty of the set, fewer of a large one, none of fewer than twenty.

    No pass of the search lets a map learn of them, so what they say of maps is no echo of themselves. Their classes,
    poses and conformations are found as those of any other particle.

    Args:
        particle: Rows in the whole set.
    """
    one_in = max(_EVERY, math.ceil(num_particles / _MOST))
    block, position = particle // one_in, particle % one_in
    # Of the last block there may be too little.
    return (position == _hash(block + num_particles) % one_in) & (block < num_particles // one_in)


def _hash(number: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Numbers from 0 to 2^32 that look random (the finalizer of MurmurHash3, A. Appleby, 2008, shortened)."""
    mixed = (number.long() + 1) * 0x9E3779B1 % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA6B % 2**32
    return mixed ^ (mixed >> 13)
